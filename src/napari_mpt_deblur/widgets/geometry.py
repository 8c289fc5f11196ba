"""Where the pixels of a layer are: the current plane, the part in view, drawn boxes, the place of a result."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets.reading import full_resolution

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes

_SEEN_PX = 40.0  # of the canvas: what is smaller is hard to see
_FILLED = 0.95  # of the canvas, by what is fitted to it, as napari has it

Box = tuple[int, int, int, int]  # (y0, x0, y1, x1), the ends not included


def current_index(viewer: ViewerModel, layer: Image, axes: Axes) -> tuple[int, ...]:
    """Where the sliders stand, as an index along the axes of a layer before Y and X.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Image
    axes : Axes

    Returns
    -------
    tuple of int
        Within the layer: sliders beyond its end mean its last plane.
    """
    leading = len(axes.leading)
    point = np.array(viewer.dims.point, float)
    point[-2:] = 0  # of a tilted layer napari shows the plane that lies there, wherever the camera looks
    data = _world_to_data(layer, point, viewer.dims.units)[:leading]
    last = np.array(full_resolution(layer).shape[:leading]) - 1
    return tuple(int(i) for i in np.clip(np.round(data), 0, last))


def box_in_view(viewer: ViewerModel, layer: Image, axes: Axes) -> Box | None:
    """The part of a layer's planes that the canvas shows now.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Image
    axes : Axes

    Returns
    -------
    tuple of int or None
        (y0, x0, y1, x1) in pixels; None for whole planes: in 3-D, where other axes than Y and X are displayed, or
        where nothing of the layer is in view.
    """
    y_axis = len(axes.leading)
    shift = viewer.dims.ndim - layer.ndim  # napari aligns the last dimensions
    displayed = [dim - shift for dim in viewer.dims.displayed]
    if viewer.dims.ndisplay != 2 or set(displayed) != {y_axis, y_axis + 1}:
        return None
    half = np.asarray(viewer.canvas.viewbox_size(viewer.layers)) / viewer.scene.camera.zoom / 2
    corners = []
    for signs in itertools.product((-1, 1), repeat=2):
        point = np.array(viewer.dims.point, float)
        point[list(viewer.dims.displayed)] = np.array(viewer.scene.camera.center[-2:]) + signs * half
        corners.append(_world_to_data(layer, point, viewer.dims.units)[y_axis : y_axis + 2])
    return _covering_box(corners, layer, y_axis)


def box_of_shape(viewer: ViewerModel, layer: Image, axes: Axes) -> Box:
    """The bounding box of what the user drew: the selected shapes, else the one drawn last.

    Parameters
    ----------
    viewer : ViewerModel
        Its active shapes layer is asked, else the topmost one that holds a shape.
    layer : Image
        The layer to whose pixels the box refers.
    axes : Axes

    Returns
    -------
    tuple of int
        (y0, x0, y1, x1) in pixels.

    Raises
    ------
    ParameterError
        If nothing is drawn, or not on this layer.
    """
    shapes = _drawn_shapes(viewer)
    chosen = sorted(shapes.selected_data) or [len(shapes.data) - 1]
    y_axis = len(axes.leading)
    corners = []
    for vertex in np.concatenate([np.asarray(shapes.data[i]) for i in chosen]):
        world = np.asarray(shapes.data_to_world(vertex))
        corners.append(_world_to_data(layer, world, shapes.units)[y_axis : y_axis + 2])
    box = _covering_box(corners, layer, y_axis)
    if box is None:
        raise ParameterError(f"The drawn shape lies outside {layer.name!r}: draw it on the image.")
    return box


def look_at(viewer: ViewerModel, layer: Layer, position: Sequence[float | None], size_px: float = 0.0) -> None:
    """Go to a place in a layer: sliders and camera; zoom in only where a thing of that size would be small.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Layer
    position : sequence of float or None
        In pixels of the layer, one number an axis; None: where the slider stands now.
    size_px : float
        Of the thing to see, in pixels of the layer.
    """
    now = _world_to_data(layer, viewer.dims.point, viewer.dims.units)
    data = np.array([here if there is None else there for here, there in zip(now, position, strict=True)])
    world = _to_viewer(viewer, layer, np.asarray(layer.data_to_world(data)))
    shift = viewer.dims.ndim - layer.ndim  # napari aligns the last dimensions
    displayed = viewer.dims.displayed
    for axis, value in enumerate(world, start=shift):
        if axis not in displayed:
            viewer.dims.set_point(axis, value)
    center = list(viewer.scene.camera.center)
    for i, axis in zip(range(-len(displayed), 0), displayed, strict=True):
        if axis >= shift:
            center[i] = float(world[axis - shift])
    viewer.scene.camera.center = tuple(center)
    step = np.zeros(layer.ndim)
    step[-1] = size_px
    ahead = _to_viewer(viewer, layer, np.asarray(layer.data_to_world(data + step)))
    size = float(np.linalg.norm(ahead - world))
    if size > 0:
        viewer.scene.camera.zoom = max(viewer.scene.camera.zoom, _SEEN_PX / size)


def fit(viewer: ViewerModel, layers: Sequence[Layer]) -> None:
    """Let layers fill the canvas, or each its cell of the grid.

    Parameters
    ----------
    viewer : ViewerModel
    layers : sequence of Layer
        Some of the viewer's. napari's own way knows none that have fewer dimensions than the viewer.
    """
    if max(layer.ndim for layer in layers) == viewer.dims.ndim:
        viewer.fit_to_view(layers=layers)
        return
    if viewer.dims.ndisplay != 2 or viewer.dims.displayed != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        viewer.fit_to_view()
        return
    corners = []
    for layer in layers:
        first, last = np.asarray(layer.extent.data)[:, -2:]
        for pixel in itertools.product(*zip(first - 0.5, last + 0.5, strict=True)):  # a pixel reaches around its place
            position = np.concatenate([np.zeros(layer.ndim - 2), pixel])
            corners.append(_to_viewer(viewer, layer, np.asarray(layer.data_to_world(position)))[-2:])
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    viewer.scene.camera.center = tuple((low + high) / 2)
    room = np.asarray(viewer.canvas.viewbox_size(viewer.layers)) * _FILLED
    if np.all(high > low):
        viewer.scene.camera.zoom = float(np.min(room / (high - low)))


def place(layer: Layer, offset_px: Sequence[int]) -> np.ndarray:
    """The `translate` that puts a cropped copy of a layer where its pixels were.

    Parameters
    ----------
    layer : Layer
    offset_px : sequence of int
        The pixel of the layer at which the copy begins, one number an axis; further ones (RGB samples) are ignored.

    Returns
    -------
    ndarray
        For a copy that keeps scale, rotate, shear and affine.
    """
    from napari.utils.transforms import Affine

    # napari: world = affine(rotate @ shear @ scale @ pixel + translate); the offset moves within the inner part
    physical = Affine(
        scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim
    )
    return np.asarray(physical(np.asarray(offset_px, float)[: layer.ndim]))


def _drawn_shapes(viewer: ViewerModel) -> Shapes:
    from napari.layers import Shapes

    active = viewer.layers.selection.active
    candidates = [active, *reversed(viewer.layers)]
    for candidate in candidates:
        if isinstance(candidate, Shapes) and len(candidate.data):
            return candidate
    raise ParameterError("No shape is drawn: add a shapes layer and draw a rectangle, or choose the whole stack.")


def _world_to_data(layer: Layer, point: Sequence[float] | np.ndarray, units: Sequence[Any] | None) -> np.ndarray:
    """A world position, in the units given, in pixels of the layer. napari aligns the last dimensions."""
    world = np.zeros(layer.ndim)
    count = min(layer.ndim, len(point))
    world[-count:] = np.asarray(point, float)[-count:]
    if units is not None:
        for axis in range(-1, -1 - min(count, len(units)), -1):
            if units[axis] != layer.units[axis] and units[axis].is_compatible_with(layer.units[axis]):
                world[axis] *= float((1 * units[axis]).to(layer.units[axis]).magnitude)
    return np.asarray(layer.world_to_data(world))


def _to_viewer(viewer: ViewerModel, layer: Layer, world: np.ndarray) -> np.ndarray:
    """A world position of a layer in the viewer's units, one number an axis of the layer."""
    world = np.array(world, float)
    units = viewer.dims.units
    if units is not None:
        for axis in range(-1, -1 - min(len(world), len(units)), -1):
            if units[axis] != layer.units[axis] and units[axis].is_compatible_with(layer.units[axis]):
                world[axis] *= float((1 * layer.units[axis]).to(units[axis]).magnitude)
    return world


def _covering_box(corners: Iterable[np.ndarray], layer: Image, y_axis: int) -> Box | None:
    """The pixels that the corners enclose (a pixel reaches half a step around its position), within the layer."""
    corners = np.stack(list(corners))
    size = np.array(full_resolution(layer).shape[y_axis : y_axis + 2])
    low = np.clip(np.floor(corners.min(axis=0) + 0.5), 0, size).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + 0.5), 0, size).astype(int)
    if np.any(high <= low):
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
