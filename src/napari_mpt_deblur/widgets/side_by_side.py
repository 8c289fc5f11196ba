"""Source and result beside each other in napari's grid, and the view put back afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.widgets.geometry import fit

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_GRID = ("enabled", "stride", "shape", "spacing")
_GAP_PX = 4
_CAMERA = ("center", "zoom", "angles")


@dataclass(frozen=True, eq=False)
class _Before:
    """The view as it was."""

    grid: dict[str, Any]
    camera: dict[str, Any]
    visible: dict[Layer, bool]


class SideBySide:
    """Shows two layers in napari's grid.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._before: _Before | None = None
        self.layers: tuple[Layer, ...] = ()

    @property
    def is_on(self) -> bool:
        return self._before is not None

    def show(self, left: Layer, right: Layer) -> None:
        """Show two layers alone, each in a cell of its own, the lower one in the layer list on the left.

        Parameters
        ----------
        left, right : Layer
            Both in the viewer. Already shown ones are replaced; the view to go back to stays the first.
        """
        before = self._before or self._remember()
        for layer in self._viewer.layers:
            before.visible.setdefault(layer, layer.visible)
            layer.visible = layer in (left, right)
        self._before = before
        self.layers = (left, right)
        grid = self._viewer.canvas.grid
        grid.stride = 1
        grid.shape = (1, -1)  # one row, as many columns as layers are visible
        grid.spacing = _GAP_PX
        grid.enabled = True
        fit(self._viewer, (left, right))

    def restore(self) -> None:
        """Put the view back: grid, camera, and which layers were visible. Layers that are gone are left out."""
        before, self._before, self.layers = self._before, None, ()
        if before is None:
            return
        for name in _GRID:
            setattr(self._viewer.canvas.grid, name, before.grid[name])
        for layer, visible in before.visible.items():
            if layer in self._viewer.layers:
                layer.visible = visible
        for name in _CAMERA:
            setattr(self._viewer.scene.camera, name, before.camera[name])

    def _remember(self) -> _Before:
        grid, camera = self._viewer.canvas.grid, self._viewer.scene.camera
        return _Before(
            grid={name: getattr(grid, name) for name in _GRID},
            camera={name: getattr(camera, name) for name in _CAMERA},
            visible={layer: layer.visible for layer in self._viewer.layers},
        )
