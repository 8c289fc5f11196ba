"""Writing OME-TIFF: an array at once, or rows as they are computed; whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np
import tifffile

from napari_mpt_deblur.images.atomic import atomic_path
from napari_mpt_deblur.images.axes import Axes, resolve_axes

_OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_NO_RESERVING = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # file systems that cannot reserve space


class TiffSink:
    """A TIFF that is being written: takes rows of planes in any order, as an array would.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy dtype
    description : str
        Put into the file at the end, if any.
    """

    def __init__(self, file: BinaryIO, offset: int, shape: tuple[int, ...], dtype: np.dtype, axes: Axes) -> None:
        self._file, self._offset, self._leading = file, offset, len(axes.leading)
        self.shape, self.dtype, self.description = shape, dtype, ""

    def __setitem__(self, key: tuple[Any, ...], rows: np.ndarray) -> None:
        """Write whole rows of one plane: ``sink[z, 10:20, :] = rows``; of RGB(A) all samples, or one as in
        ``sink[z, 10:20, :, 2] = rows``.
        """
        index, (lines, columns, *sample) = key[: self._leading], key[self._leading :]
        plane_shape = self.shape[self._leading :]
        start, stop, step = lines.indices(plane_shape[0])
        if step != 1 or columns.indices(plane_shape[1]) != (0, plane_shape[1], 1):
            raise IndexError("A TIFF is written in whole rows.")
        number = int(np.ravel_multi_index(index, self.shape[: self._leading])) if index else 0
        place = self._offset + (number * plane_shape[0] + start) * int(np.prod(plane_shape[1:])) * self.dtype.itemsize
        block = np.empty((stop - start, *plane_shape[1:]), self.dtype)
        if sample:  # the other samples of the pixel stay
            self._file.seek(place)
            block[:] = np.frombuffer(self._file.read(block.nbytes), self.dtype).reshape(block.shape)
            block[..., sample[0]] = rows
        else:
            block[:] = rows
        self._file.seek(place)
        self._file.write(block.data)


@contextmanager
def create_image(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    axes: str | Axes,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[TiffSink]:
    """An OME-TIFF to be filled while the block runs; it appears when the block ends well, and never in parts.

    Its space on the disk is reserved at the start, so that a disk too small for it is known before the work.

    Parameters
    ----------
    path, pixel_size_um, z_step_um, overwrite, metadata
        As of `write_image`.
    shape : sequence of int
    dtype : numpy dtype
    axes : str or Axes

    Yields
    ------
    TiffSink
        Zero where nothing is written.

    Raises
    ------
    FileError
        As of `write_image`.
    AxesError
        If the axes do not fit the shape.
    """
    shape, native = tuple(shape), np.dtype(dtype).newbyteorder("=")
    resolved = resolve_axes(str(axes), shape, native)
    options = _options(resolved, shape, native, pixel_size_um, z_step_um, metadata or {})
    with atomic_path(path, overwrite=overwrite) as temporary:
        tifffile.imwrite(temporary, shape=shape, dtype=native, **options)
        with tifffile.TiffFile(temporary) as tif:
            offset = tif.pages.first.dataoffsets[0]
        with temporary.open("r+b") as file:
            _reserve(file)
            sink = TiffSink(file, offset, shape, native, resolved)
            yield sink
        if sink.description:
            _describe(temporary, sink.description)


def write_image(
    path: str | Path,
    array: np.ndarray,
    axes: str | Axes,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write an OME-TIFF, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Its folder must exist.
    array : ndarray
        Integer or floating. OME knows no 64-bit integers and no float16: those are written as plain TIFF that states
        the axes and sizes in its description.
    axes : str or Axes
    pixel_size_um, z_step_um : float, optional
    overwrite : bool
        Whether a file that exists may be replaced.
    metadata : mapping, optional
        More of what OME records, as in `ImageView.metadata`; the sizes given above come first.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        If the file exists or cannot be written (a missing folder, a full disk, ...); nothing is left behind.
    AxesError
        If the axes do not fit the array.
    """
    resolved = resolve_axes(str(axes), array.shape, array.dtype)
    native = np.dtype(array.dtype).newbyteorder("=")
    options = _options(resolved, array.shape, native, pixel_size_um, z_step_um, metadata or {})
    with atomic_path(path, overwrite=overwrite) as temporary:
        tifffile.imwrite(temporary, np.ascontiguousarray(array, native), **options)
    return Path(path)


def _options(
    axes: Axes,
    shape: tuple[int, ...],
    dtype: np.dtype,
    pixel_size_um: float | None,
    z_step_um: float | None,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """What tifffile is to be told."""
    options: dict[str, Any] = {
        "ome": dtype.name in _OME_TYPES,
        "photometric": "rgb" if axes.has_samples else "minisblack",
        "metadata": _ome_record(axes, shape, pixel_size_um, z_step_um, metadata),
    }
    if axes.has_samples and shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    return options


def _ome_record(
    axes: Axes,
    shape: tuple[int, ...],
    pixel_size_um: float | None,
    z_step_um: float | None,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    record = {name: value for name, value in metadata.items() if not name.endswith("Unit")}
    if pixel_size_um is not None and pixel_size_um != record.get("PhysicalSizeX"):
        record["PhysicalSizeX"] = record["PhysicalSizeY"] = pixel_size_um
    if z_step_um is not None:
        record["PhysicalSizeZ"] = z_step_um
    for name in [name for name in record if name.startswith("PhysicalSize")]:
        record[f"{name}Unit"] = "µm"
    names = record.get("Channel", {}).get("Name", [])
    channels = shape[axes.text.index("C")] if "C" in axes.leading else 1
    if len(names) != channels:
        record.pop("Channel", None)
    return {"axes": axes.text, **record}


def _reserve(file: BinaryIO) -> None:
    """Take the file's space on the disk: what was skipped over when it was made takes none until it is written."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        if error.errno not in _NO_RESERVING:
            raise


def _describe(path: Path, text: str) -> None:
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages.first.tags["ImageDescription"]
        if tif.is_ome:
            changed = str(tag.value).replace("<Pixels", f"<Description>{escape(text)}</Description><Pixels", 1)
        else:
            changed = json.dumps(json.loads(tag.value) | {"Description": text})
        tag.overwrite(changed.encode())
