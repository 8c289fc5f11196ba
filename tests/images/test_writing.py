from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mpt_deblur.errors import AxesError, FileError
from napari_mpt_deblur.images import ImageView, create_image, read_image, write_image
from napari_mpt_deblur.images.atomic import new_folder

CASES = [
    ("YX", (20, 24), "uint8"),
    ("ZYX", (3, 20, 24), "uint16"),
    ("TCZYX", (2, 2, 3, 20, 24), "float32"),
    ("TZYX", (1, 1, 20, 24), "uint16"),
    ("YXS", (20, 24, 3), "uint8"),
    ("ZYXS", (3, 20, 24, 4), "uint16"),
    ("ZYX", (3, 20, 24), "float16"),
    ("TYX", (3, 20, 24), "int64"),
    ("YX", (1, 1), ">u2"),
]


def pixels(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(("axes", "shape", "dtype"), CASES)
def test_rows_in_any_order_make_the_same_file(tmp_path: Path, axes: str, shape: tuple[int, ...], dtype: str) -> None:
    array = pixels(shape, dtype)
    view = ImageView.of(array, axes)
    bands = [(plane, first) for plane in view.planes for first in range(0, view.height, 7)]
    with create_image(tmp_path / "rows.tif", shape, dtype, axes, 0.5, 2.0) as sink:
        assert (sink.shape, sink.dtype) == (shape, np.dtype(dtype).newbyteorder("="))
        for number in np.random.default_rng(1).permutation(len(bands)):
            plane, first = bands[number]
            key = (*plane.index, slice(first, first + 7), slice(None))
            key = key if plane.sample is None else (*key, plane.sample)
            sink[key] = array[key]
        if shape[-1] == 4:
            for index in np.ndindex(shape[:-3]):
                sink[(*index, slice(None), slice(None), 3)] = array[(*index, slice(None), slice(None), 3)]
    write_image(tmp_path / "whole.tif", array, axes, 0.5, 2.0)
    with tifffile.TiffFile(tmp_path / "rows.tif") as rows, tifffile.TiffFile(tmp_path / "whole.tif") as whole:
        np.testing.assert_array_equal(rows.asarray(), whole.asarray())
        np.testing.assert_array_equal(rows.asarray().reshape(shape), array)
        assert rows.series[0].axes == whole.series[0].axes
    assert read_image(tmp_path / "rows.tif").metadata == read_image(tmp_path / "whole.tif").metadata


@pytest.mark.parametrize("dtype", ["uint16", "float16"])
def test_a_description_is_put_in_at_the_end(tmp_path: Path, dtype: str) -> None:
    text = json.dumps({"model": "<nuclei & more>", "size": "µm" * 3000})
    array = pixels((3, 20, 24), dtype)
    with create_image(tmp_path / "a.tif", array.shape, dtype, "ZYX", 0.065) as sink:
        for z in range(3):
            sink[z, :, :] = array[z]
        sink.description = text
    view = read_image(tmp_path / "a.tif")
    assert (view.axes.text, view.pixel_size_um) == ("ZYX", 0.065)
    np.testing.assert_array_equal(view.data, array)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        if dtype == "uint16":
            assert tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Description"] == text
        else:
            assert tif.shaped_metadata[0]["Description"] == text


def test_nothing_appears_before_the_end_or_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text("old")

    def fail() -> None:
        with create_image(path, (3, 20, 24), "uint16", "ZYX", overwrite=True) as sink:
            sink[0, :, :] = 7
            assert path.read_text() == "old"
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_disk_too_small_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        assert length > 3 * 20 * 24 * 2
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(FileError, match="disk is full"), create_image(tmp_path / "a.tif", (3, 20, 24), "u2", "ZYX"):
        pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_reserve_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    with create_image(tmp_path / "a.tif", (20, 24), "u2", "YX") as sink:
        sink[:, :] = 5
    assert read_image(tmp_path / "a.tif").data.min() == 5


@pytest.mark.parametrize("key", [(0, slice(0, 4), slice(0, 5)), (0, slice(0, 8, 2), slice(None))])
def test_parts_of_rows_are_refused(tmp_path: Path, key: tuple) -> None:
    with create_image(tmp_path / "a.tif", (3, 20, 24), "u2", "ZYX") as sink, pytest.raises(IndexError, match="rows"):
        sink[key] = 1


def test_axes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AxesError), create_image(tmp_path / "a.tif", (3, 20, 24), "u2", "YX"):
        pytest.fail("the work began")


def test_new_folders_go_again_when_they_stay_empty(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        with new_folder(folder):
            assert folder.is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "a" / "b")
    assert (tmp_path / "a").is_dir()
    with new_folder(tmp_path / "c"):
        pass
    assert (tmp_path / "c").is_dir()
