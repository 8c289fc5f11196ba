"""What the panels share: how far a run is and how it ended, and a controller that lives while the dock is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from qtpy.QtCore import QEvent, QSize
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_mpt_deblur.widgets.fields import show_error, text_label
from napari_mpt_deblur.widgets.run_controller import RunController
from napari_mpt_deblur.widgets.worker import run_in_thread

if TYPE_CHECKING:
    from napari.viewer import Viewer

ControllerT = TypeVar("ControllerT", bound=RunController[Any])


class Panel(QWidget):
    """A dock widget without its settings, which its subclasses lay out.

    Attributes
    ----------
    controller : RunController
        What happens.
    """

    controller: RunController[Any]
    _width_px: ClassVar[int] = 360

    def __init__(self) -> None:
        super().__init__()
        self._progress, self._status = QProgressBar(), text_label()
        self._progress.setTextVisible(False)

    def _controlled_by(self, controller: Callable[..., ControllerT], napari_viewer: Viewer) -> ControllerT:
        """A controller of this panel; called when all that it shows is there."""
        self.show_progress(None, "")
        # napari hands plugins a proxy that makes a new object at each access; layers are compared by identity here
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        made = controller(viewer, self, run_in_thread, show_error)
        self.destroyed.connect(made.close)
        return made

    # -- what the controller shows ---------------------------------------------------------------------------------

    def show_progress(self, fraction: float | None, text: str) -> None:
        """Show how far a run is: None for not known; an empty text ends it."""
        self._progress.setVisible(bool(text))
        if text:
            self._status.setText(text)  # before the bar, which paints at once all that waits for it
            self._progress.setRange(0, 1000 if fraction is not None else 0)
            self._progress.setValue(round(1000 * (fraction or 0)))

    def show_message(self, text: str) -> None:
        """Say how a run ended, or what was saved."""
        self._status.setText(text)

    # -- inside ----------------------------------------------------------------------------------------------------

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the dock: napari takes the panel out of its parent when the dock is closed."""
        super().changeEvent(event)
        if event is None or event.type() != QEvent.Type.ParentChange:
            return
        if self.parent() is None:
            self.controller.leave()
        else:
            self.controller.open()

    def sizeHint(self) -> QSize:
        """Wide enough for its texts; it can be made narrower."""
        return super().sizeHint().expandedTo(QSize(self._width_px, 0))
