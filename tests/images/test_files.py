from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mpt_deblur.errors import AxesError, FileError, ImageError
from napari_mpt_deblur.images import ImageView, find_images, read_image, write_image

SHAPES = {"YX": (20, 24), "ZYX": (5, 20, 24), "TYX": (5, 20, 24), "CYX": (2, 20, 24), "TZYX": (2, 5, 20, 24),
          "CZYX": (2, 5, 20, 24), "TCZYX": (2, 2, 5, 20, 24), "ZCYX": (5, 2, 20, 24), "YXS": (20, 24, 3),
          "ZYXS": (5, 20, 24, 4)}  # fmt: skip


def whole(view: ImageView) -> np.ndarray:
    """All colours of all planes, in the order of `planes`."""
    return np.stack([view.read_plane(plane) for plane in view.planes])


def numbered(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 251).astype(dtype)


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_is_written_is_read(tmp_path: Path, axes: str, dtype: str) -> None:
    array = numbered(SHAPES[axes], dtype)
    path = write_image(tmp_path / "a.tif", array, axes, 0.65, 2.0)
    view = read_image(path)
    assert view.axes.text == axes
    assert view.dtype == dtype
    assert view.pixel_size_um == 0.65
    np.testing.assert_array_equal(view.data, array)
    np.testing.assert_array_equal(tifffile.imread(path), array)
    if "Z" in axes:
        assert view.metadata["PhysicalSizeZ"] == 2.0
    assert tifffile.TiffFile(path).is_ome


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint64", ">u2", ">f4", "float64", "int8", "uint32"])
def test_every_type_keeps_values_axes_and_sizes(tmp_path: Path, dtype: str) -> None:
    array = numbered((5, 20, 24), dtype)
    view = read_image(write_image(tmp_path / "a.tif", array, "TYX", 0.065))
    assert view.axes.text == "TYX"
    assert view.dtype == np.dtype(dtype).newbyteorder("=")
    assert view.pixel_size_um == 0.065
    np.testing.assert_array_equal(view.data, array)


def test_metadata_of_one_file_goes_into_the_next(tmp_path: Path) -> None:
    first = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX", "PhysicalSizeX": 65.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.07,
                "TimeIncrement": 3.0, "Channel": {"Name": ["DAPI", "GFP"]}}  # fmt: skip
    tifffile.imwrite(first, numbered((2, 20, 24)), ome=True, metadata=metadata)
    view = read_image(first)
    second = write_image(tmp_path / "b.tif", view.data, view.axes, view.pixel_size_um, metadata=view.metadata)
    assert read_image(second).metadata == view.metadata
    assert view.metadata == {
        "PhysicalSizeX": 0.065,
        "PhysicalSizeY": 0.07,
        "TimeIncrement": 3.0,
        "Channel": {"Name": ["DAPI", "GFP"]},
    }


def test_a_pixel_size_that_is_told_replaces_the_files(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", numbered((20, 24)), "YX", 0.65)
    view = read_image(path, pixel_size_um=0.2)
    again = read_image(write_image(tmp_path / "b.tif", view.data, "YX", view.pixel_size_um, metadata=view.metadata))
    assert again.pixel_size_um == 0.2
    assert again.metadata["PhysicalSizeY"] == 0.2


def test_imagej_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZCYX", "unit": "micron", "spacing": 0.5, "finterval": 2.0}
    tifffile.imwrite(path, numbered((5, 2, 20, 24)), imagej=True, resolution=(1 / 0.3, 1 / 0.3), metadata=metadata)
    view = read_image(path)
    assert view.axes.text == "ZCYX"
    assert view.pixel_size_um == pytest.approx(0.3, rel=1e-5)
    assert view.metadata["PhysicalSizeZ"] == 0.5


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [("nm", 65.0, 0.065), ("mm", 0.001, 1.0), ("pixel", 1.0, None), ("µm", 0.0, None), ("Å", 5000.0, 0.5)],
)
def test_ome_units(tmp_path: Path, unit: str, value: float, expected: float | None) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": value, "PhysicalSizeXUnit": unit}
    tifffile.imwrite(path, numbered((20, 24)), ome=True, metadata=metadata)
    assert read_image(path).pixel_size_um == expected


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [("ms", 500, 0.5), ("µs", 20, 2e-5), ("min", 2, 120.0), ("d", 1, 86400.0), ("Gs", 1, None)],
)
@pytest.mark.parametrize("ome", [True, False])
def test_time_units(tmp_path: Path, unit: str, value: float, expected: float | None, ome: bool) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "TYX", "PhysicalSizeX": 0.5, "TimeIncrement": value, "TimeIncrementUnit": unit}
    tifffile.imwrite(path, numbered((2, 20, 24)), ome=ome, metadata=metadata, photometric="minisblack")
    assert read_image(path).metadata == {"PhysicalSizeX": 0.5} | ({"TimeIncrement": expected} if expected else {})


def test_sizes_of_a_plain_tiff_have_units_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    sizes = {f"PhysicalSize{axis}": 65 for axis in "XYZ"} | {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    tifffile.imwrite(path, numbered((5, 20, 24)), metadata={"axes": "ZYX", **sizes})
    view = read_image(path)
    assert view.pixel_size_um == 0.065
    assert view.metadata == {"PhysicalSizeX": 0.065, "PhysicalSizeY": 0.065, "PhysicalSizeZ": 65.0}


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"),
    [(72, "INCH", None), (300, "INCH", None), (20000, "CENTIMETER", 0.5), (1, 1, None)],
)
def test_a_printers_resolution_is_no_pixel_size(
    tmp_path: Path, per_unit: float, unit: str, expected: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbered((20, 24)), resolution=(per_unit, per_unit), resolutionunit=unit)
    assert read_image(path).pixel_size_um == expected


@pytest.mark.parametrize(
    ("mode", "dtype", "axes"),
    [("L", "uint8", "YX"), ("I;16", "uint16", "YX"), ("RGB", "uint8", "YXS"), ("RGBA", "uint8", "YXS"),
     ("1", "uint8", "YX"), ("P", "uint8", "YXS")],
)  # fmt: skip
def test_png(tmp_path: Path, mode: str, dtype: str, axes: str) -> None:
    path = tmp_path / "a.png"
    channels = {"RGB": 3, "RGBA": 4}.get(mode)
    array = numbered((20, 24, channels) if channels else (20, 24), dtype)
    picture = Image.fromarray(array) if mode not in "1P" else Image.fromarray(array).convert(mode)
    picture.save(path)
    view = read_image(path)
    assert (view.dtype, view.axes.text) == (np.dtype(dtype), axes)
    if mode not in "1P":
        np.testing.assert_array_equal(view.data, array)


def test_deep_colour_png_is_not_cut_to_eight_bits(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    path, array = tmp_path / "a.png", numbered((20, 24, 3)) * 200
    path.write_bytes(imagecodecs.png_encode(array))
    view = read_image(path)
    assert view.axes.text == "YXS"
    np.testing.assert_array_equal(view.data, array)


def test_the_transparency_of_a_grey_png_is_left_out_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(numbered((20, 24, 2), "uint8"), "LA").save(path)
    view = read_image(path)
    assert view.axes.text == "YX"
    assert "transparency" in view.notes[0]


@pytest.mark.parametrize("suffix", [".bmp", ".jpg"])
def test_other_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.full((20, 24), 77, np.uint8)).save(path)
    assert read_image(path).data.mean() == pytest.approx(77, abs=1)


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(numbered((20, 24), "uint8")).save(path, format="PNG")
    assert read_image(path).shape == (20, 24)


def test_a_picture_with_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(numbered((40, 40), "uint8")).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # refused beyond twice as many; 1600 only warn
    assert read_image(path).shape == (40, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(FileError, match="too large"):
        read_image(path)


def test_the_files_axes_can_be_overridden(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", numbered((5, 20, 24)), "ZYX")
    assert read_image(path, "tyx").axes.text == "TYX"
    with pytest.raises(AxesError, match="4 dimensions"):
        read_image(path, "TZYX")


def test_a_stack_of_three_keeps_its_shape(tmp_path: Path) -> None:
    # tifffile writes it as RGB in separate planes unless told otherwise
    path, array = tmp_path / "a.tif", numbered((3, 20, 24))
    tifffile.imwrite(path, array, photometric="rgb", planarconfig="separate")
    told = read_image(path, "ZYX")
    assert told.axes.text == "ZYX"
    np.testing.assert_array_equal(told.data, array)
    guessed = read_image(path)
    assert guessed.axes.text == "CYX"
    assert "axis S" in guessed.notes[0]


def test_axes_that_nobody_named_get_free_letters(tmp_path: Path) -> None:
    path, array = tmp_path / "a.tif", numbered((2, 5, 20, 24))
    tifffile.imwrite(path, array, metadata={"axes": "RQYX"}, photometric="minisblack")
    view = read_image(path)
    assert view.axes.text == "ZTYX"
    assert len(view.notes) == 2
    np.testing.assert_array_equal(view.data, array)


def test_six_dimensions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbered((2, 2, 2, 2, 8, 8)), metadata={"axes": "RTCZYX"}, photometric="minisblack")
    with pytest.raises(AxesError, match="split the file"):
        read_image(path)


def test_dimensions_of_one_are_left_out_unless_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbered((1, 5, 1, 20, 24)), photometric="minisblack")
    assert read_image(path).shape == (5, 20, 24)
    assert read_image(path, "TYX").axes.text == "TYX"
    assert read_image(path, "TCZYX").shape == (1, 5, 1, 20, 24)


def test_the_first_of_several_images_is_read_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(numbered((20, 24)))
        tif.write(numbered((30, 34)))
    view = read_image(path)
    assert view.shape == (20, 24)
    assert view.notes == ("read the first of 2 images in the file",)


def test_the_full_resolution_of_a_pyramid_is_read_and_said_so(tmp_path: Path) -> None:
    path, array = tmp_path / "a.ome.tif", numbered((3, 64, 64))
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(array, subifds=1, tile=(32, 32), metadata={"axes": "ZYX"})
        tif.write(array[:, ::2, ::2], subfiletype=1, tile=(32, 32))
    view = read_image(path)
    np.testing.assert_array_equal(view.data, array)
    assert view.notes == ("read the full resolution of 2 levels",)


@pytest.mark.parametrize("name", ["big.tif", "ome", "noend."])
def test_big_tiff_and_odd_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tifffile.imwrite(path, numbered((20, 24)), bigtiff=True, ome=False)
    assert read_image(path).shape == (20, 24)


def test_images_are_found_in_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.tif", "a.png", "c.TIFF", "notes.txt", ".hidden.tif"):
        (tmp_path / name).touch()
    (tmp_path / "inner.tif").mkdir()
    names = [path.name for path in find_images([tmp_path])]
    assert names == ["a.png", "b.tif", "c.TIFF"]
    assert [path.name for path in find_images([tmp_path / "*.tif", tmp_path / "b.tif", tmp_path])] == [
        "b.tif",
        "a.png",
        "c.TIFF",
    ]
    assert find_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a[1].tif"
    path.touch()
    assert find_images([path]) == [path]


def test_nothing_found_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no image"):
        find_images([tmp_path])
    with pytest.raises(FileError, match="No file matches"):
        find_images([tmp_path / "*.tif"])


def test_binary_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((20, 24), bool))
    with pytest.raises(ImageError, match="mask"):
        read_image(path)
