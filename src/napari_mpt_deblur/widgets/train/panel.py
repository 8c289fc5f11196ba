"""The "Train" dock widget: what it shows and what it asks. What happens is the controller's business."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QInputDialog,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_mpt_deblur.widgets.fields import button, text_label
from napari_mpt_deblur.widgets.panel import Panel
from napari_mpt_deblur.widgets.train.controller import TrainController
from napari_mpt_deblur.widgets.train.curve_plot import CurvePlot
from napari_mpt_deblur.widgets.train.curves import Curves
from napari_mpt_deblur.widgets.train.form import TrainForm
from napari_mpt_deblur.widgets.train.job import TrainMachinery
from napari_mpt_deblur.widgets.train.settings import TrainSettings

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

_WARNING = "#d55e00"  # readable on dark and on light
_TIPS = {
    "go on": "Training with these settings on these images stopped before its end, or has ended. Without the tick it "
    "begins anew, and replaces what was learnt.",
    "train": "Begin, or go on where the run of the same settings stopped.",
    "pause": "Hold training after this step, or go on.",
    "stop": "Stop after this step and keep what was learnt.",
    "save": "Put the trained model into your model folder, with a card that says how it came about.",
    "side": "Show the plane before and after training beside each other; switch off to put the view back.",
}


class TrainWidget(Panel):
    """The panel.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    controller: TrainController

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.form = TrainForm()
        self._outlook, self._report = text_label(), text_label()
        self._go_on = QCheckBox()
        self._go_on.setToolTip(_TIPS["go on"])
        self._plot, self._tabs = CurvePlot(), QTabWidget()
        self._train, self._pause = button("Train", _TIPS["train"]), button("Pause", _TIPS["pause"])
        self._stop, self._save = button("Stop", _TIPS["stop"]), button("Save as...", _TIPS["save"])
        self._side_by_side = button("Side by side", _TIPS["side"])
        self._side_by_side.setCheckable(True)
        self._lay_out()
        self.show_outlook("", "")
        self.controller = self._controlled_by(TrainController, napari_viewer)
        self._connect(self.controller)
        self.controller.open()

    def show_page(self, title: str) -> None:
        """Turn to the page "Data", "Training" or "Progress"."""
        titles = [self._tabs.tabText(page) for page in range(self._tabs.count())]
        self._tabs.setCurrentIndex(titles.index(title))

    # -- what the controller asks and shows ------------------------------------------------------------------------

    def settings(self) -> TrainSettings:
        """What the panel says now."""
        return self.form.settings(go_on=self._go_on.isChecked())

    def show_layers(self, layers: Sequence[tuple[str, Image]], chosen: Image | None) -> None:
        """Fill the lists of images."""
        self.form.offer_layers(layers, chosen)

    def show_axes(self, automatic: str, choices: Sequence[tuple[str, str]], *, keep: bool) -> None:
        """Fill the list of readings, in words."""
        self.form.offer_axes(automatic, choices, keep=keep)

    def show_machinery(self, machinery: TrainMachinery) -> None:
        """Fill the lists of devices and models."""
        self.form.offer_machinery(machinery)

    def show_state(self, *, running: bool, cancelling: bool, can_start: bool) -> None:
        """Enable the button that starts."""
        self._train.setEnabled(can_start)

    def show_controls(self, *, can_pause: bool, paused: bool, can_stop: bool, can_save: bool) -> None:
        """Enable the buttons that mean something now."""
        self._pause.setEnabled(can_pause)
        self._pause.setText("Resume" if paused else "Pause")
        self._stop.setEnabled(can_stop)
        self._save.setEnabled(can_save)

    def show_outlook(self, text: str, earlier: str | None) -> None:
        """Say what a run would take, and which one there is to go on with: none if empty, as before if None."""
        self._outlook.setText(text)
        self._outlook.setVisible(bool(text))
        if earlier is None:
            return
        if not earlier:
            self._go_on.setChecked(True)
        self._go_on.setText(earlier)
        self._go_on.setVisible(bool(earlier))

    def show_curves(self, curves: Curves) -> None:
        """Draw the losses and validations of a run."""
        self._plot.show_curves(curves)

    def show_report(self, text: str, *, warning: str) -> None:
        """Say how a run went; a warning stands out."""
        bold = f'<b style="color:{_WARNING}">{html.escape(warning)}</b><br>' if warning else ""
        self._report.setText(f"{bold}{html.escape(text)}")

    def show_side_by_side(self, *, available: bool, on: bool) -> None:
        """Set the toggle, without a signal to the controller."""
        self._side_by_side.setEnabled(available)
        self._side_by_side.setChecked(on)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _connect(self, controller: TrainController) -> None:
        self.form.image_chosen.connect(controller.choose_layer)
        self.form.changed.connect(controller.estimate)
        self._go_on.clicked.connect(controller.estimate)
        self.form.base_opened.connect(controller.survey)  # models may have been added since
        self._train.clicked.connect(self._start)
        self._pause.clicked.connect(controller.toggle_pause)
        self._stop.clicked.connect(controller.stop)
        self._save.clicked.connect(self._ask_for_name)
        self._side_by_side.clicked.connect(controller.toggle_side_by_side)

    def _start(self) -> None:
        self.controller.train()
        if self.controller.is_running:
            self.show_page("Progress")

    def _ask_for_name(self) -> None:
        suggestion = self.controller.suggested_name
        name, confirmed = QInputDialog.getText(self, "Save model", "Name of the model:", text=suggestion)
        if confirmed and name.strip():
            self.controller.save(name.strip())

    def _lay_out(self) -> None:
        progress = QWidget()
        layout = QVBoxLayout(progress)
        layout.addWidget(self._plot, 1)
        layout.addWidget(self._report)
        for page, title in (
            (self.form.data_page, "Data"),
            (self.form.training_page, "Training"),
            (progress, "Progress"),
        ):
            self._tabs.addTab(page, title)
        layout = QVBoxLayout(self)
        layout.addWidget(self._tabs, 1)
        layout.addWidget(self._outlook)
        layout.addWidget(self._go_on)
        for actions in ((self._train, self._pause, self._stop), (self._save, self._side_by_side)):
            line = QHBoxLayout()
            for action in actions:
                line.addWidget(action)
            layout.addLayout(line)
        layout.addWidget(self._progress)
        layout.addWidget(self._status)
