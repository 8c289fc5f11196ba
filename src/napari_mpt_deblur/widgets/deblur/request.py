"""What the user asked for, resolved into one frozen object that may cross to another thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets import geometry
from napari_mpt_deblur.widgets.reading import full_resolution, layer_axes, pixel_size_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


class Scope(StrEnum):
    """Which part of the layer a run restores."""

    STACK = "stack"
    PLANE = "plane"
    SHAPE = "shape"


@dataclass(frozen=True)
class Settings:
    """What the panel says at one moment; None and "auto" leave the choice to the program."""

    layer: Image | None
    model: str
    axes: str | None = None
    scope: Scope = Scope.STACK
    nucleus_diameter_px: float | None = None
    device: str = "auto"
    precision: str = "auto"
    tile_px: int | None = None


@dataclass(frozen=True)
class ImportRequest:
    """Weights of others, and what their model is to be; see `import_checkpoint`."""

    path: Path
    name: str
    intensities: Literal["full", "minmax", "percentiles"] | None = None
    clip: bool = True
    scales: tuple[str, ...] = ()  # of each stage, such as "1/8,1/4,1"; none for the paper's


@dataclass(frozen=True, eq=False)
class DeblurRequest:
    """One run: the pixels, what to restore of them and how. Nothing of napari or Qt is in it.

    Attributes
    ----------
    generation : int
        Grows with each run of a panel; the result of an older one is stale.
    source_name : str
    data : array
        The layer's pixels at full resolution; only read.
    axes : Axes
    pixel_size_um, nucleus_diameter_px : float or None
    model, device, precision : str
    tile_px : int or None
        None: the engine decides.
    plane_index : tuple of int or None
        Where along the leading axes the one plane lies; None: all planes.
    region_px : tuple of int or None
        (y0, x0, y1, x1); None: whole planes.
    """

    generation: int
    source_name: str
    data: Any
    axes: Axes
    pixel_size_um: float | None
    nucleus_diameter_px: float | None
    model: str
    device: str
    precision: str
    tile_px: int | None
    plane_index: tuple[int, ...] | None
    region_px: tuple[int, int, int, int] | None

    @property
    def offset_px(self) -> tuple[int, ...]:
        """Where the result begins in the source, one number for each axis of the array."""
        leading = self.plane_index or (0,) * len(self.axes.leading)
        y0, x0 = (self.region_px or (0, 0))[:2]
        return (*leading, y0, x0) + ((0,) if self.axes.has_samples else ())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result: as many dimensions as the source, so that it sits at its own plane only."""
        height_width = self.data.shape[len(self.axes.leading) : len(self.axes.leading) + 2]
        if self.region_px is not None:
            y0, x0, y1, x1 = self.region_px
            height_width = (y1 - y0, x1 - x0)
        leading = self.data.shape[: len(self.axes.leading)]
        if self.plane_index is not None:
            leading = (1,) * len(leading)
        return (*leading, *height_width) + (tuple(self.data.shape[-1:]) if self.axes.has_samples else ())


def make_request(viewer: ViewerModel, settings: Settings, generation: int, *, preview: bool) -> DeblurRequest:
    """Resolve the panel's settings and the viewer's state into a request.

    Parameters
    ----------
    viewer : ViewerModel
        Asked for the current plane, the part in view and drawn shapes.
    settings : Settings
    generation : int
    preview : bool
        Restore what is in view now, whatever the scope says.

    Returns
    -------
    DeblurRequest

    Raises
    ------
    ParameterError
        If there is no layer, or no shape is drawn on it.
    AxesError
        If the axes do not fit the layer.
    """
    layer = settings.layer
    if layer is None or layer not in viewer.layers:
        raise ParameterError("There is no image to deblur: open one, or choose its layer in the list 'Image'.")
    axes = layer_axes(layer, settings.axes)
    index = region = None
    if preview or settings.scope is Scope.PLANE:
        index = geometry.current_index(viewer, layer, axes)
    if preview:
        region = geometry.box_in_view(viewer, layer, axes)
    elif settings.scope is Scope.SHAPE:
        region = geometry.box_of_shape(viewer, layer, axes)
    return DeblurRequest(
        generation=generation,
        source_name=layer.name,
        data=full_resolution(layer),
        axes=axes,
        pixel_size_um=pixel_size_um(layer, axes),
        nucleus_diameter_px=settings.nucleus_diameter_px,
        model=settings.model,
        device=settings.device,
        precision=settings.precision,
        tile_px=settings.tile_px,
        plane_index=index,
        region_px=region,
    )
