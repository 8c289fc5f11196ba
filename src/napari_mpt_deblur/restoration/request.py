"""What a run is to restore and where the result goes, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import ImageError, ParameterError
from napari_mpt_deblur.images import ImageView, Normalization, PlaneIndex
from napari_mpt_deblur.restoration.planes import PlaneGroup, plane_groups
from napari_mpt_deblur.restoration.scaling import PlaneScaling
from napari_mpt_deblur.tiling import Region

_ALPHA_ROWS = 256


@dataclass(frozen=True, eq=False)
class Request:
    """One run, resolved; `Request.of` makes and checks it.

    Attributes
    ----------
    view : ImageView
    groups : tuple of tuple of PlaneIndex
        The planes of each network input.
    region : tuple of int
        (y0, x0, y1, x1), within the plane.
    dtype : numpy dtype
        Of the result.
    shape : tuple of int
        Of the result.
    positions : dict
        Where each leading index of the view lies along the leading axes of the result.
    """

    view: ImageView
    groups: tuple[PlaneGroup, ...]
    region: Region
    dtype: np.dtype
    shape: tuple[int, ...]
    positions: dict[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(
        cls,
        view: ImageView,
        channels: int,
        planes: tuple[PlaneIndex, ...] | None,
        region: Region | None,
        dtype: Any,
    ) -> Request:
        """Check and resolve; see `Deblurrer.run` for the parameters."""
        chosen = view.planes if planes is None else tuple(dict.fromkeys(planes))
        known = set(view.planes)
        if not chosen or not known.issuperset(chosen):
            raise ParameterError("The planes to restore must be some of the image's own (ImageView.planes).")
        indices = list(dict.fromkeys(plane.index for plane in chosen))
        if len(chosen) == len(known):
            positions = {index: index for index in indices}
            leading = view.shape[: len(view.axes.leading)]
        else:
            positions = {index: (number,) for number, index in enumerate(indices)}
            leading = (len(indices),)
        region = _region(region, view.height, view.width)
        y0, x0, y1, x1 = region
        samples = view.shape[-1:] if view.axes.has_samples else ()
        groups = plane_groups(chosen, channels, view)
        return cls(view, groups, region, _dtype(dtype, view), (*leading, y1 - y0, x1 - x0, *samples), positions)

    @property
    def covers_stack(self) -> bool:
        """Whether all planes are restored."""
        return len({plane for group in self.groups for plane in group}) == len(self.view.planes)

    @property
    def covers_plane(self) -> bool:
        return self.region == (0, 0, self.view.height, self.view.width)

    def reduced(self, scaling: PlaneScaling) -> tuple[int, int, Region]:
        """Height, width and region of a plane at the scale that the network works at."""
        if scaling.factor == 1:
            return self.view.height, self.view.width, self.region
        height, width = self.view.height, self.view.width
        return scaling.size(height), scaling.size(width), scaling.reduced_region(self.region, height, width)

    def check_out(self, out: Any) -> None:
        """Refuse an output that does not fit."""
        if not hasattr(out, "__setitem__") or tuple(getattr(out, "shape", ())) != self.shape:
            size = " x ".join(map(str, self.shape))
            raise ParameterError(f"The output must be an array of shape {size} that can be written to.")

    def check_normalization(self, normalization: Normalization) -> None:
        """Refuse statistics of another image."""
        if len(normalization.low) != self.view.channel_count:
            raise ParameterError(
                f"The normalisation has {len(normalization.low)} channels, the image has {self.view.channel_count}: "
                "measure it on this image."
            )

    def write(self, out: Any, plane: PlaneIndex, first_row: int, rows: np.ndarray) -> None:
        """Put restored rows of a plane where they belong in the output."""
        key: tuple[Any, ...] = (*self.positions[plane.index], slice(first_row, first_row + rows.shape[0]), slice(None))
        if plane.sample is not None:
            key = (*key, plane.sample)
        out[key] = rows

    def copy_alpha(self, out: Any) -> None:
        """Alpha is not restored: it goes to the output as it is."""
        if not self.view.axes.has_samples or self.view.shape[-1] != 4:
            return
        y0, x0, y1, x1 = self.region
        for index, position in self.positions.items():
            alpha = np.asarray(self.view.data[(*index, slice(y0, y1), slice(x0, x1), 3)])
            for first in range(0, y1 - y0, _ALPHA_ROWS):  # what writes to a file holds the rows that it is given
                rows = alpha[first : first + _ALPHA_ROWS].astype(self.dtype)
                out[(*position, slice(first, first + len(rows)), slice(None), 3)] = rows


def _region(region: Region | None, height: int, width: int) -> Region:
    if region is None:
        return (0, 0, height, width)
    try:
        y0, x0, y1, x1 = (int(edge) for edge in region)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"The region must be four whole numbers (y0, x0, y1, x1); got {region!r}.") from error
    clipped = (max(0, y0), max(0, x0), min(height, y1), min(width, x1))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise ParameterError(f"The region {(y0, x0, y1, x1)} holds no pixel of the image ({height} x {width}).")
    return clipped


def _dtype(dtype: Any, view: ImageView) -> np.dtype:
    if dtype is None or (isinstance(dtype, str) and dtype == "input"):
        return view.dtype
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise ParameterError(f"Unknown output type {str(dtype)[:40]!r}: choose input or float32.") from error
    if found.kind not in "iuf":
        raise ImageError(f"A restored image cannot be of type {found}: choose uint8, uint16 or float32.")
    return found
