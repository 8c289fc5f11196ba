"""The "Deblur" dock widget: what it shows and what it asks. What happens is the controller's business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mpt_deblur.widgets.controller import DeblurController
from napari_mpt_deblur.widgets.job import Machinery
from napari_mpt_deblur.widgets.request import Scope, Settings
from napari_mpt_deblur.widgets.worker import run_in_thread

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

DEFAULT_MODEL = "nuclei"
_SCOPES = (
    ("Whole stack", Scope.STACK),
    ("Current plane", Scope.PLANE),
    ("Box around a drawn shape", Scope.SHAPE),
)
_PRECISIONS = (
    ("Automatic", "auto"),
    ("32 bit (exact)", "float32"),
    ("bfloat16 (fast)", "bfloat16"),
    ("16 bit (fast)", "float16"),
)
_TIPS = {
    "image": "The layer to deblur. It is never changed: the result is a new layer.",
    "axes": "What each dimension of the image means. Planes (Y, X) are restored one by one; brightness is measured "
    "over the whole stack, for each channel.",
    "scope": "What to restore. The box is that of the selected shapes, or of the shape drawn last, in all planes.",
    "model": "The trained network. Your own models appear here too.",
    "diameter": "Diameter of a typical nucleus in pixels, to bring the image to the model's scale. Automatic: from the "
    "pixel size or estimated from the image.",
    "device": "What computes. Only devices that this computer has are listed.",
    "precision": "Automatic: half precision where the device is good at it, 32 bit elsewhere.",
    "tile": "Side of the square tiles in pixels. Automatic fits the memory; choose a smaller one if it is full.",
    "preview": "Restore what is in view now, into one preview layer that the next preview replaces.",
    "deblur": "Restore the chosen part into a new layer just above its source.",
    "cancel": "Stop within one tile and leave the viewer as it was.",
    "side": "Show the image and its newest result beside each other; switch off to put the view back.",
}


class _Choice(QComboBox):
    """A list that does not grow the panel with its longest entry."""

    def __init__(self, tip: str, choices: Sequence[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(tip)
        self.offer(choices)

    def offer(self, choices: Sequence[tuple[str, Any]], chosen: Any = None) -> None:
        """Replace the entries; no signal. What was chosen stays chosen unless `chosen` says otherwise."""
        chosen = self.chosen if chosen is None else chosen
        blocked = self.blockSignals(True)
        self.clear()
        for row, (text, value) in enumerate(choices):
            self.addItem(text, value)
            self.setItemData(row, text, Qt.ItemDataRole.ToolTipRole)
            if value is chosen or (isinstance(value, str) and value == chosen):
                self.setCurrentIndex(row)
        self.blockSignals(blocked)

    @property
    def chosen(self) -> Any:
        return self.currentData()


class DeblurWidget(QWidget):
    """The panel.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._image = _Choice(_TIPS["image"])
        self._axes = _Choice(_TIPS["axes"])
        self._scope = _Choice(_TIPS["scope"], _SCOPES)
        self._model = _Choice(_TIPS["model"], ((DEFAULT_MODEL, DEFAULT_MODEL),))
        self._diameter = _number(_TIPS["diameter"], "px", maximum=2000, step=1)
        self._device = _Choice(_TIPS["device"], (("Automatic", "auto"),))
        self._precision = _Choice(_TIPS["precision"], _PRECISIONS)
        self._tile = _number(_TIPS["tile"], "px", maximum=8192, step=64)
        self._preview = _button("Preview", _TIPS["preview"])
        self._deblur = _button("Deblur", _TIPS["deblur"])
        self._cancel = _button("Cancel", _TIPS["cancel"])
        self._side_by_side = _button("Side by side", _TIPS["side"])
        self._side_by_side.setCheckable(True)
        self._progress = QProgressBar()
        self._progress.setTextVisible(False)
        self._status = QLabel()
        self._status.setWordWrap(True)
        self._lay_out()

        # napari hands plugins a proxy that makes a new object at each access; layers are compared by identity here
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._controller = controller = DeblurController(viewer, self, run_in_thread, _show_error)
        self._image.currentIndexChanged.connect(controller.choose_layer)
        self._preview.clicked.connect(controller.preview)
        self._deblur.clicked.connect(controller.deblur)
        self._cancel.clicked.connect(controller.cancel)
        self._side_by_side.clicked.connect(controller.toggle_side_by_side)
        self.destroyed.connect(controller.close)
        self.show_progress(None, "")
        controller.open()

    # -- what the controller asks and shows ------------------------------------------------------------------------

    def settings(self) -> Settings:
        """What the panel says now."""
        return Settings(
            layer=self._image.chosen,
            model=self._model.chosen,
            axes=self._axes.chosen or None,
            scope=Scope(self._scope.chosen),  # Qt hands back a plain string
            nucleus_diameter_px=float(self._diameter.value()) or None,
            device=self._device.chosen,
            precision=self._precision.chosen,
            tile_px=self._tile.value() or None,
        )

    def show_layers(self, layers: Sequence[tuple[str, Image]], chosen: Image | None) -> None:
        self._image.offer(layers, chosen)

    def show_axes(self, automatic: str, choices: Sequence[tuple[str, str]], *, keep: bool) -> None:
        first = f"Automatic ({automatic})" if automatic else "Automatic"
        self._axes.offer([(first, ""), *choices], chosen=None if keep else "")

    def show_machinery(self, machinery: Machinery) -> None:
        devices = [(name, name) for name in machinery.devices]
        self._device.offer([(f"Automatic ({machinery.default_device})", "auto"), *devices])
        models = [(model.name, model.name) for model in machinery.models]
        if models:
            self._model.offer(models)

    def show_state(self, *, running: bool, cancelling: bool, can_start: bool) -> None:
        self._preview.setEnabled(can_start)
        self._deblur.setEnabled(can_start)
        self._cancel.setEnabled(running and not cancelling)

    def show_progress(self, fraction: float | None, text: str) -> None:
        busy = bool(text) and fraction is None
        self._progress.setRange(0, 0 if busy else 1000)
        if not busy:
            self._progress.setValue(round(1000 * (fraction or 0)))
        if text:
            self._status.setText(text)

    def show_message(self, text: str) -> None:
        self._status.setText(text)

    def show_side_by_side(self, *, available: bool, on: bool) -> None:
        self._side_by_side.setEnabled(available)
        self._side_by_side.setChecked(on)

    # -- layout ----------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        what = _form(
            ("Image", self._image),
            ("Read as", self._axes),
            ("Restore", self._scope),
            ("Model", self._model),
            ("Nucleus", self._diameter),
        )
        how = QGroupBox("Computing")
        how.setLayout(_form(("Device", self._device), ("Precision", self._precision), ("Tile", self._tile)))
        actions = QHBoxLayout()
        for button in (self._preview, self._deblur, self._cancel):
            actions.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addLayout(what)
        layout.addWidget(how)
        layout.addLayout(actions)
        layout.addWidget(self._side_by_side)
        layout.addWidget(self._progress)
        layout.addWidget(self._status)
        layout.addStretch()


def _form(*rows: tuple[str, QWidget]) -> QFormLayout:
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    for text, field in rows:
        label = QLabel(text)
        label.setToolTip(field.toolTip())
        label.setBuddy(field)
        form.addRow(label, field)
    return form


def _number(tip: str, unit: str, *, maximum: int, step: int) -> QSpinBox:
    box = QSpinBox()
    box.setRange(0, maximum)
    box.setSingleStep(step)
    box.setSuffix(f" {unit}")
    box.setSpecialValueText("Automatic")  # shown for 0
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.setToolTip(tip)
    return box


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _show_error(message: str) -> None:
    from napari.utils.notifications import show_error

    show_error(message)
