"""What pixels become: dtypes, faults, constants, sizes, colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.images import Normalization, measure_normalization
from napari_mpt_deblur.images.view import ImageView
from napari_mpt_deblur.restoration import deblur

DTYPES = ["uint8", "uint16", ">u2", "int16", "int32", "uint32", "float16", "float32", ">f4", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_shape_and_values_are_kept(dtype: str, scene: Callable, restore: Callable) -> None:
    image = (scene(2, 70, 90) / 4).astype(dtype)
    before = image.copy()
    restored = restore(image)
    assert restored.array.dtype == np.dtype(dtype)
    assert restored.array.shape == image.shape
    np.testing.assert_array_equal(image, before)
    exact = restore(image.astype("float32"), dtype="float32", normalization=measure_normalization(ImageView.of(image)))
    step = 0.5 if np.dtype(dtype).kind in "iu" else 0.15 if dtype == "float16" else 1e-3
    limits = (np.iinfo if np.dtype(dtype).kind in "iu" else np.finfo)(dtype)
    expected = np.clip(exact.array.astype(np.float64), float(limits.min), float(limits.max))
    np.testing.assert_allclose(restored.array.astype(np.float64), expected, atol=step + 1e-3)
    assert np.abs(exact.array - image.astype("float32")).mean() > 1  # the network did something


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (3, 2), (64, 64), (65, 63), (129, 1)])
def test_any_size_works(shape: tuple[int, int], restore: Callable) -> None:
    image = np.random.default_rng(1).random(shape).astype(np.float32)
    assert restore(image).array.shape == shape


@pytest.mark.parametrize("tile_px", [None, 128])
def test_faulty_pixels_stay_where_they_are_and_do_not_spread(
    tile_px: int | None, scene: Callable, restore: Callable
) -> None:
    clean = scene(200, 180)
    faulty = clean.copy()
    faulty[20, 30], faulty[21, 31], faulty[100:103, 50], faulty[150, 170] = np.nan, np.inf, -np.inf, 1e30
    where = ~np.isfinite(faulty) | (faulty > 1e20)
    statistics = measure_normalization(ImageView.of(clean))
    restored = restore(faulty, tile_px=tile_px, normalization=statistics).array
    np.testing.assert_array_equal(restored[where], faulty[where])
    assert np.isfinite(restored[~where]).all()
    reference = restore(clean, tile_px=tile_px, normalization=statistics).array
    assert np.abs(restored - reference)[~where].max() < 0.1 * np.ptp(clean)


@pytest.mark.parametrize(("dtype", "level"), [("f2", 1), ("f2", 40), (">f2", 1), ("f4", 1), ("f4", 1e34), ("f8", 1e34)])
def test_infinite_pixels_stay_in_every_type(dtype: str, level: float, scene: Callable, restore: Callable) -> None:
    """Also where the usable range of intensities reaches beyond what the type can hold."""
    faulty = (scene(70, 80).astype(np.float64) * level).astype(dtype)
    faulty[20, 30], faulty[40, 50], faulty[60, 10] = np.nan, np.inf, -np.inf
    where = ~np.isfinite(faulty)
    restored = restore(faulty).array
    np.testing.assert_array_equal(restored[where], faulty[where])
    assert np.isfinite(restored[~where]).all()


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_image_comes_back_unchanged(value: int, restore: Callable) -> None:
    image = np.full((2, 70, 70), value, np.uint16)
    np.testing.assert_array_equal(restore(image).array, image)
    np.testing.assert_array_equal(restore(image.astype("float32") / 3).array, image.astype("float32") / 3)


def test_constant_and_empty_planes_of_a_stack_come_back_unchanged(scene: Callable, restore: Callable) -> None:
    image = scene(4, 70, 70)
    image[1], image[2] = 123.25, np.nan
    restored = restore(image, batch=3).array
    np.testing.assert_array_equal(restored[1:3], image[1:3])
    assert np.abs(restored[0] - image[0]).mean() > 1
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(restore(np.full((2, 5, 5), np.nan)).array, np.full((2, 5, 5), np.nan))


def test_large_whole_numbers_keep_their_small_differences(scene: Callable, restore: Callable) -> None:
    image = scene(70, 70).astype(np.int64)
    moved = restore(image + 2**40).array - 2**40
    assert np.abs(moved - restore(image).array).max() <= 1


@pytest.mark.parametrize("level", [1e-310, 1e-42, 1e-30])
def test_tiny_numbers_are_no_loss(level: float, scene: Callable, restore: Callable) -> None:
    image = scene(70, 70).astype(np.float64)
    tiny = restore(image * level).array
    np.testing.assert_allclose(tiny / level, restore(image).array, atol=0.05)


def test_a_float64_offset_is_no_loss(scene: Callable, restore: Callable) -> None:
    image = scene(70, 70).astype(np.float64)
    moved = restore(image + 1e9).array - 1e9
    np.testing.assert_allclose(moved, restore(image).array, atol=0.05)


def test_intensities_stay_comparable_across_planes(scene: Callable, restore: Callable) -> None:
    """A stack is normalised as one: twice as bright stays about twice as bright."""
    plane = scene(70, 70)
    restored = restore(np.stack([plane, plane * 2])).array
    assert restored[1].mean() / restored[0].mean() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("samples", [3, 4])
def test_colours_are_restored_one_by_one_and_alpha_is_kept(samples: int, scene: Callable, restore: Callable) -> None:
    image = np.moveaxis(scene(samples, 70, 80) / 4, 0, -1).astype(np.uint8)
    restored = restore(image, "YXS", dtype="float32").array
    for colour in range(3):
        alone = restore(np.ascontiguousarray(image[..., colour]), dtype="float32").array
        np.testing.assert_allclose(
            restored[..., colour], alone, rtol=0, atol=1e-3
        )  # three at once add up in another order
    for result in (restored, restore(image, "YXS").array):
        np.testing.assert_array_equal(result[..., 3:], image[..., 3:])


def test_a_colour_model_takes_colours_together_and_grey_as_grey(
    colour_model: Model, tiny: Callable, scene: Callable, restore: Callable
) -> None:
    image = np.moveaxis(scene(3, 70, 80) / 4, 0, -1).astype(np.uint8)
    restored = restore(image, "YXS", use=colour_model)
    assert restored.array.shape == image.shape
    assert restored.record["tiles"]["batch"] >= 1
    grey = scene(2, 70, 80)
    assert restore(grey, use=colour_model).array.shape == grey.shape
    with pytest.raises(ModelError, match="3 colours"):
        restore(image, "YXS", use=tiny(channels=2))


def test_the_function_is_the_engine(model: Model, scene: Callable, restore: Callable) -> None:
    image = scene(3, 70, 80).astype(np.uint16)
    seen: list[int] = []
    result = deblur(image, model, axes="ZYX", precision="float32", progress=lambda step: seen.append(step.done))
    np.testing.assert_array_equal(result, restore(image).array)
    assert seen == sorted(seen)
    assert seen[-1] == 3
    assert deblur(image, model, dtype="float32").dtype == np.float32


def test_given_statistics_are_used(scene: Callable, restore: Callable) -> None:
    image = scene(70, 70)
    given = Normalization((0.0,), (5000.0,))
    assert restore(image, normalization=given).record["normalization"] == given.to_dict()
    assert not np.allclose(restore(image, normalization=given).array, restore(image).array)
