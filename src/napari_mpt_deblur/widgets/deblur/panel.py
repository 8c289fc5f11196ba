"""The "Deblur" dock widget: what it shows and what it asks. What happens is the controller's business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QVBoxLayout

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL
from napari_mpt_deblur.widgets.deblur.controller import DeblurController
from napari_mpt_deblur.widgets.deblur.import_dialog import ask_for_import
from napari_mpt_deblur.widgets.deblur.job import Machinery
from napari_mpt_deblur.widgets.deblur.request import Scope, Settings
from napari_mpt_deblur.widgets.fields import Choice, Entry, beside, button, form, number, text_label
from napari_mpt_deblur.widgets.panel import Panel

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

_SMALL_PX = 28  # of a button that is a sign
_AUTOMATIC = Entry("Automatic", "auto")
_SCOPES = (
    Entry("Whole stack", Scope.STACK),
    Entry("Current plane", Scope.PLANE),
    Entry("Box around a drawn shape", Scope.SHAPE),
)
_TIPS = {
    "image": "The layer to deblur. It is never changed: the result is a new layer.",
    "axes": "What each dimension of the image means. Planes (Y, X) are restored one by one; brightness is measured "
    "over the whole stack, for each channel.",
    "scope": "What to restore. The box is that of the selected shapes, or of the shape drawn last, in all planes.",
    "model": "The trained network. Your own models appear here too.",
    "import": "Import: add weights that others published: of MPT's authors, or (extra spandrel) of other networks.",
    "diameter": "Diameter of a typical nucleus in pixels. Give it where nuclei are larger than the model knows: "
    "it then works on a reduced copy, and your image keeps its fine detail. Automatic: at the image's own scale.",
    "device": "What computes. Only devices that this computer has are listed.",
    "precision": "Automatic: half precision where the device is good at it, 32 bit elsewhere.",
    "tile": "Side of the square tiles in pixels. Automatic fits the memory; choose a smaller one if it is full.",
    "preview": "Restore what is in view now, into one preview layer that the next preview replaces.",
    "deblur": "Restore the chosen part into a new layer just above its source.",
    "cancel": "Stop within one tile and leave the viewer as it was.",
    "side": "Show the image and its newest result beside each other; switch off to put the view back.",
}


class DeblurWidget(Panel):
    """The panel.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    controller: DeblurController
    _width_px = 340

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._image = Choice(_TIPS["image"])
        self._axes = Choice(_TIPS["axes"])
        self._scope = Choice(_TIPS["scope"], _SCOPES)
        self._model = Choice(_TIPS["model"], (Entry(DEFAULT_MODEL, DEFAULT_MODEL),))
        self._diameter = number(_TIPS["diameter"], "px", maximum=2000, step=1)
        self._device = Choice(_TIPS["device"], (_AUTOMATIC,))
        self._precision = Choice(_TIPS["precision"], (_AUTOMATIC,))
        self._precisions: dict[str, tuple[str, ...]] = {}  # by device
        self._tile = number(_TIPS["tile"], "px", maximum=8192, step=64)
        self._import = button("+", _TIPS["import"])
        self._import.setFixedWidth(_SMALL_PX)
        self._preview = button("Preview", _TIPS["preview"])
        self._deblur = button("Deblur", _TIPS["deblur"])
        self._cancel = button("Cancel", _TIPS["cancel"])
        self._side_by_side = button("Side by side", _TIPS["side"])
        self._side_by_side.setCheckable(True)
        self._outlook = text_label()
        self._lay_out()
        self.controller = self._controlled_by(DeblurController, napari_viewer)
        self._connect(self.controller)
        self.controller.open()

    def choose_model(self, name: str) -> None:
        """Choose a model by name, if it is in the list."""
        self._model.setCurrentText(name)

    # -- what the controller asks and shows ------------------------------------------------------------------------

    def settings(self) -> Settings:
        """What the panel says now."""
        return Settings(
            layer=self._image.chosen,
            model=self._model.chosen,
            axes=self._axes.chosen or None,
            scope=self._scope.chosen,
            nucleus_diameter_px=float(self._diameter.value()) or None,
            device=self._device.chosen,
            precision=self._precision.chosen,
            tile_px=self._tile.value() or None,
        )

    def show_layers(self, layers: Sequence[tuple[str, Image]], chosen: Image | None) -> None:
        """Fill the list of images."""
        self._image.offer([Entry(name, layer) for name, layer in layers], chosen)

    def show_axes(self, automatic: str, choices: Sequence[tuple[str, str]], *, keep: bool) -> None:
        """Fill the list of readings, in words."""
        first = Entry(f"{automatic} (auto)" if automatic else "Automatic", "")
        self._axes.offer([first, *(Entry(words, text) for words, text in choices)], chosen=None if keep else "")

    def show_machinery(self, machinery: Machinery) -> None:
        """Fill the lists of devices, precisions and models."""
        self._precisions = machinery.precisions
        devices = [Entry(name, name) for name in machinery.precisions if name != "auto"]
        self._device.offer([Entry(f"Automatic ({machinery.default_device})", "auto"), *devices])
        self._offer_precisions()
        models = [
            Entry(f"{model.name} (cannot be used)", None, model.problem)
            if model.problem
            else Entry(model.name, model.name, model.description)
            for model in machinery.models
        ]
        if not any(entry.value for entry in models):  # starting a run then says what to do
            models.insert(0, Entry(DEFAULT_MODEL, DEFAULT_MODEL))
        self._model.offer(models)

    def show_outlook(self, text: str) -> None:
        """Say what a run would take."""
        self._outlook.setText(text)

    def show_state(self, *, running: bool, cancelling: bool, can_start: bool) -> None:
        """Enable the buttons that mean something now."""
        self._preview.setEnabled(can_start)
        self._deblur.setEnabled(can_start)
        self._cancel.setEnabled(running and not cancelling)

    def show_side_by_side(self, *, available: bool, on: bool) -> None:
        """Set the toggle, without a signal to the controller."""
        self._side_by_side.setEnabled(available)
        self._side_by_side.setChecked(on)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _connect(self, controller: DeblurController) -> None:
        self._image.currentIndexChanged.connect(controller.choose_layer)
        self._device.currentIndexChanged.connect(self._offer_precisions)
        self._model.opened.connect(controller.survey)  # models may have been added since
        for choice in (self._axes, self._scope, self._model, self._device, self._precision):
            choice.currentIndexChanged.connect(controller.estimate)
        for size in (self._diameter, self._tile):
            size.valueChanged.connect(controller.estimate)
        self._import.clicked.connect(self._ask_for_import)
        self._preview.clicked.connect(controller.preview)
        self._deblur.clicked.connect(controller.deblur)
        self._cancel.clicked.connect(controller.cancel)
        self._side_by_side.clicked.connect(controller.toggle_side_by_side)

    def _ask_for_import(self) -> None:
        request = ask_for_import(self)
        if request is not None:
            self.controller.import_model(request)

    def _offer_precisions(self) -> None:
        offered = self._precisions.get(self._device.chosen, ())
        self._precision.offer([_AUTOMATIC, *(Entry(name, name) for name in offered)])

    def _lay_out(self) -> None:
        computing = QGroupBox("Computing")
        computing.setLayout(form(("Device", self._device), ("Precision", self._precision), ("Tile size", self._tile)))
        actions = QHBoxLayout()
        for action in (self._preview, self._deblur, self._cancel):
            actions.addWidget(action)
        layout = QVBoxLayout(self)
        layout.addLayout(
            form(
                ("Image", self._image),
                ("Read as", self._axes),
                ("Restore", self._scope),
                ("Model", beside(self._model, self._import)),
                ("Nucleus size", self._diameter),
            )
        )
        layout.addWidget(computing)
        layout.addWidget(self._outlook)
        layout.addLayout(actions)
        for widget in (self._side_by_side, self._progress, self._status):
            layout.addWidget(widget)
        layout.addStretch()
