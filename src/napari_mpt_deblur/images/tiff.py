"""Reading TIFF files lazily: what tifffile finds in them, as arrays with the axes this package knows."""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_mpt_deblur.errors import AxesError, FileError
from napari_mpt_deblur.images.axes import LEADING
from napari_mpt_deblur.images.calibration import read_calibration

_IN_MEMORY_BYTES = 2**26  # smaller images are read at once and the file is closed
_INFLATION = 5000  # no camera's image is compressed by more
_SUSPECT_BYTES = 2**30  # smaller images may be compressed as much as they like
_PLANES_MISSING = re.compile(r"data are zeroed|failed to read \d+ files")
# of what tifffile logs while it goes on with what is left: a chain of pages or tags that breaks off, missing planes
_DAMAGE = re.compile(r"TiffPages|value offset|tag list|failed to reshape|corrupted|is missing|incompletely")


@dataclass(frozen=True, eq=False)
class TiffImage:
    """The first image of a TIFF file.

    Attributes
    ----------
    data : array
        numpy, memory-mapped or `TiffPlanes`.
    axes : str
        One letter a dimension, T, C, Z, Y, X or S.
    metadata : mapping
        Physical sizes and names in OME's terms.
    notes : tuple of str
    """

    data: Any
    axes: str
    metadata: Mapping[str, Any]
    notes: tuple[str, ...]


class TiffPlanes:
    """A TIFF series that is read page by page: indexing decodes one page.

    Parameters
    ----------
    tif : tifffile.TiffFile
        Kept open, and closed with this object.
    series : tifffile.TiffPageSeries
        Its pages are whole planes, see `_is_paged`.
    shape : tuple of int
        Of the array to show: the series' with dimensions of length 1 left out or not.
    page_order : tuple of int
        Order in which the dimensions of a page are given out.
    """

    def __init__(
        self,
        tif: tifffile.TiffFile,
        series: tifffile.TiffPageSeries,
        shape: tuple[int, ...],
        page_order: tuple[int, ...],
    ) -> None:
        self._path, self._pages, self._page_order = tif.filename, series.pages, page_order
        self._pages_shape = shape[: len(shape) - len(page_order)]
        self.shape = shape
        self.dtype = np.dtype(series.dtype)
        self._last: tuple[int, np.ndarray] | None = None  # the colours of a page are asked for one after another
        weakref.finalize(self, tif.close)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        count = len(self._pages_shape)
        if len(key) < count or not all(isinstance(i, (int, np.integer)) for i in key[:count]):
            raise IndexError("A TIFF is read one page at a time: give a whole number for each axis before Y and X.")
        number = int(np.ravel_multi_index([int(i) for i in key[:count]], self._pages_shape)) if count else 0
        if self._last is None or self._last[0] != number:
            self._last = number, self._read(number)
        return self._last[1][key[count:]]

    def _read(self, number: int) -> np.ndarray:
        page = self._pages[number]
        if page is None:
            raise FileError(f"Cannot read {self._path}: page {number} is missing; copy the file anew.")
        with reading(self._path), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of another file of the set being opened for a moment
            return np.transpose(page.asarray(), self._page_order)


def read_tiff(path: Path, axes: str | None = None) -> TiffImage:
    """The first image of a TIFF at full resolution.

    Parameters
    ----------
    path : Path
    axes : str, optional
        Overrides the axes that the file states.

    Raises
    ------
    FileError
        If the file is damaged.
    AxesError
        If its axes are none this package knows and `axes` does not say how to read them.
    """
    with reading(path), _listen() as complaints:
        tif = tifffile.TiffFile(path)
        try:
            image = _first_image(tif, path, axes)
        except BaseException:
            tif.close()
            raise
    if any(_PLANES_MISSING.search(complaint) for complaint in complaints):
        tif.close()
        raise FileError(
            f"Cannot read {path}: planes are missing; put the other files of its set beside it, or export it anew."
        )
    if any(_DAMAGE.search(complaint) for complaint in complaints):
        tif.close()
        raise FileError(f"Cannot read {path}: it is damaged or incomplete; copy or export it anew.")
    if not isinstance(image.data, TiffPlanes):
        tif.close()
    return image


def _first_image(tif: tifffile.TiffFile, path: Path, axes: str | None) -> TiffImage:
    if not tif.series:
        raise FileError(f"Cannot read {path}: it holds no image; export it anew.")
    series = tif.series[0]
    if series.dtype is None:
        raise FileError(f"Cannot read {path}: its pixels have a type that no array can hold; convert it to uint16.")
    _check_size(path, series)
    notes = []
    if len(tif.series) > 1:
        notes.append(f"read the first of {len(tif.series)} images in the file")
    if len(series.levels) > 1:
        notes.append(f"read the full resolution of {len(series.levels)} levels")
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
        notes.append("read the numbers of its palette's colours as grey levels")
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        notes.append("0 is white in the file, and black in the result")
    letters, shape = series.axes, tuple(series.shape)
    told = (axes or "").strip()
    if len(told) != len(letters):  # told the axes of the file as it stands, keep even dimensions of length 1
        keep = [i for i, letter in enumerate(letters) if shape[i] > 1 or letter in "YX"]
        letters, shape = "".join(letters[i] for i in keep), tuple(shape[i] for i in keep)
    order = tuple(range(len(letters)))
    if len(told) != len(letters):
        order = _order(letters, shape)
        letters, renamed = _known_letters("".join(letters[i] for i in order), shape[order[-1]])
        notes += renamed
    return TiffImage(_open(tif, path, series, shape, order), letters, read_calibration(tif), tuple(notes))


def _open(
    tif: tifffile.TiffFile, path: Path, series: tifffile.TiffPageSeries, shape: tuple[int, ...], order: tuple[int, ...]
) -> Any:
    """The pixels, reshaped and then transposed; lazily where they are many."""
    alone = series.keyframe.parent is tif  # and not in another file of a set
    if series.nbytes > _IN_MEMORY_BYTES and alone and series.dataoffset is not None:
        dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
        return np.transpose(np.memmap(path, dtype, "r", series.dataoffset, shape), order)
    page_ndim = len(series.keyframe.shape)
    pages_first = order[: len(order) - page_ndim] == tuple(range(len(order) - page_ndim))
    if series.nbytes > _IN_MEMORY_BYTES and pages_first and _is_paged(series):
        page_order = tuple(i - (len(order) - page_ndim) for i in order[len(order) - page_ndim :])
        return TiffPlanes(tif, series, tuple(shape[i] for i in order), page_order)
    return np.transpose(series.asarray().reshape(shape), order)


def _is_paged(series: tifffile.TiffPageSeries) -> bool:
    """Whether every page is one or more whole planes."""
    page_shape = tuple(series.keyframe.shape)
    pages = math.prod(series.shape[: len(series.shape) - len(page_shape)])
    return tuple(series.shape[-len(page_shape) :]) == page_shape and pages == len(series.pages) and 1 not in page_shape


def _order(letters: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Y and X last, and after them S if it is the last already and holds 3 or 4 colours."""
    if "Y" not in letters or "X" not in letters:
        raise AxesError(f"The file's axes {letters} have no Y and X: it holds no image.")
    last = [letters.index("Y"), letters.index("X")]
    if letters.endswith("S") and shape[-1] in (3, 4):
        last.append(len(letters) - 1)
    return tuple(i for i in range(len(letters)) if i not in last) + tuple(last)


def _known_letters(letters: str, samples: int) -> tuple[str, list[str]]:
    """Give axes that this package does not know (a sequence, an angle, ...) the letters that are free."""
    colour = "S" if letters.endswith("S") and samples in (3, 4) else ""
    known = letters.removesuffix(colour)
    notes = []
    for letter in [letter for letter in known if letter not in LEADING + "YX"]:
        # samples stored as planes are channels; tifffile writes stacks of three or four planes so, unless told not to
        free = [name for name in ("CZT" if letter == "S" else "ZTC") if name not in known]
        if not free:
            raise AxesError(f"The file's axes {letters} are more than time, channels and depth: split the file.")
        known = known.replace(letter, free[0], 1)
        meaning = tifffile.TIFF.AXES_NAMES.get(letter, "unknown")
        notes.append(f"read the axis {letter} ({meaning}) as {free[0]}; tell the axes if that is wrong")
    return known + colour, notes


def _check_size(path: Path, series: tifffile.TiffPageSeries) -> None:
    stored = os.stat(path).st_size
    if series.nbytes > max(_SUSPECT_BYTES, _INFLATION * stored):
        raise FileError(
            f"Cannot read {path}: it claims {series.nbytes / 2**30:.0f} GiB of pixels "
            f"but holds {stored / 2**20:.2f} MiB; it is damaged."
        )


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into one line."""
    try:
        yield
    except (FileError, AxesError):
        raise
    except MemoryError as error:
        raise FileError(f"Cannot read {path}: it needs more memory than there is.") from error
    except Exception as error:  # decoders raise anything from struct.error to RecursionError
        if isinstance(error, OSError) and error.strerror:
            raise FileError(f"Cannot read {path}: {error.strerror}.") from error
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise FileError(
            f"Cannot read {path}: it is damaged or incomplete ({reason}); copy or export it anew."
        ) from error


@contextmanager
def _listen() -> Iterator[list[str]]:
    """tifffile logs damage and goes on with what is left: collect what it says, and keep it off the screen."""
    complaints: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    logger, ear = logging.getLogger("tifffile"), Ear(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield complaints
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagate
