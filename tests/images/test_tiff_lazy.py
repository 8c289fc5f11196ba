"""Large files are read a plane at a time; damaged ones are refused in one line, wherever they break off."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mpt_deblur.errors import DeblurError, FileError
from napari_mpt_deblur.images import read_image, tiff
from napari_mpt_deblur.images.tiff import TiffPlanes

STACK = np.random.default_rng(0).integers(0, 5000, (5, 3, 32, 40)).astype(np.uint16)
KINDS: dict[str, dict] = {
    "ome": {"ome": True, "metadata": {"axes": "ZCYX"}},
    "ome-zlib": {"ome": True, "metadata": {"axes": "ZCYX"}, "compression": "zlib"},
    "ome-lzw": {"ome": True, "metadata": {"axes": "ZCYX"}, "compression": "lzw", "predictor": True},
    "imagej": {"imagej": True, "metadata": {"axes": "ZCYX"}},
    "tiles": {"tile": (16, 16), "compression": "zlib", "photometric": "minisblack"},
    "no metadata": {"metadata": None, "photometric": "minisblack"},
    "separate": {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"},
    "big-endian": {"byteorder": ">", "photometric": "minisblack"},
}


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small an image is, it counts as large."""
    monkeypatch.setattr(tiff, "_IN_MEMORY_BYTES", 0)


def write(path: Path, kind: str) -> Path:
    tifffile.imwrite(path, STACK, **KINDS[kind])
    return path


def attempt(path: Path) -> tuple[list[str], np.ndarray | None]:
    """What reading a file comes to: a refusal, or pixels."""
    try:
        view = read_image(path)
        return [], np.stack([view.read_plane(plane) for plane in view.planes[:20]])
    except DeblurError as error:
        return [str(error)], None


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("kind", KINDS)
def test_lazy_reading_gives_the_same_pixels(tmp_path: Path, kind: str) -> None:
    view = read_image(write(tmp_path / "a.tif", kind))
    assert isinstance(view.data, (np.memmap, TiffPlanes))
    pixels = np.stack([view.read_plane(plane) for plane in view.planes])
    np.testing.assert_array_equal(pixels, STACK.reshape(-1, 32, 40))


@pytest.mark.usefixtures("lazy")
def test_one_page_is_decoded_for_one_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    for page in (tifffile.TiffPage, tifffile.TiffFrame):
        original = page.asarray

        def counted(self, *args, original=original, **kwargs):
            decoded.append(self.index)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(page, "asarray", counted)
    view = read_image(write(tmp_path / "a.tif", "ome-zlib"))
    assert decoded == []
    view.read_plane(view.planes[7])
    assert set(decoded) == {7}


@pytest.mark.usefixtures("lazy")
def test_colours_of_a_page_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    rgb = np.random.default_rng(1).integers(0, 255, (2, 16, 20, 3)).astype(np.uint8)
    tifffile.imwrite(path, rgb, compression="zlib", photometric="rgb")
    view = read_image(path)
    reads = []
    original = TiffPlanes._read
    monkeypatch.setattr(TiffPlanes, "_read", lambda self, number: reads.append(number) or original(self, number))
    pixels = np.stack([view.read_plane(plane) for plane in view.planes])
    assert reads == [0, 1]
    np.testing.assert_array_equal(pixels, np.moveaxis(rgb, -1, 1).reshape(6, 16, 20))


@pytest.mark.usefixtures("lazy")
def test_axes_of_one_and_overridden_axes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[:, :1], compression="zlib", photometric="minisblack")
    assert read_image(path).shape == (5, 32, 40)
    told = read_image(path, "TZYX")
    assert told.shape == (5, 1, 32, 40)
    np.testing.assert_array_equal(told.read_plane(told.planes[3]), STACK[3, 0])


@pytest.mark.usefixtures("lazy")
def test_the_whole_array_is_not_given_out(tmp_path: Path) -> None:
    view = read_image(write(tmp_path / "a.tif", "ome-zlib"))
    with pytest.raises(IndexError, match="one page at a time"):
        view.data[:]


@pytest.mark.usefixtures("lazy")
def test_the_file_is_closed_with_the_array(tmp_path: Path) -> None:
    view = read_image(write(tmp_path / "a.tif", "ome-zlib"))
    handle = view.data._pages[0].parent.filehandle
    assert not handle.closed
    del view
    gc.collect()
    assert handle.closed


@pytest.mark.parametrize("limit", [0, 2**26], ids=["lazy", "whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_never_gives_wrong_pixels(
    tmp_path: Path, kind: str, limit: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiff, "_IN_MEMORY_BYTES", limit)
    content = write(tmp_path / "a.tif", kind).read_bytes()
    path, refusals = tmp_path / "cut.tif", []
    for length in [5, 8, 30, 150, *(len(content) * k // 16 for k in range(1, 16)), len(content) - 9]:
        path.write_bytes(content[:length])
        refusal, pixels = attempt(path)
        refusals += refusal
        if pixels is not None:  # nothing but a trailing description was lost
            np.testing.assert_array_equal(pixels, STACK.reshape(-1, 32, 40))
    assert len(refusals) >= 19
    assert not [text for text in refusals if "\n" in text or "cut.tif" not in text]
    assert capfd.readouterr().err == ""


def test_random_damage_is_an_error_of_ours_or_none(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.tif", "ome-zlib").read_bytes())
    rng, path = np.random.default_rng(2), tmp_path / "damaged.tif"
    refusals = []
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, 400 if rng.random() < 0.5 else len(content), rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        refusals += attempt(path)[0]
    assert len(refusals) > 30
    assert not [text for text in refusals if "\n" in text]


def test_a_page_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["ImageWidth"].overwrite(1_000_000)
        tif.pages.first.tags["ImageLength"].overwrite(1_000_000)
    with pytest.raises(FileError, match="damaged"):
        read_image(path)


def test_harmless_complaints_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    # a description that is no ASCII: tifffile warns and goes on
    extra = [(270, 2, 0, b"\xff\xfe\xfa caf\xe9", True)]
    tifffile.imwrite(path, STACK[0, 0], metadata=None, extratags=extra)
    assert read_image(path).shape == (32, 40)


@pytest.fixture(params=[None, "zlib"], ids=["plain", "zlib"])
def file_set(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An OME-TIFF of three planes, one a file."""
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(3)]
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{i}" PlaneCount="1"><UUID FileName="{i}.ome.tif">{uuid}</UUID></TiffData>'
        for i, uuid in enumerate(uuids)
    )
    for i, uuid in enumerate(uuids):
        description = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="40" SizeY="32" '
            'SizeC="1" SizeZ="3" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            f"{planes}</Pixels></Image></OME>"
        )
        options = {"description": description, "metadata": None, "compression": request.param}
        tifffile.imwrite(tmp_path / f"{i}.ome.tif", STACK[i, 0], **options)
    return tmp_path


@pytest.mark.parametrize("limit", [0, 2**26], ids=["lazy", "whole"])
def test_a_set_of_files_is_one_image(
    file_set: Path, limit: int, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(tiff, "_IN_MEMORY_BYTES", limit)
    view = read_image(file_set / "1.ome.tif")
    pixels = np.stack([view.read_plane(plane) for plane in view.planes])
    np.testing.assert_array_equal(pixels, STACK[:3, 0])
    assert not recwarn.list


def test_a_set_that_is_not_whole_is_refused(file_set: Path) -> None:
    (file_set / "2.ome.tif").unlink()
    with pytest.raises(FileError, match="other files of its set"):
        read_image(file_set / "1.ome.tif")


def test_a_palette_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, STACK[0, 0].astype(np.uint8), photometric="palette", colormap=colours)
    assert "palette" in read_image(path).notes[0]


def test_white_that_is_zero_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, 0], photometric="miniswhite")
    view = read_image(path)
    assert view.notes == ("0 is white in the file, and black in the result",)
    np.testing.assert_array_equal(view.data, STACK[0, 0])
