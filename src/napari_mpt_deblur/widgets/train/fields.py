"""Fields of the Train panel: where images and pairs come from, how long to train, numbers of many sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_mpt_deblur.widgets.fields import Choice, Entry, button
from napari_mpt_deblur.widgets.train.settings import PairKind, PairsChoice

if TYPE_CHECKING:
    from napari.layers import Image

_NUMBER = re.compile(r"[0-9.]*(e[+-]?[0-9]*)?", re.IGNORECASE)
_KINDS = {
    PairKind.IMAGE: Entry("The image alone", PairKind.IMAGE),
    PairKind.PAIRS: Entry("Two layers or two folders", PairKind.PAIRS),
    PairKind.SHARP: Entry("Sharp images alone", PairKind.SHARP),
    PairKind.STACK: Entry("Focus stack", PairKind.STACK),
}
_EXPLAINED = {
    PairKind.IMAGE: "The image's sharpest regions are the sharp side; the blurred side is made of them by optics. "
    "Where nothing is sharp, the sharp side is what the model to start from makes of its sharpest regions; from "
    "scratch it is the image itself.",
    PairKind.PAIRS: "The same fields out of focus and in focus, of one size; in folders, files of the same name. They "
    "are registered first.",
    PairKind.SHARP: "Images in focus, of any fields; the blurred side is made of them by optics.",
    PairKind.STACK: "A stack along Z through focus; of each patch the plane that is sharpest there is the sharp side.",
}
_SHORT = 4  # characters that a list beside another field has room for at least
_LEAST_PX = 80  # of a number beside another field
_UNITS = (Entry("iterations", "iterations"), Entry("minutes", "minutes"))


class Scientific(QDoubleSpinBox):
    """A number of any size, written as 1e-05; the arrows go 1, 2, 5, 10.

    Parameters
    ----------
    tip : str
    maximum : float
    """

    def __init__(self, tip: str, maximum: float) -> None:
        super().__init__()
        self.setDecimals(12)
        self.setRange(0, maximum)
        self.setKeyboardTracking(False)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(tip)

    def textFromValue(self, value: float) -> str:
        return f"{value:.4g}"

    def valueFromText(self, text: str | None) -> float:
        try:
            return float(text or "")
        except ValueError:
            return self.value()

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        text = text or ""
        try:
            fits = 0 <= float(text) <= self.maximum()
        except ValueError:
            known = _NUMBER.fullmatch(text) is not None
            return (QValidator.State.Intermediate if known else QValidator.State.Invalid), text, position
        return (QValidator.State.Acceptable if fits else QValidator.State.Invalid), text, position

    def stepBy(self, steps: int) -> None:
        value = self.value() or 1e-7
        for _ in range(abs(steps)):
            power = 10.0 ** math.floor(math.log10(value) + 1e-9)
            first = value / power
            if steps > 0:
                value = power * (2 if first < 1.9 else 5 if first < 4.9 else 10)
            else:
                value = power * (0.5 if first < 1.1 else 1 if first < 2.1 else 2 if first < 5.1 else 5)
        self.setValue(value)


class Budget(QWidget):
    """How long to train: iterations or minutes.

    Parameters
    ----------
    tip : str
    """

    changed = Signal()

    def __init__(self, tip: str) -> None:
        super().__init__()
        self._boxes = {"iterations": QSpinBox(), "minutes": QSpinBox()}
        self._unit = Choice(tip, _UNITS)
        self._unit.setMinimumContentsLength(_SHORT)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, box in self._boxes.items():
            box.setRange(1, 1_000_000 if name == "iterations" else 100_000)
            box.setSingleStep(100 if name == "iterations" else 5)
            box.setKeyboardTracking(False)
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            box.setMinimumWidth(_LEAST_PX)
            box.setToolTip(tip)
            box.valueChanged.connect(self.changed)
            layout.addWidget(box, 3)
        layout.addWidget(self._unit, 4)
        self._boxes["minutes"].setValue(10)
        self._unit.currentIndexChanged.connect(self._show_unit)
        self.setToolTip(tip)
        self._show_unit()

    @property
    def iterations(self) -> int:
        """What is said or, where minutes are, was said last."""
        return self._boxes["iterations"].value()

    @property
    def minutes(self) -> float | None:
        """None where iterations are said."""
        return float(self._boxes["minutes"].value()) if self._unit.chosen == "minutes" else None

    def set_iterations(self, iterations: int) -> None:
        """Say them; the unit stays."""
        self._boxes["iterations"].setValue(iterations)

    def set_minutes(self, minutes: int) -> None:
        """Say them, instead of iterations."""
        self._boxes["minutes"].setValue(minutes)
        self._unit.setCurrentText("minutes")

    def _show_unit(self) -> None:
        for name, box in self._boxes.items():
            box.setVisible(name == self._unit.chosen)
        self.changed.emit()


class ImagesField(QWidget):
    """Images of one kind: a layer from the list, or a folder by the button.

    Parameters
    ----------
    tip : str
    first : Entry, optional
        Stands above the layers.
    """

    changed = Signal()

    def __init__(self, tip: str, first: Entry | None = None) -> None:
        super().__init__()
        self._first = [first] if first is not None else []
        self._layers: list[Entry] = []
        self._folders: list[Entry] = []
        self._touched = False  # by the user
        self._choice = Choice(tip, self._first)
        self._choice.setMinimumContentsLength(_SHORT)
        self._browse = button("Folder...", "Choose a folder of images (TIFF, PNG, JPEG, BMP).")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._choice, 1)
        layout.addWidget(self._browse)
        self.setToolTip(tip)
        self._choice.currentIndexChanged.connect(self._on_chosen)
        self._browse.clicked.connect(self._ask_for_folder)

    @property
    def chosen(self) -> Image | Path | None:
        """A layer, a folder, or None: nothing, or the value of the first entry, which is True."""
        chosen: Image | Path | bool | None = self._choice.chosen
        return None if isinstance(chosen, bool) else chosen

    def offer_layers(self, layers: Sequence[Entry], wish: Image | None = None) -> None:
        """Replace the layers; until the user chooses, the wish is chosen."""
        self._layers = list(layers)
        self._offer(None if self._touched else wish)

    def choose(self, images: Image | Path) -> None:
        """Choose a layer of the list, or any folder."""
        if isinstance(images, Path):
            entry = Entry(f"{images.name or images} (folder)", images, str(images))
            if entry not in self._folders:
                self._folders.append(entry)
        self._offer(images)
        self._on_chosen()

    def _offer(self, chosen: Image | Path | None) -> None:
        self._choice.offer([*self._first, *self._layers, *self._folders], chosen)

    def _on_chosen(self) -> None:
        self._touched = True
        self.changed.emit()

    def _ask_for_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of images")
        if folder:
            self.choose(Path(folder))


class PairsField:
    """Rows of a form that say where pairs of blurred and sharp images come from.

    Parameters
    ----------
    title, tip : str
    kinds : sequence of PairKind
    """

    def __init__(self, title: str, tip: str, kinds: Sequence[PairKind]) -> None:
        self.kind = Choice(tip, [_KINDS[kind] for kind in kinds])
        self.blurred = ImagesField("The images out of focus.")
        self.sharp = ImagesField("The images in focus.")
        self.stack = ImagesField("The stack through focus.")
        self.explanation = QLabel()
        self.explanation.setWordWrap(True)
        self._title = title
        self._form: QFormLayout | None = None
        self._shown = True
        self.kind.currentIndexChanged.connect(self._show_fields)

    @property
    def fields(self) -> tuple[Choice | ImagesField, ...]:
        """All that can be changed."""
        return self.kind, self.blurred, self.sharp, self.stack

    @property
    def chosen(self) -> PairsChoice:
        """What the rows say."""
        kind = self.kind.chosen
        return PairsChoice(kind, tuple(field.chosen for field in self._used(kind)))

    def add_to(self, form: QFormLayout) -> None:
        """Append the rows."""
        self._form = form
        for text, field in (
            (self._title, self.kind),
            ("Blurred", self.blurred),
            ("Sharp", self.sharp),
            ("Stack", self.stack),
        ):
            label = QLabel(text)
            label.setToolTip(field.toolTip())
            label.setBuddy(field)
            form.addRow(label, field)
        form.addRow(self.explanation)
        self._show_fields()

    def offer_layers(self, layers: Sequence[Entry], image: Image | None) -> None:
        """Replace the layers: blurred and stack are the image until the user says otherwise, sharp is another."""
        other = next((entry.value for entry in layers if entry.value is not image), None)
        for field, wish in ((self.blurred, image), (self.sharp, other), (self.stack, image)):
            field.offer_layers(layers, wish)

    def set_shown(self, shown: bool) -> None:
        """Show or hide all the rows."""
        self._shown = shown
        self._show_fields()

    def _used(self, kind: PairKind) -> tuple[ImagesField, ...]:
        return {
            PairKind.PAIRS: (self.blurred, self.sharp),
            PairKind.SHARP: (self.sharp,),
            PairKind.STACK: (self.stack,),
        }.get(kind, ())

    def _show_fields(self) -> None:
        kind = self.kind.chosen
        used = self._used(kind)
        self.explanation.setText(_EXPLAINED[kind])
        for field in self.fields:
            show_row(self._form, field, self._shown and (field is self.kind or field in used))
        self.explanation.setVisible(self._shown)


def show_row(form: QFormLayout | None, field: QWidget, shown: bool) -> None:
    """Show or hide a field of a form with its label."""
    field.setVisible(shown)
    label = form.labelForField(field) if form is not None else None
    if label is not None:
        label.setVisible(shown)
