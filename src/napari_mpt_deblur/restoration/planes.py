"""One input of the network: its pixels as tiles of values of about 0 to 1, and restored values back as pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from napari_mpt_deblur.errors import ModelError, ParameterError
from napari_mpt_deblur.images import ImageView, Normalization, PlaneIndex
from napari_mpt_deblur.images.statistics import undo_to_dtype
from napari_mpt_deblur.restoration.scaling import PlaneScaling
from napari_mpt_deblur.tiling import Region

PlaneGroup = tuple[PlaneIndex, ...]
"""The planes that make the channels of one network input; a grey plane may stand for several channels."""

Writer = Callable[[PlaneIndex, int, np.ndarray], None]
"""Takes a plane, the first row within the region, and restored rows of the result's dtype."""


_USABLE = 1e3  # times the image's range of intensities; what lies beyond is a fault, not signal
_STRIP_ROWS = 256  # of a plane at full size that is handled at once where the network works on a reduced one


def plane_groups(planes: tuple[PlaneIndex, ...], channels: int, view: ImageView) -> tuple[PlaneGroup, ...]:
    """Planes one by one, for a network of one channel; colours together or grey planes repeated for one of more."""
    if channels == 1:
        return tuple((plane,) for plane in planes)
    if not view.sample_count:
        return tuple((plane,) * channels for plane in planes)
    if channels != view.sample_count:
        raise ModelError(f"The model takes {channels} channels, the image has {view.sample_count} colours.")
    colours: dict[tuple[int, ...], list[PlaneIndex]] = {}
    for plane in planes:
        colours.setdefault(plane.index, []).append(plane)
    if any(len(group) != channels for group in colours.values()):
        raise ParameterError("The model restores the colours of an image together: choose whole colour planes.")
    return tuple(tuple(group) for group in colours.values())


class PlaneReader:
    """The pixels of one network input as the network sees them.

    Pixels that are NaN, infinite or absurdly far outside the image's range are replaced for the network by their
    nearest usable neighbour in the tile, so that they do not spread.

    Parameters
    ----------
    view : ImageView
    group : tuple of PlaneIndex
    normalization : Normalization
    """

    def __init__(self, view: ImageView, group: PlaneGroup, normalization: Normalization) -> None:
        self.height, self.width = view.height, view.width
        self._group, self._normalization = group, normalization
        read = {plane: view.read_pixels(plane) for plane in dict.fromkeys(group)}
        self._pixels = [read[plane] for plane in group]

    def read(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(C, rows, columns) float32, values about 0 to 1."""
        tile = np.empty((len(self._group), len(rows), len(columns)), np.float32)
        for channel, (plane, pixels) in enumerate(zip(self._group, self._pixels, strict=True)):
            values = pixels[np.ix_(rows, columns)]
            usable = self._usable(values, plane.channel)
            tile[channel] = self._normalization.apply(_filled(values, usable), plane.channel)
        return tile

    def _usable(self, pixels: np.ndarray, channel: int) -> np.ndarray:
        low, high = self._normalization.low[channel], self._normalization.high[channel]
        reach = _USABLE * (high - low)
        with np.errstate(over="ignore"):  # a reach beyond the pixels' own type is infinite there
            return np.isfinite(pixels) & (pixels >= low - reach) & (pixels <= high + reach)


class PlanePixels(PlaneReader):
    """Pixels of one network input, read and written.

    Unusable pixels stand in the result as they were. A plane that is constant comes back as it is.

    Parameters
    ----------
    view : ImageView
    group : tuple of PlaneIndex
    normalization : Normalization
    region : tuple of int
        (y0, x0, y1, x1), what of the planes is to be written.
    dtype : numpy dtype
        Of the result.
    write : callable
    clip : bool
        Whether restored values are clipped to 0..1, as the model's authors do.
    """

    def __init__(
        self,
        view: ImageView,
        group: PlaneGroup,
        normalization: Normalization,
        region: Region,
        dtype: np.dtype,
        write: Writer,
        clip: bool = False,
    ) -> None:
        super().__init__(view, group, normalization)
        self.region, self._dtype, self._write, self._clip = region, dtype, write, clip
        self._constant = {
            plane: normalization.is_flat(plane.channel) or _is_constant(pixels)
            for plane, pixels in dict(zip(group, self._pixels, strict=True)).items()
        }

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to restore."""
        return all(self._constant.values())

    def write(self, first_row: int, values: np.ndarray) -> None:
        """Take restored values, (C, rows, width of the region) float32, from `first_row` of the plane on."""
        y0, x0, _, x1 = self.region
        place = np.s_[first_row : first_row + values.shape[1], x0:x1]
        values = values.clip(0, 1) if self._clip else values
        shared = len(self._constant) < len(self._group)  # one grey plane in several channels
        for channel, plane in enumerate(self._constant):
            pixels = self._pixels[channel][place]
            if self._constant[plane]:
                restored = undo_to_dtype(pixels, self._dtype) if pixels.dtype != self._dtype else pixels
            else:
                grey = self._normalization.undo(values.mean(0) if shared else values[channel], plane.channel)
                restored = undo_to_dtype(np.where(self._usable(pixels, plane.channel), grey, pixels), self._dtype)
            self._write(plane, first_row - y0, restored)

    def write_unchanged(self) -> None:
        """Write the region of a constant plane as it is."""
        y0, x0, y1, x1 = self.region
        self.write(y0, np.empty((len(self._group), y1 - y0, x1 - x0), np.float32))

    def finish(self) -> None:
        """All rows were written."""


class ReducedPixels:
    """Pixels of one network input at a smaller scale; the network's change of them is added at full size.

    Stands in for `PlanePixels`; holds the whole reduced plane, and strips of the full one.

    Parameters
    ----------
    pixels : PlanePixels
    scaling : PlaneScaling
    """

    def __init__(self, pixels: PlanePixels, scaling: PlaneScaling) -> None:
        self._full, self._scaling = pixels, scaling
        self.height, self.width = scaling.size(pixels.height), scaling.size(pixels.width)
        self.region = scaling.reduced_region(pixels.region, pixels.height, pixels.width)
        self._reduced: np.ndarray | None = None
        y0, x0, y1, x1 = self.region
        self._change = np.zeros((1, y1 - y0, x1 - x0), np.float32)

    @property
    def is_constant(self) -> bool:
        return self._full.is_constant

    def read(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        reduced = self._all()
        return reduced[:, rows[:, None], columns]

    def write(self, first_row: int, values: np.ndarray) -> None:
        y0, x0, y1, x1 = self.region
        if self._change.shape[0] != values.shape[0]:
            self._change = np.zeros((values.shape[0], y1 - y0, x1 - x0), np.float32)
        stop = first_row + values.shape[1]
        self._change[:, first_row - y0 : stop - y0] = values - self._all()[:, first_row:stop, x0:x1]

    def write_unchanged(self) -> None:
        self._full.write_unchanged()

    def finish(self) -> None:
        """Add the enlarged change to the plane at full size."""
        full, scaling = self._full, self._scaling
        y0, x0, y1, x1 = full.region
        for first in range(y0, y1, _STRIP_ROWS):
            strip = (first, x0, min(first + _STRIP_ROWS, y1), x1)
            source = scaling.reduced_region(strip, full.height, full.width)
            change = self._change[:, source[0] - self.region[0] : source[2] - self.region[0]]
            rows = full.read(np.arange(first, strip[2]), np.arange(x0, x1))
            rows += scaling.enlarge(np.ascontiguousarray(change), source, strip)
            full.write(first, rows)

    def _all(self) -> np.ndarray:
        if self._reduced is None:
            full, factor = self._full, self._scaling.factor
            columns, step = np.arange(full.width), factor * max(1, _STRIP_ROWS // factor)
            strips = (
                full.read(np.arange(first, min(first + step, full.height)), columns)
                for first in range(0, full.height, step)
            )
            self._reduced = np.concatenate([self._scaling.reduce(strip) for strip in strips], axis=1)
        return self._reduced


def _is_constant(pixels: np.ndarray) -> bool:
    """Whether all finite pixels are equal, or none is finite; row by row, for a large plane's sake."""
    low = high = None
    for row in pixels:
        finite = row[np.isfinite(row)]
        if finite.size:
            low = finite.min() if low is None else min(low, finite.min())
            high = finite.max() if high is None else max(high, finite.max())
            if low != high:
                return False
    return True


def _filled(tile: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """The tile with every pixel that is not usable replaced by the nearest one that is; 0 where none is."""
    if usable.all():
        return tile
    if not usable.any():
        return np.zeros_like(tile)
    nearest = ndimage.distance_transform_edt(~usable, return_distances=False, return_indices=True)
    return tile[tuple(nearest)]
