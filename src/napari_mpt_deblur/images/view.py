"""`ImageView`: what the pixels of a layer, file or array are, read one plane at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import ImageError, ParameterError
from napari_mpt_deblur.images.axes import Axes, resolve_axes

_EXACT = 2**53  # whole numbers up to here have a float64 of their own
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PlaneIndex:
    """One (Y, X) plane of an image.

    Attributes
    ----------
    index : tuple of int
        Position along the axes before Y and X.
    channel : int
        Which channel's statistics belong to the plane, from 0 to ``channel_count - 1``: the position along C, and for
        RGB the colour (counted on within each position along C if the image has both).
    sample : int or None
        The colour of an RGB(A) image; None for other images. Alpha is no plane: it is not restored.
    """

    index: tuple[int, ...]
    channel: int = 0
    sample: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What to index the whole array with to read or write this plane."""
        return self.index if self.sample is None else (*self.index, slice(None), slice(None), self.sample)


@dataclass(frozen=True, eq=False)
class ImageView:
    """An image and what it means. Nothing is read until a plane is asked for.

    Attributes
    ----------
    data : array
        Anything with ``shape``, ``dtype`` and ``__getitem__``: numpy, dask, zarr, a lazily read TIFF. Never changed.
    axes : Axes
    pixel_size_um : float or None
        Width of a pixel in micrometres, where known.
    nucleus_diameter_px : float or None
        Diameter of typical nuclei in pixels, where known.
    metadata : mapping
        What a file says beyond that, in OME's terms (``PhysicalSizeZ``, ``Channel``, ...), to be written back.
    notes : tuple of str
        What the user should know about how the image was read.
    """

    data: Any
    axes: Axes
    pixel_size_um: float | None = None
    nucleus_diameter_px: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        data: Any,
        axes: str | Axes | None = None,
        *,
        rgb: bool | None = None,
        pixel_size_um: float | None = None,
        nucleus_diameter_px: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
    ) -> ImageView:
        """A view of an array, checked.

        Parameters
        ----------
        data : array_like
            2 to 5 dimensions and RGB(A); integers of up to 2**53 or float16, float32, float64, in either byte order.
        axes : str or Axes, optional
            Guessed by default, see `resolve_axes`.
        rgb : bool, optional
            Whether the last dimension holds RGB(A) samples; guessed by default.
        pixel_size_um, nucleus_diameter_px : float, optional

        Raises
        ------
        ImageError
            If the array is empty or of a type that cannot be restored.
        AxesError
            If the axes do not fit the array.
        ParameterError
            If the pixel size or the diameter is not a number above 0.
        """
        if isinstance(data, np.ma.MaskedArray):
            raise ImageError("A masked array cannot be restored: fill it, image.astype('float32').filled(numpy.nan).")
        if not _is_array(data):
            data = _as_array(data)
        _check_dtype(data.dtype)
        if not all(isinstance(length, (int, np.integer)) for length in data.shape):  # NaN: dask after a selection
            raise ImageError("The image's size is not known: have dask find it (compute_chunk_sizes) first.")
        resolved = resolve_axes(str(axes) if axes is not None else None, data.shape, data.dtype, rgb=rgb)
        if 0 in data.shape:
            raise ImageError(f"The image is empty ({' x '.join(map(str, data.shape))}): there is nothing to restore.")
        view = cls(
            data,
            resolved,
            _positive(pixel_size_um, "pixel_size_um"),
            _positive(nucleus_diameter_px, "nucleus_diameter_px"),
            dict(metadata or {}),
            tuple(notes),
        )
        if type(data) is np.ndarray and data.dtype.kind in "iu" and data.dtype.itemsize == 8:
            _check_exact(data)  # lazy arrays are checked plane by plane, as they are read
        return view

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.data.dtype)

    @property
    def height(self) -> int:
        return int(self.shape[self.axes.text.index("Y")])

    @property
    def width(self) -> int:
        return int(self.shape[self.axes.text.index("X")])

    @property
    def sample_count(self) -> int:
        """Colours of an RGB(A) image, alpha not counted; 0 for other images."""
        return 3 if self.axes.has_samples else 0

    @property
    def channel_count(self) -> int:
        """Number of channels with statistics of their own: positions along C, times 3 for RGB."""
        channels = self.shape[self.axes.text.index("C")] if "C" in self.axes.leading else 1
        return int(channels) * max(self.sample_count, 1)

    @property
    def in_memory(self) -> bool:
        """Whether reading a plane costs no more than a copy."""
        return isinstance(self.data, np.ndarray) and not isinstance(self.data, np.memmap)

    @cached_property
    def planes(self) -> tuple[PlaneIndex, ...]:
        """All planes, the last leading axis fastest."""
        letter = self.axes.leading.find("C")
        planes = []
        for index in np.ndindex(*self.shape[: len(self.axes.leading)]):
            channel = index[letter] if letter >= 0 else 0
            if not self.sample_count:
                planes.append(PlaneIndex(index, channel))
                continue
            for sample in range(self.sample_count):
                planes.append(PlaneIndex(index, channel * self.sample_count + sample, sample))
        return tuple(planes)

    def read_plane(self, plane: PlaneIndex) -> np.ndarray:
        """The pixels of one plane.

        Parameters
        ----------
        plane : PlaneIndex

        Returns
        -------
        ndarray
            (Y, X) float32 in native byte order, a copy. NaN and infinite pixels stay.

        Raises
        ------
        ImageError
            If a value is too large to be computed with.
        """
        return self.read_pixels(plane).astype(np.float32)  # always a copy, always native

    def read_pixels(self, plane: PlaneIndex) -> np.ndarray:
        """The pixels of one plane as they are stored: (Y, X) in the image's dtype, not a copy where that is possible.

        Raises
        ------
        ImageError
            If a value is too large to be computed with.
        """
        pixels = np.asarray(self.data[plane.key])
        if pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 8:
            _check_exact(pixels)
        if pixels.dtype == np.float64 and any(map(_is_beyond_float32, pixels)):
            raise ImageError(
                "The image holds values beyond 3.4e38, more than float32 can: divide it by a constant first."
            )
        return pixels


def _is_array(data: Any) -> bool:
    """Whether it can be read plane by plane as it is; a torch tensor's dtype, for example, is not numpy's."""
    if not all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__")):
        return False
    try:
        np.dtype(data.dtype)
    except TypeError:
        return False
    return True


def _as_array(data: Any) -> np.ndarray:
    try:
        array = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:  # the last from a tensor that records gradients
        raise ImageError("The image is not an array of numbers: give a numpy, dask or zarr array.") from error
    _check_dtype(array.dtype)
    return array


def _is_beyond_float32(row: np.ndarray) -> bool:
    """Of one row, so that the check of a large plane takes no memory."""
    return bool(np.any(np.isfinite(row) & (np.abs(row) > _FLOAT32_MAX)))


def _check_dtype(dtype: Any) -> None:
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        raise ImageError("A mask of true and false cannot be deblurred: give the grey-level image it was made from.")
    if dtype.kind == "c":
        raise ImageError("A complex image cannot be deblurred: give its magnitude (numpy.abs).")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ImageError(f"Pixels of type {dtype} cannot be deblurred: convert the image to uint8, uint16 or float32.")


def _check_exact(pixels: np.ndarray) -> None:
    if pixels.size and (int(pixels.max()) > _EXACT or int(pixels.min()) < -_EXACT):
        raise ImageError(
            "The image holds whole numbers beyond 2^53, which cannot be computed with: convert it to float."
        )


def _positive(value: float | None, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} must be a number above 0; got {value!r}.") from error
    if not 0 < number < math.inf:
        raise ParameterError(f"{name} must be a number above 0; got {value!r}.")
    return number
