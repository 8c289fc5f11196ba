"""Finding and reading image files: TIFF of all kinds, PNG, BMP and JPEG."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import FileError
from napari_mpt_deblur.images.tiff import read_tiff, reading
from napari_mpt_deblur.images.view import ImageView

TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*TIFF_SUFFIXES, ".lsm", ".stk", ".png", ".bmp", ".jpg", ".jpeg")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PICTURE_FORMATS = ("PNG", "BMP", "JPEG")


def read_image(path: str | Path, axes: str | None = None, *, pixel_size_um: float | None = None) -> ImageView:
    """Open an image file; pixels of large TIFF files are read when they are asked for.

    Parameters
    ----------
    path : str or Path
        TIFF, OME-TIFF, ImageJ TIFF, BigTIFF, PNG, BMP or JPEG, told by content. Of files with several images or
        resolutions the first, full one is read, and `ImageView.notes` says so.
    axes : str, optional
        Instead of the file's, see `resolve_axes`. Dimensions of length 1 do not count.
    pixel_size_um : float, optional
        Instead of the file's.

    Returns
    -------
    ImageView
        Its metadata holds the file's physical sizes in OME's terms.

    Raises
    ------
    FileError
        If the file cannot be read or is no image.
    AxesError, ImageError
        If it holds something that cannot be restored, see `ImageView.of`.
    """
    path = Path(path)
    start = _first_bytes(path)
    if start[:4] not in _TIFF_STARTS:
        pixels, notes = _read_picture(path)
        rgb = pixels.ndim == 3
        return ImageView.of(pixels, axes, rgb=rgb, pixel_size_um=pixel_size_um, notes=notes)
    image = read_tiff(path, axes)
    metadata = dict(image.metadata)
    if pixel_size_um is not None:
        metadata["PhysicalSizeX"] = metadata["PhysicalSizeY"] = pixel_size_um
    return ImageView.of(
        image.data,
        axes or image.axes,
        pixel_size_um=metadata.get("PhysicalSizeX"),
        metadata=metadata,
        notes=image.notes,
    )


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """The files that a list of files, folders and patterns means, each once.

    Parameters
    ----------
    inputs : iterable of str or Path
        A file counts whatever its name; of a folder (not of those within it) files with an image's suffix count, in
        order of name; so do those that a pattern such as ``data/*.tif`` matches.

    Returns
    -------
    list of Path
        A file that is named but does not exist is in it, for `read_image` to report.

    Raises
    ------
    FileError
        If a folder or a pattern holds no image.
    """
    found: dict[Path, Path] = {}
    for item in inputs:
        for file in _matches(item):
            found.setdefault(_identity(file), file)
    return list(found.values())


def is_pattern(item: str | Path) -> bool:
    """Whether an input is a pattern such as ``data/*.tif``, and not a file or folder of that very name."""
    return glob.has_magic(str(item)) and not os.path.exists(item)


def _matches(item: str | Path) -> list[Path]:
    path = Path(item)
    # os.path answers False for names that no file can have, where Path raises
    if os.path.isdir(path):
        try:
            files = [entry for entry in sorted(path.iterdir()) if _is_image_name(entry)]
        except OSError as error:
            raise FileError(f"Cannot read the folder {path}: {error.strerror or error}.") from error
        if not files:
            raise FileError(f"The folder {path} holds no image ({', '.join(SUFFIXES)}).")
        return files
    if not is_pattern(item):
        return [path]
    files = [Path(name) for name in sorted(glob.glob(str(item), recursive=True)) if not os.path.isdir(name)]
    if not files:
        raise FileError(f"No file matches {item}.")
    return files


def _identity(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError):
        return path


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _first_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise FileError(f"Cannot read {path}: it is a folder, not an image file.")
        if path.exists() and not path.is_file():
            raise FileError(f"Cannot read {path}: it is not a regular file.")
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise FileError(f"Cannot read {path}: no such file; check the name.") from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:  # a null character
        raise FileError(f"{str(path)!r} is not a file name.") from error
    if not start:
        raise FileError(f"Cannot read {path}: the file is empty.")
    return start


def _read_picture(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """A PNG, BMP or JPEG as (Y, X) or (Y, X, S), and what to say about it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with reading(path), warnings.catch_warnings():
            # Pillow warns at 89 million pixels, which a stitched field may have, and refuses twice as many
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_PICTURE_FORMATS) as picture:
                return _pixels(picture, path)
    except FileError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise FileError(f"Cannot read {path}: it is not a TIFF, PNG, BMP or JPEG image.") from error.__cause__
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise FileError(f"Cannot read {path}: the picture is too large; save it as TIFF.") from error.__cause__
        raise


def _pixels(picture: Any, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    if picture.format == "PNG" and _is_deep_colour(path):
        import imagecodecs  # Pillow would cut 16-bit colours to 8

        return _without_grey_alpha(imagecodecs.png_decode(path.read_bytes()))
    if picture.mode in ("LA", "La"):
        return _without_grey_alpha(np.asarray(picture.convert("LA")))
    if picture.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV", "P", "PA"):
        transparent = picture.mode == "PA" or "transparency" in picture.info
        picture = picture.convert("L" if picture.mode == "1" else "RGBA" if transparent else "RGB")
    pixels = np.asarray(picture)
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() < 2**16:
        pixels = pixels.astype(np.uint16)  # Pillow's "I" mode of 16-bit PNG
    return pixels, ()


def _is_deep_colour(path: Path) -> bool:
    """Whether a PNG has 16 bits and more than one sample a pixel (bytes 24 and 25 of the file)."""
    with path.open("rb") as file:
        header = file.read(26)
    return len(header) == 26 and header[24] == 16 and header[25] in (2, 4, 6)


def _without_grey_alpha(pixels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if pixels.ndim == 3 and pixels.shape[-1] == 2:
        return np.ascontiguousarray(pixels[..., 0]), ("left the transparency out",)
    return pixels, ()
