"""Asks which weights of others to import, and as what."""

from __future__ import annotations

import re
from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QDialog, QDialogButtonBox, QFileDialog, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_mpt_deblur.widgets.deblur.request import ImportRequest
from napari_mpt_deblur.widgets.fields import Choice, Entry, form

_FILTER = "Weights (*.pth *.pt *.ckpt *.safetensors);;All files (*)"
_TIPS = {
    "name": "Of the model in the list: letters, digits, dots, dashes and underscores.",
    "intensities": "Which grey levels are 0 and 1 for the network. No file tells: use what it was trained with.",
    "clip": "Clip what the network makes of them to 0 and 1, as the authors of MPT do.",
    "scales": "Of a Multi-Pyramid Transformer whose local scales are not the paper's: those of the sub-blocks of its "
    "four stages, such as 1/8,1/4,1 1/4,1/2,1 1/2,1/2,1 1,1,1. No file tells.",
}
_INTENSITIES = (
    Entry(
        "Automatic",
        "",
        "As the authors of MPT do: the type's range for colours, else darkest to brightest",
    ),
    Entry("Range of the type (8 bits: 0 to 255)", "full"),
    Entry("Darkest to brightest pixel", "minmax"),
    Entry("Percentiles (1 to 99.8)", "percentiles"),
)


class ImportDialog(QDialog):
    """Name and grey levels of the model that a file becomes.

    Parameters
    ----------
    path : Path
    parent : QWidget
    """

    def __init__(self, path: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Import weights")
        self._path = path
        self.name = QLineEdit(suggested_name(path))
        self.name.setToolTip(_TIPS["name"])
        self.intensities = Choice(_TIPS["intensities"], _INTENSITIES)
        self.clip = QCheckBox("Clip the result to them")
        self.clip.setToolTip(_TIPS["clip"])
        self.clip.setChecked(True)
        self.scales = QLineEdit()
        self.scales.setPlaceholderText("the paper's")
        self.scales.setToolTip(_TIPS["scales"])
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(path.name))
        rows = (("Name", self.name), ("Grey levels", self.intensities), ("", self.clip), ("Scales", self.scales))
        layout.addLayout(form(*rows))
        layout.addWidget(buttons)

    @property
    def request(self) -> ImportRequest:
        """What was asked for."""
        return ImportRequest(
            self._path,
            self.name.text().strip(),
            self.intensities.chosen or None,
            self.clip.isChecked(),
            tuple(re.sub(r"\s*([,/])\s*", r"\1", self.scales.text()).split()),
        )


def suggested_name(path: Path) -> str:
    """A model's name made of a file's."""
    return re.sub(r"[^\w.-]+", "-", path.stem, flags=re.ASCII).strip("-._") or "imported"


def ask_for_import(parent: QWidget) -> ImportRequest | None:
    """Let the user choose a file, a name and grey levels; None if they would rather not."""
    path, _ = QFileDialog.getOpenFileName(parent, "Weights to import", filter=_FILTER)
    if not path:
        return None
    dialog = ImportDialog(Path(path), parent)
    return dialog.request if dialog.exec() == QDialog.DialogCode.Accepted else None
