"""Which files a run trains on, which are held out, and which belong together."""

import numpy as np
import pytest
import tifffile

from napari_mpt_deblur.errors import FileError, TrainingError
from napari_mpt_deblur.training.folders import hold_out, list_images, match_by_name
from napari_mpt_deblur.training.request import ImageSource


def _write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        tifffile.imwrite(folder / name, np.eye(32, dtype=np.uint8))
    return folder


@pytest.mark.parametrize(("count", "held"), [(1, 1), (2, 1), (9, 1), (10, 1), (25, 2)])
def test_every_tenth_is_held_out_and_no_image_is_on_both_sides(count, held):
    sources = [ImageSource.of_file(f"{number:03d}.tif") for number in range(count)]
    train, validation = hold_out(sources[::-1])
    assert len(validation) == held
    assert {id(image) for image in train + validation} == {id(image) for image in sources}
    assert len(train + validation) == count


def test_a_list_names_files_relative_to_itself(tmp_path):
    folder = _write(tmp_path / "below", "a.tif", "b.tif")
    (folder / "list.txt").write_text("b.tif\n\n  a.tif  \n")
    found = list_images([folder / "list.txt"])
    assert sorted(path.name for path in found) == ["a.tif", "b.tif"]
    assert all(path.is_file() for path in found)
    assert list_images([]) == []


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="Cannot read the list"):
        list_images([tmp_path / "list.txt"])


def test_files_of_one_name_are_a_pair_whatever_their_kind(tmp_path):
    blurred = _write(tmp_path / "blurred", "b.tif", "a.tiff")
    sharp = _write(tmp_path / "sharp", "a.tif", "b.tif")
    pairs = match_by_name(blurred, sharp, "YX")
    assert [image.name for image in pairs.blurred] == ["a.tiff", "b.tif"]
    assert [image.name for image in pairs.sharp] == ["a.tif", "b.tif"]
    assert {image.axes for image in (*pairs.blurred, *pairs.sharp)} == {"YX"}
    assert [image.path for image in match_by_name(blurred / "b.tif", sharp / "a.tif").sharp] == [sharp / "a.tif"]


def test_folders_that_do_not_match_are_refused_by_name(tmp_path):
    blurred = _write(tmp_path / "blurred", "a.tif", "b.tif", "c.tif")
    sharp = _write(tmp_path / "sharp", "a.tif")
    with pytest.raises(TrainingError, match=r"b\.tif has no partner in .*sharp \(nor have 1 more\)"):
        match_by_name(blurred, sharp)
    with pytest.raises(TrainingError, match=r"b\.tif has no partner in .*sharp \(nor have 1 more\)"):
        match_by_name(sharp, blurred)
    _write(sharp, "b.tif", "b.tiff", "c.tif")
    with pytest.raises(TrainingError, match="have one name"):
        match_by_name(blurred, sharp)


def test_folders_of_one_image_each_are_matched_by_name_too(tmp_path):
    blurred, sharp = _write(tmp_path / "blurred", "a.tif"), _write(tmp_path / "sharp", "b.tif")
    for sides in ((blurred, sharp), (f"{blurred}/*.tif", f"{sharp}/*.tif"), (blurred, sharp / "b.tif")):
        with pytest.raises(TrainingError, match=r"a\.tif has no partner in"):
            match_by_name(*sides)
    _write(sharp, "a.tif")
    (sharp / "b.tif").unlink()
    assert len(match_by_name(blurred, sharp).sharp) == 1


def test_an_image_is_not_its_own_partner(tmp_path):
    folder = _write(tmp_path / "blurred", "a.tif", "b.tif")
    for image in (folder, folder / "a.tif"):
        with pytest.raises(TrainingError, match=r"a\.tif is both the blurred and the sharp image"):
            match_by_name(image, image)


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    blurred, empty = _write(tmp_path / "blurred", "a.tif"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileError, match="empty holds no image"):
        match_by_name(blurred, empty)
    with pytest.raises(FileError, match="no such file"):
        match_by_name(blurred, tmp_path / "missing.tif")
