"""How a layer is read: its array at full resolution, its axes in words, its pixel size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.errors import AxesError
from napari_mpt_deblur.images.axes import Axes, resolve_axes

if TYPE_CHECKING:
    from napari.layers import Image, Layer

_LABELS = {"t": "T", "time": "T", "c": "C", "ch": "C", "channel": "C", "z": "Z", "depth": "Z", "y": "Y", "x": "X"}
# the readings that the panel offers, by the number of axes before Y and X
_LEADING = {0: ("",), 1: ("Z", "T", "C"), 2: ("TZ", "CZ", "ZC", "TC"), 3: ("TCZ", "TZC", "CTZ")}


def full_resolution(layer: Image) -> Any:
    """The layer's array; of a multiscale layer the finest."""
    return layer.data[0] if layer.multiscale else layer.data


def layer_axes(layer: Image, axes: str | None = None) -> Axes:
    """How a layer's array is read.

    Parameters
    ----------
    layer : Image
    axes : str, optional
        The user's word; without it the layer's axis labels decide where they are telling, else the shape.

    Returns
    -------
    Axes

    Raises
    ------
    AxesError
        If the axes do not fit the array.
    """
    data = full_resolution(layer)
    shape = tuple(data.shape)
    if axes is not None:
        return resolve_axes(axes, shape, data.dtype, rgb=layer.rgb)
    letters = [_LABELS.get(label.strip().lower(), "?") for label in layer.axis_labels]
    try:
        return resolve_axes("".join(letters) + ("S" if layer.rgb else ""), shape, data.dtype, rgb=layer.rgb)
    except AxesError:  # labels of another kind, such as napari's own "-3"
        return resolve_axes(None, shape, data.dtype, rgb=layer.rgb)


def readings(layer: Image) -> tuple[Axes, ...]:
    """All the ways in which the panel offers to read a layer.

    Parameters
    ----------
    layer : Image

    Returns
    -------
    tuple of Axes
        Empty if the layer has too many or too few dimensions.
    """
    shape = tuple(full_resolution(layer).shape)
    texts = [] if layer.rgb else [f"{leading}YX" for leading in _LEADING.get(len(shape) - 2, ())]
    if shape[-1] in (3, 4):
        texts += [f"{leading}YXS" for leading in _LEADING.get(len(shape) - 3, ())]
    return tuple(Axes(text) for text in texts)


def pixel_size_um(layer: Layer, axes: Axes) -> float | None:
    """Width of a pixel, from all of the layer's transforms.

    Parameters
    ----------
    layer : Layer
    axes : Axes

    Returns
    -------
    float or None
        The geometric mean of height and width; None where the layer's units are no lengths.
    """
    sizes = []
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    for axis in (len(axes.leading), len(axes.leading) + 1):
        unit = layer.units[axis]
        if not unit.is_compatible_with("um"):
            return None
        step = np.asarray(layer.data_to_world(np.eye(layer.ndim)[axis])) - origin
        sizes.append(float((np.linalg.norm(step) * unit).to("um").magnitude))
    size = math.sqrt(sizes[0] * sizes[1])
    return size if 0 < size < math.inf else None
