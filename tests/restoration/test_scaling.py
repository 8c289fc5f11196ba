"""Restoring at another scale: exact where nothing changes, detail of the input kept, off unless it is needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.restoration import planes
from napari_mpt_deblur.restoration.scaling import PlaneScaling


@pytest.mark.parametrize(
    ("diameter", "trained", "factor"),
    [(None, (8, 150), 1), (300, None, 1), (150, (8, 150), 1), (151, (8, 150), 2), (600, (8, 150), 4), (3, (8, 150), 1)],
)
def test_the_factor_brings_nuclei_into_the_models_range(
    diameter: float | None, trained: tuple[float, float] | None, factor: int
) -> None:
    assert PlaneScaling.of(diameter, trained).factor == factor


@given(st.integers(1, 5), st.integers(1, 60), st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_a_region_is_enlarged_as_in_the_whole(factor: int, height: int, width: int, data: st.DataObject) -> None:
    scaling = PlaneScaling(factor)
    change = np.random.default_rng(0).random((1, scaling.size(height), scaling.size(width)), dtype=np.float32)
    plane = (0, 0, height, width)
    whole = scaling.enlarge(change, scaling.reduced_region(plane, height, width), plane)
    assert whole.shape == (1, height, width)
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    region = (y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width)))
    top, left, bottom, right = source = scaling.reduced_region(region, height, width)
    part = scaling.enlarge(np.ascontiguousarray(change[:, top:bottom, left:right]), source, region)
    np.testing.assert_allclose(part, whole[:, y0 : region[2], x0 : region[3]], atol=1e-5)


def test_reduction_is_the_mean_of_squares() -> None:
    plane = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    np.testing.assert_allclose(PlaneScaling(2).reduce(plane), [[[2.5, 4.5], [8.5, 10.5]]])
    np.testing.assert_array_equal(PlaneScaling(1).reduce(plane), plane)


@pytest.mark.parametrize("tile_px", [None, 128])
def test_the_networks_change_is_added_at_full_size(
    tile_px: int | None, tiny: Callable, scene: Callable, restore: Callable
) -> None:
    image = np.repeat(np.repeat(scene(130, 140), 2, 0), 2, 1)
    fine = image.copy()
    fine[::2, ::2] += 5
    fine[1::2, 1::2] -= 5  # too fine for the reduced plane: its mean of each square is the same
    options = {"use": tiny(nucleus_diameter_px=(8, 150)), "tile_px": tile_px}
    small = restore(image[::2, ::2], use=options["use"], tile_px=tile_px).array
    plain = restore(ImageView.of(image, nucleus_diameter_px=300.0), **options)
    assert plain.record["reduced_by"] == 2
    detailed = restore(ImageView.of(fine, nucleus_diameter_px=300.0), **options)
    np.testing.assert_allclose(detailed.array - plain.array, fine - image, atol=1.5)
    assert np.abs(plain.array - image).mean() > 5
    block_mean = plain.array.reshape(130, 2, 140, 2).mean((1, 3))
    assert np.corrcoef((block_mean - image[::2, ::2]).ravel(), (small - image[::2, ::2]).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("tile_px", [None, 128])
def test_a_region_is_what_the_full_run_gives(
    tile_px: int | None, tiny: Callable, scene: Callable, restore: Callable
) -> None:
    view = ImageView.of(scene(301, 331), nucleus_diameter_px=300.0)
    options = {"use": tiny(nucleus_diameter_px=(8, 150)), "tile_px": tile_px}
    part = restore(view, region=(100, 33, 260, 120), **options).array
    np.testing.assert_allclose(part, restore(view, **options).array[100:260, 33:120], atol=1e-2)


def test_the_full_plane_is_handled_in_strips_that_leave_no_trace(
    tiny: Callable, scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = ImageView.of(scene(103, 90), nucleus_diameter_px=400.0)
    options = {"use": tiny(nucleus_diameter_px=(8, 150))}
    whole = restore(view, **options)
    assert whole.record["reduced_by"] == 3
    read, heights = planes.PlanePixels.read, []

    def noted(self: planes.PlanePixels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        heights.append(len(rows))
        return read(self, rows, columns)

    monkeypatch.setattr(planes.PlanePixels, "read", noted)
    monkeypatch.setattr(planes, "_STRIP_ROWS", 16)
    np.testing.assert_allclose(restore(view, **options).array, whole.array, atol=1e-3)
    assert max(heights) <= 16
    assert sum(heights) == 2 * 103  # once to reduce, once to add the change


def test_it_is_off_where_the_model_knows_the_nuclei(tiny: Callable, scene: Callable, restore: Callable) -> None:
    image, model = scene(70, 70), tiny(nucleus_diameter_px=(8, 150))
    inside = restore(ImageView.of(image, nucleus_diameter_px=100.0), use=model)
    assert inside.record["reduced_by"] == 1
    np.testing.assert_array_equal(inside.array, restore(image, use=model).array)
