"""Sharp images from files: every plane is one, and what holds nothing is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.training.request import ImageSource
from napari_mpt_deblur.training.sharp_images import hold_out_planes, load_sharp_images
from napari_mpt_deblur.training.simulation import SharpImage


def test_every_plane_is_an_image_of_its_own_brought_to_one_range(tmp_path: Path) -> None:
    y, x = np.mgrid[:80, :80]
    disc = (np.hypot(y - 40, x - 40) < 15).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([100 + 900 * disc, 7 + 30 * disc]), metadata={"axes": "ZYX"})
    images = load_sharp_images([ImageSource.of_file(tmp_path / "stack.tif")])
    assert len(images) == 2
    for image in images:
        assert image.pixels.dtype == np.float32
        np.testing.assert_allclose(np.percentile(image.pixels, (1, 99.8)), (0, 1), atol=1e-6)
        assert image.nucleus_px == pytest.approx(30, rel=0.1)


@pytest.mark.parametrize(
    "image", [np.zeros((64, 64), np.uint8), np.eye(8, dtype=np.uint8), np.full((64, 64), np.nan, np.float32)]
)
def test_images_without_content_are_refused_by_name(tmp_path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "bad.tif", image)
    with pytest.raises(TrainingError, match=r"bad\.tif.*leave it out"):
        load_sharp_images([ImageSource.of_file(tmp_path / "bad.tif")])


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("text")
    with pytest.raises(DeblurError, match=r"bad\.tif"):
        load_sharp_images([ImageSource.of_file(tmp_path / "bad.tif")])


def test_the_colours_of_an_image_are_one_sharp_image_where_they_belong_together(tmp_path: Path) -> None:
    y, x = np.mgrid[:80, :80]
    disc = 200 * (np.hypot(y - 40, x - 40) < 15)
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([disc, disc // 2, disc], -1).astype(np.uint8), photometric="rgb")
    sources = [ImageSource.of_file(tmp_path / "rgb.tif")]
    (together,) = load_sharp_images(sources, colours_together=True)
    assert together.pixels.shape == (3, 80, 80)
    np.testing.assert_allclose(np.percentile(together.pixels, (1, 99.8), axis=(1, 2)), [[0] * 3, [1] * 3], atol=1e-6)
    assert len(load_sharp_images(sources)) == 3


@pytest.mark.parametrize("shape", [(100, 90), (90, 100), (3, 100, 90)])
def test_of_a_single_plane_a_strip_is_held_out(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).random(shape, np.float32)
    (train,), (held,) = hold_out_planes([SharpImage(pixels, 9.0)])
    axis = -1 if shape[-1] == 100 else -2
    assert (train.pixels.shape[axis], held.pixels.shape[axis]) == (80, 20)
    np.testing.assert_array_equal(np.concatenate([train.pixels, held.pixels], axis), pixels)
    assert train.nucleus_px == held.nucleus_px == 9.0


def test_of_the_planes_of_a_single_image_every_tenth_is_held_out() -> None:
    planes = [SharpImage(np.full((20, 20), number, np.float32), 9.0) for number in range(12)]
    train, held = hold_out_planes(planes)
    assert [image.pixels[0, 0] for image in held] == [9]
    assert len(train) == 11
    assert len(hold_out_planes(planes[:2])[1]) == 1
    with pytest.raises(TrainingError, match="at least two sharp images, or one of 80 pixels"):
        hold_out_planes(planes[:1])
