"""Which images a run trains on, and which it is validated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.training.sharp_images import hold_out, list_images, load_sharp_images


@pytest.mark.parametrize(("count", "held"), [(1, 1), (2, 1), (9, 1), (10, 1), (25, 2)])
def test_every_tenth_is_held_out_and_no_image_is_on_both_sides(count: int, held: int) -> None:
    paths = [Path(f"{number:03d}.tif") for number in range(count)]
    train, validation = hold_out(paths[::-1])
    assert len(validation) == held
    assert sorted(train + validation) == paths
    assert not set(train) & set(validation)


def test_a_list_names_files_relative_to_itself(tmp_path: Path) -> None:
    folder = tmp_path / "below"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(folder / name, np.eye(32, dtype=np.uint8))
    (folder / "list.txt").write_text("b.tif\n\n  a.tif  \n")
    found = list_images([folder / "list.txt"])
    assert sorted(path.name for path in found) == ["a.tif", "b.tif"]
    assert all(path.is_file() for path in found)
    assert list_images([]) == []


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="Cannot read the list"):
        list_images([tmp_path / "list.txt"])


def test_every_plane_is_an_image_of_its_own_brought_to_one_range(tmp_path: Path) -> None:
    y, x = np.mgrid[:80, :80]
    disc = (np.hypot(y - 40, x - 40) < 15).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([100 + 900 * disc, 7 + 30 * disc]), metadata={"axes": "ZYX"})
    images = load_sharp_images([tmp_path / "stack.tif"])
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
        load_sharp_images([tmp_path / "bad.tif"])


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("text")
    with pytest.raises(DeblurError, match=r"bad\.tif"):
        load_sharp_images([tmp_path / "bad.tif"])
