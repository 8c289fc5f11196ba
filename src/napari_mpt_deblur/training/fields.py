"""Images to train on, read as the Deblurrer reads them: the same statistics, the same planes, a patch at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from napari_mpt_deblur.errors import DeblurError, FileError, TrainingError
from napari_mpt_deblur.images import ImageView, Normalization, PlaneIndex, measure_normalization
from napari_mpt_deblur.images.statistics import IntensityRule
from napari_mpt_deblur.restoration.planes import PlaneGroup, PlaneReader, plane_groups
from napari_mpt_deblur.training.request import ImageSource

_MOST_KEPT_BYTES = 2**28  # of planes that were read from a file or a lazy array
_MOST_LOOKED_AT = 64  # planes of a lazy image that are checked before training


class Field:
    """One image, its planes brought to values of about 0 to 1 by its own percentiles, one pair a channel.

    Parameters
    ----------
    name : str
        For messages.
    view : ImageView
    groups : tuple of tuple of PlaneIndex
        The planes of each network input.
    normalization : Normalization
    """

    def __init__(
        self, name: str, view: ImageView, groups: tuple[PlaneGroup, ...], normalization: Normalization
    ) -> None:
        self.name, self.view, self.groups, self.normalization = name, view, groups, normalization
        self.height, self.width = view.height, view.width
        self._readers: OrderedDict[int, PlaneReader] = OrderedDict()
        plane_bytes = view.height * view.width * view.dtype.itemsize * len(set(groups[0]))
        self._most_kept = len(groups) if view.in_memory else max(1, _MOST_KEPT_BYTES // plane_bytes)

    @classmethod
    def of(
        cls,
        source: ImageSource,
        channels: int,
        rule: IntensityRule = (1.0, 99.8),
        *,
        colours_together: bool = False,
    ) -> Field:
        """Open and check an image.

        Parameters
        ----------
        source : ImageSource
        channels : int
            The network's: its inputs are the Deblurrer's for this image.
        rule : tuple of float or "full"
            Which grey levels become 0 and 1, see `measure_normalization`.
        colours_together : bool
            Keep the colours of an RGB image together whatever the network's channels, for `to_channels`.

        Raises
        ------
        DeblurError
            If it cannot be read, is constant, holds pixels that are not finite, or does not fit the network.
        """
        try:
            view = source.open()
        except FileError:  # which names the file
            raise
        except DeblurError as error:
            raise TrainingError(f"Cannot train on {source.name}: {error}") from error
        together = colours_together and view.sample_count
        try:
            groups = plane_groups(view.planes, view.sample_count if together else channels, view)
        except DeblurError as error:
            raise TrainingError(f"Cannot train on {source.name}: {error}") from error
        if not together and channels > 1 and not view.sample_count:
            groups = tuple(group[:1] for group in groups)  # `to_channels` repeats them
        _check_finite(source.name, view)
        normalization = measure_normalization(view, rule)
        if all(normalization.is_flat(channel) for channel in range(view.channel_count)):
            raise TrainingError(f"Cannot train on {source.name}: all its pixels are the same.")
        return cls(source.name, view, groups, normalization)

    @property
    def channels(self) -> int:
        """Of each patch."""
        return len(self.groups[0])

    def index(self, group: int) -> tuple[int, ...]:
        """Position of a group along the image's leading axes."""
        return self.groups[group][0].index

    def read(self, group: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """(C, height, width) float32 from (y, x) on; beyond its edges the image goes on by reflection."""
        reader = self._readers.pop(group, None)
        if reader is None:
            reader = PlaneReader(self.view, self.groups[group], self.normalization)
            while len(self._readers) >= self._most_kept:
                self._readers.popitem(last=False)
        self._readers[group] = reader
        return reader.read(_mirrored(y, height, self.height), _mirrored(x, width, self.width))

    def plane(self, group: int) -> np.ndarray:
        """(C, Y, X) float32, all of it."""
        return self.read(group, 0, 0, self.height, self.width)

    def describe(self) -> dict[str, object]:
        """What it is, in plain data, for the record."""
        return {"name": self.name, "axes": str(self.view.axes), "shape": list(self.view.shape)}


def evenly(count: int, most: int) -> list[int]:
    """At most that many of the numbers below `count`, evenly spaced."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(count, most))})


def _mirrored(first: int, length: int, size: int) -> np.ndarray:
    """Indices of `length` pixels from `first` on, reflected at 0 and at `size`, edge pixels twice."""
    positions = np.arange(first, first + length) % (2 * size)
    return np.where(positions < size, positions, 2 * size - 1 - positions)


def _check_finite(name: str, view: ImageView) -> None:
    if view.dtype.kind != "f":
        return
    planes: Sequence[PlaneIndex] = view.planes
    if not view.in_memory:
        planes = [planes[i] for i in evenly(len(planes), _MOST_LOOKED_AT)]
    for plane in planes:
        if not np.isfinite(view.read_pixels(plane)).all():
            raise TrainingError(
                f"Cannot train on {name}: it holds pixels that are NaN or infinite; crop or replace them first."
            )
