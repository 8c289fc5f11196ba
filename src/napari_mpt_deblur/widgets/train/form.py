"""The settings of the Train panel: which images, which model, which method, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFormLayout, QFrame, QScrollArea, QSpinBox, QVBoxLayout, QWidget

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, ModelInfo
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.widgets.fields import Choice, Entry, form
from napari_mpt_deblur.widgets.train.fields import Budget, ImagesField, PairsField, Scientific, show_row
from napari_mpt_deblur.widgets.train.job import TrainMachinery
from napari_mpt_deblur.widgets.train.settings import PairKind, TrainSettings, recipe

if TYPE_CHECKING:
    from napari.layers import Image

SCRATCH = Entry("From scratch", "", "A compact network with random weights, which has learnt nothing: it takes hours.")
_LARGEST_PATCH_PX = 512
_METHODS = (
    Entry("EFCRex, unlabelled images", "efcrex", "L1 and contrast, Lext from the unlabelled images."),
    Entry("EFCRex, labelled extra data", "efcrex_labelled", "L1, and contrast from pairs of another kind."),
    Entry("EFCR", "efcr", "L1 and contrast, both from the pairs."),
    Entry("L1 alone", "pixel", "The mean absolute difference of the pairs, without contrast."),
)
_TIPS = {
    "image": "The layer that the model is trained for. Before and after are shown on it.",
    "axes": "What each dimension of the image means. Planes (Y, X) are trained on one by one.",
    "base": "The model that training begins with.",
    "method": "What is minimised: L1 alone, or with it the paper's contrast between bands of frequencies.",
    "pairs": "Where the network learns what is blurred and what is sharp.",
    "unlabelled": "Images of which there is no sharp side; the contrast learns from them, too.",
    "extra": "Pairs of another kind of images, from which the contrast is taken.",
    "budget": "How long to train. With minutes, the number of iterations is what there is time for.",
    "rate": "Learning rate of AdamW at its highest; lower it where validation gets worse.",
    "beta": "Weight of the contrast against L1.",
    "patch": "Side of the patches of an iteration.",
    "batch": "Patches of an iteration. More are steadier, and take more time and memory.",
    "device": "What computes. Only devices that this computer has are listed.",
}


class TrainForm(QObject):
    """Two pages of fields.

    Signals
    -------
    image_chosen
        By the user.
    changed
        Any setting, by the user.
    base_opened
        The list of models.
    """

    image_chosen = Signal()
    changed = Signal()
    base_opened = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[str, ModelInfo] = {}
        self.image, self.axes = Choice(_TIPS["image"]), Choice(_TIPS["axes"])
        self.base = Choice(_TIPS["base"], (Entry(DEFAULT_MODEL, DEFAULT_MODEL),))
        self.method = Choice(_TIPS["method"], _METHODS)
        self.pairs = PairsField("Pairs", _TIPS["pairs"], tuple(PairKind))
        self.unlabelled = ImagesField(_TIPS["unlabelled"], Entry("The image", True))
        self.extra = PairsField("Extra pairs", _TIPS["extra"], (PairKind.PAIRS, PairKind.SHARP, PairKind.STACK))
        self.budget, self.batch = Budget(_TIPS["budget"]), QSpinBox()
        self.rate, self.beta = Scientific(_TIPS["rate"], maximum=1.0), Scientific(_TIPS["beta"], maximum=1000.0)
        self.patch, self.device = Choice(_TIPS["patch"]), Choice(_TIPS["device"], (Entry("Automatic", "auto"),))
        self.batch.setRange(1, 64)
        self.batch.setToolTip(_TIPS["batch"])
        self._recipe = recipe(None, self.method.chosen)  # whose numbers the fields show until the user says others
        self.data_form = QFormLayout()
        self.data_page, self.training_page = _page(self._data_rows()), _page(self._training_rows())
        self._show_numbers(None)
        self._show_method()
        self._connect()

    def settings(self, *, go_on: bool) -> TrainSettings:
        """What the fields say now."""
        method = self.method.chosen
        return TrainSettings(
            layer=self.image.chosen,
            base=self._models.get(self.base.chosen),
            axes=self.axes.chosen or None,
            method=method,
            pairs=self.pairs.chosen,
            unlabelled=self.unlabelled.chosen,
            extra=self.extra.chosen if method == "efcrex_labelled" else None,
            iterations=self.budget.iterations,
            minutes=self.budget.minutes,
            learning_rate=self.rate.value(),
            beta=self.beta.value(),
            patch_px=self.patch.chosen,
            batch=self.batch.value(),
            device=self.device.chosen,
            go_on=go_on,
        )

    def choose_model(self, name: str) -> None:
        """Choose the model to start from by name, if it is in the list; "" is from scratch."""
        self.base.setCurrentIndex(self.base.findText(name or SCRATCH.text))

    def offer_layers(self, layers: Sequence[tuple[str, Image]], chosen: Image | None) -> None:
        """Fill the lists of images."""
        entries = [Entry(name, layer) for name, layer in layers]
        self.image.offer(entries, chosen)
        self.unlabelled.offer_layers(entries)
        for pairs in (self.pairs, self.extra):
            pairs.offer_layers(entries, chosen)

    def offer_axes(self, automatic: str, choices: Sequence[tuple[str, str]], *, keep: bool) -> None:
        """Fill the list of readings, in words."""
        first = Entry(f"{automatic} (auto)" if automatic else "Automatic", "")
        self.axes.offer([first, *(Entry(words, text) for words, text in choices)], chosen=None if keep else "")

    def offer_machinery(self, machinery: TrainMachinery) -> None:
        """Fill the lists of devices and models."""
        devices = [Entry(name, name) for name in machinery.devices]
        self.device.offer([Entry(f"Automatic ({machinery.default_device})", "auto"), *devices])
        self._models = {model.name: model for model in machinery.models if not model.problem}
        models = [
            Entry(f"{model.name} (cannot be used)", None, model.problem)
            if model.problem
            else Entry(model.name, model.name, model.description)
            for model in machinery.models
        ]
        self.base.offer([*models, SCRATCH])
        self._suggest()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _data_rows(self) -> QFormLayout:
        self.data_form = form(
            ("Image", self.image),
            ("Read as", self.axes),
            ("Start from", self.base),
            ("Method", self.method),
            ("Unlabelled", self.unlabelled),
        )
        self.pairs.add_to(self.data_form)
        self.extra.add_to(self.data_form)
        return self.data_form

    def _training_rows(self) -> QFormLayout:
        return form(
            ("Train for", self.budget),
            ("Learning rate", self.rate),
            ("Beta", self.beta),
            ("Patch", self.patch),
            ("Batch", self.batch),
            ("Device", self.device),
        )

    def _connect(self) -> None:
        self.image.currentIndexChanged.connect(self.image_chosen)
        self.base.opened.connect(self.base_opened)
        for choice in (self.base, self.method):
            choice.currentIndexChanged.connect(self._suggest)
        self.method.currentIndexChanged.connect(self._show_method)
        fields = (self.unlabelled, *self.pairs.fields, *self.extra.fields)
        signals = [field.currentIndexChanged if isinstance(field, Choice) else field.changed for field in fields]
        signals += [choice.currentIndexChanged for choice in (self.axes, self.base, self.method, self.patch)]
        signals += [box.valueChanged for box in (self.rate, self.beta, self.batch)]
        for signal in (*signals, self.device.currentIndexChanged, self.budget.changed):
            signal.connect(lambda *_: self.changed.emit())

    def _show_method(self) -> None:
        """Ask for the images that the method needs, and for no others."""
        method = self.method.chosen
        show_row(self.data_form, self.unlabelled, method == "efcrex")
        self.extra.set_shown(method == "efcrex_labelled")
        self.beta.setEnabled(method != "pixel")

    def _suggest(self) -> None:
        """Another model or method: its numbers, where the user has not said others."""
        shown, self._recipe = self._recipe, recipe(self._models.get(self.base.chosen), self.method.chosen)
        self._show_numbers(shown)

    def _show_numbers(self, shown: TrainingConfig | None) -> None:
        new = self._recipe
        if shown is None or self.budget.iterations == shown.iterations:
            self.budget.set_iterations(new.iterations)
        if shown is None or self.rate.value() == shown.learning_rate:
            self.rate.setValue(new.learning_rate)
        if shown is None or self.beta.value() == shown.contrast.beta:
            self.beta.setValue(new.contrast.beta)
        if shown is None or self.batch.value() == shown.batch[0]:
            self.batch.setValue(new.batch[0])
        step = new.network.size_multiple
        sides = range(step, max(_LARGEST_PATCH_PX, new.patch_px[0]) + 1, step)
        untouched = shown is None or self.patch.chosen == shown.patch_px[0] or self.patch.chosen not in sides
        patches = [Entry(f"{side} x {side} px", side) for side in sides]
        self.patch.offer(patches, new.patch_px[0] if untouched else None)


def _page(rows: QFormLayout) -> QScrollArea:
    """Rows that can be scrolled where the screen is small."""
    inside, area = QWidget(), QScrollArea()
    layout = QVBoxLayout(inside)
    layout.addLayout(rows)
    layout.addStretch()
    area.setWidget(inside)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    return area
