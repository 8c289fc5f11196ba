"""The "Detect nuclei" dock widget: what it shows and what it asks. What happens is the controller's business."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_mpt_deblur.detection.library import DEFAULT_DETECTOR
from napari_mpt_deblur.widgets.detect.ap_plot import PrecisionPlot
from napari_mpt_deblur.widgets.detect.comparison_table import ComparisonTable
from napari_mpt_deblur.widgets.detect.controller import DetectController, Export
from napari_mpt_deblur.widgets.detect.ledger_table import LedgerTable
from napari_mpt_deblur.widgets.detect.outcome import DetectMachinery, Outcome
from napari_mpt_deblur.widgets.detect.request import DetectSettings, Planes, TruthChoice, TruthKind
from napari_mpt_deblur.widgets.detect.result import FATE_COLOURS, shown_fate
from napari_mpt_deblur.widgets.fields import Choice, Entry, button, decimal, form, number, row, text_label
from napari_mpt_deblur.widgets.panel import Panel

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_mpt_deblur.detection import DetectorInfo
    from napari_mpt_deblur.detection.ledger import Nucleus

_NO_IMAGE = Entry("None: one image alone", "")
_PLANES = (Entry("All planes", Planes.ALL), Entry("Current plane", Planes.CURRENT))
_POOLING = (Entry("All planes pooled", True), Entry("Mean of the planes", False))
_TRUTHS = (
    Entry("None", TruthChoice()),
    Entry("Pseudo-reference: sharpest plane of the stack", TruthChoice(TruthKind.SHARPEST_PLANE)),
)
_TRUTH_WORDS = {TruthKind.LABELS: "Truth", TruthKind.SHARP_IMAGE: "Reference"}
_EVERY_FATE = Entry("All nuclei", "")
_NOT_FOR_MEASURING = (
    "All intensities are measured on the image before, as recorded: restored intensities are for finding nuclei, not "
    "for measuring them."
)
_TIPS = {
    "before": "The image as recorded. Intensities and evidence are measured on it.",
    "after": "The restored image, to compare with. With none, nuclei are found in the image before alone.",
    "model": "The StarDist model. One of StarDist's published models is fetched when it is first used.",
    "folder": "A model folder that StarDist wrote: config.json, weights_best.h5 and thresholds.json.",
    "percentiles": "Per cent, of each plane: the grey levels that become 0 and 1 for the model.",
    "prob": "Least probability of a nucleus.",
    "nms": "Overlap from which the less likely of two nuclei is dropped.",
    "diameter": "Diameter of a typical nucleus in pixels: the image is brought to the scale that the model knows, and "
    "the labels come back in the image's own. Automatic: by the layer's pixel size where that is far from the model's, "
    "else at the image's own scale.",
    "planes": "Where to detect. Every plane is an image of its own.",
    "truth": "What both are held to. Labels are the truth; in a sharp image (reference) or the sharpest plane of the "
    "stack (pseudo-reference) nuclei are detected with the same model. One plane serves all planes of a stack.",
    "pooling": "Average precision of a stack: of the nuclei of all planes together, or the mean of the planes' own.",
    "device": "What computes. Only devices that this computer has are listed.",
    "detect": "Find the nuclei, and add them as labels above their images.",
    "cancel": "Stop within one tile and leave the viewer as it was.",
    "by fate": "Colour the labels by what became of the nuclei; switch off for napari's own colours.",
    "show": "Which nuclei the table shows.",
}
_SAVES = {
    Export.TABLE: ("Save table...", "Average precision and counts at every threshold, as CSV.", "CSV (*.csv)"),
    Export.PLOT: ("Save plot...", "The plot, as PNG.", "PNG (*.png)"),
    Export.FIGURES: ("Save figures...", "All figures and what reproduces them, as JSON.", "JSON (*.json)"),
    Export.LEDGER: ("Save ledger...", "A row a nucleus, as CSV.", "CSV (*.csv)"),
}


class DetectWidget(Panel):
    """The panel.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    controller: DetectController

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._before = Choice(_TIPS["before"])
        self._after = Choice(_TIPS["after"], (_NO_IMAGE,))
        self._model = Choice(_TIPS["model"], (Entry(DEFAULT_DETECTOR, DEFAULT_DETECTOR),))
        self._models: tuple[Entry, ...] = ()
        self._folders: list[Entry] = []  # that the user chose
        self._load = button("Load from folder...", _TIPS["folder"])
        self._low = decimal(_TIPS["percentiles"], maximum=100, step=0.5, decimals=2)
        self._high = decimal(_TIPS["percentiles"], maximum=100, step=0.1, decimals=2)
        self._prob = decimal(_TIPS["prob"], maximum=0.99, step=0.05, decimals=2, at_0="The model's own")
        self._nms = decimal(_TIPS["nms"], maximum=0.99, step=0.05, decimals=2, at_0="The model's own")
        self._diameter = number(_TIPS["diameter"], "px", maximum=2000, step=1)
        self._planes = Choice(_TIPS["planes"], _PLANES)
        self._truth = Choice(_TIPS["truth"], _TRUTHS)
        self._pooling = Choice(_TIPS["pooling"], _POOLING)
        self._device = Choice(_TIPS["device"], (Entry("Automatic", "auto"),))
        self._detect = button("Detect", _TIPS["detect"])
        self._cancel = button("Cancel", _TIPS["cancel"])
        self._table, self._plot, self._notes = ComparisonTable(), PrecisionPlot(), text_label()
        self._plot.show_comparison(None)
        self._by_fate = QCheckBox("Colour by fate")
        self._by_fate.setToolTip(_TIPS["by fate"])
        self._by_fate.setChecked(True)
        self._show = Choice(_TIPS["show"], (_EVERY_FATE,))
        self._totals, self._ledger = text_label(), LedgerTable()
        self._saves = {what: button(text, tip) for what, (text, tip, _) in _SAVES.items()}
        self._outcome: Outcome | None = None
        self._tabs = QTabWidget()
        self._low.setValue(1.0)
        self._high.setValue(99.8)
        self._lay_out()
        self._show_saves()
        self.controller = self._controlled_by(DetectController, napari_viewer)
        self._connect(self.controller)
        self.controller.open()

    def choose_folder(self, folder: str | Path) -> None:
        """Choose a model folder that StarDist wrote."""
        path = Path(folder)
        entry = Entry(path.name, path, str(path))
        if entry not in self._folders:
            self._folders.append(entry)
        self._model.offer([*self._models, *self._folders], chosen=path)

    # -- what the controller asks and shows ------------------------------------------------------------------------

    def settings(self) -> DetectSettings:
        """What the panel says now."""
        return DetectSettings(
            before=self._before.chosen,
            after=self._after.chosen or None,
            model=self._model.chosen,
            truth=self._truth.chosen,
            planes=self._planes.chosen,
            pooled=self._pooling.chosen,
            percentiles=(self._low.value(), self._high.value()),
            prob=self._prob.value() or None,
            nms=self._nms.value() or None,
            nucleus_diameter_px=float(self._diameter.value()) or None,
            device=self._device.chosen,
        )

    def show_layers(
        self,
        images: Sequence[tuple[str, Image]],
        truths: Sequence[tuple[str, TruthChoice]],
        before: Image | None,
        after: Image | None,
    ) -> None:
        """Fill the lists of images and of truths."""
        entries = [Entry(name, layer) for name, layer in images]
        self._before.offer(entries, before)
        self._after.offer([_NO_IMAGE, *entries], after or "")
        choices = [Entry(f"{_TRUTH_WORDS[choice.kind]}: {name}", choice) for name, choice in truths]
        self._truth.offer([*_TRUTHS, *choices])
        self._enable_truth()

    def show_machinery(self, machinery: DetectMachinery) -> None:
        """Fill the lists of devices and models."""
        devices = [Entry(name, name) for name in machinery.devices]
        self._device.offer([Entry(f"Automatic ({machinery.default_device})", "auto"), *devices])
        self._models = tuple(_model_entry(info) for info in machinery.models)
        if not any(entry.value for entry in self._models):  # starting a run then says what to do
            self._models = (Entry(DEFAULT_DETECTOR, DEFAULT_DETECTOR), *self._models)
        self._model.offer([*self._models, *self._folders])

    def show_state(self, *, running: bool, cancelling: bool, can_start: bool) -> None:
        """Enable the buttons that mean something now."""
        self._detect.setEnabled(can_start)
        self._cancel.setEnabled(running and not cancelling)

    def show_outcome(self, outcome: Outcome) -> None:
        """Show the figures and the ledger of a run."""
        self._outcome = outcome
        comparison = outcome.comparison
        self._table.show_comparison(comparison)
        self._plot.show_comparison(comparison)
        if comparison is None:
            self._notes.setText(f"{outcome.before.count} nuclei. Choose an image after to compare with.")
        else:
            how = "nuclei of all planes pooled" if comparison.pooled else "mean of the planes"
            first = [f"Average precision against the {comparison.truth}, {how}."] if comparison.curve else []
            self._notes.setText(" ".join([*first, *comparison.notes]))
        self._show_totals()
        self._show_saves()
        if comparison is not None:
            self._tabs.setCurrentIndex(1 if comparison.curve else 2)

    def plot_png(self) -> bytes:
        """The plot as a picture."""
        return self._plot.png()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _connect(self, controller: DetectController) -> None:
        self._before.currentIndexChanged.connect(controller.choose_layers)
        self._after.currentIndexChanged.connect(controller.choose_layers)
        self._after.currentIndexChanged.connect(self._enable_truth)
        self._model.opened.connect(controller.survey)  # models may have been added since
        self._load.clicked.connect(self._ask_for_folder)
        self._detect.clicked.connect(controller.detect)
        self._cancel.clicked.connect(controller.cancel)
        self._by_fate.toggled.connect(controller.colour_by_fate)
        self._show.currentIndexChanged.connect(self._show_ledger)
        self._ledger.chosen.connect(controller.go_to)
        for what, save in self._saves.items():
            save.clicked.connect(lambda _=False, what=what: self._ask_where(what))

    def _enable_truth(self) -> None:
        """An image alone is compared with nothing."""
        compares = bool(self._after.chosen)
        self._truth.setEnabled(compares)
        self._pooling.setEnabled(compares)

    def _show_totals(self) -> None:
        """How many nuclei there are of each fate, in its colour; and so the list of fates."""
        comparison = self._outcome and self._outcome.comparison
        lines, fates = [], set()
        if comparison:
            for side in ("before", "after"):
                nuclei = getattr(comparison.ledger, side)
                found = [shown_fate(nucleus) for nucleus in nuclei]
                fates |= set(found)
                counts = (
                    f'<span style="color:{colour}">&#9632;</span>&nbsp;{found.count(fate)}&nbsp;{fate}'
                    for fate, colour in FATE_COLOURS.items()
                    if fate in found
                )
                lines.append(f"{side.capitalize()}, {len(nuclei)}: {', '.join(counts)}")
        self._totals.setText("<br>".join(lines))
        self._ledger.show_columns(self._nuclei())
        self._show.offer([_EVERY_FATE, *(Entry(fate.capitalize(), fate) for fate in FATE_COLOURS if fate in fates)])
        self._show_ledger()

    def _show_ledger(self) -> None:
        wanted = self._show.chosen
        self._ledger.show_nuclei([nucleus for nucleus in self._nuclei() if not wanted or shown_fate(nucleus) == wanted])

    def _nuclei(self) -> tuple[Nucleus, ...]:
        comparison = self._outcome and self._outcome.comparison
        return (*comparison.ledger.before, *comparison.ledger.after) if comparison else ()

    def _show_saves(self) -> None:
        comparison = self._outcome and self._outcome.comparison
        has_curve = bool(comparison and comparison.curve)
        self._saves[Export.TABLE].setEnabled(has_curve)
        self._saves[Export.PLOT].setEnabled(has_curve)
        self._saves[Export.LEDGER].setEnabled(bool(comparison))
        self._saves[Export.FIGURES].setEnabled(self._outcome is not None)

    def _ask_for_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "StarDist model folder")
        if folder:
            self.choose_folder(folder)

    def _ask_where(self, what: Export) -> None:
        path, _ = QFileDialog.getSaveFileName(self, _SAVES[what][0].rstrip("."), what.value, _SAVES[what][2])
        if path:
            self.controller.save(what, path)

    def _lay_out(self) -> None:
        settings = QWidget()
        settings.setLayout(
            form(
                ("Before", self._before),
                ("After", self._after),
                ("Model", self._model),
                ("", self._load),
                ("Percentiles", row(self._low, self._high)),
                ("Probability", self._prob),
                ("Overlap", self._nms),
                ("Nucleus size", self._diameter),
                ("Planes", self._planes),
                ("Truth", self._truth),
                ("Precision", self._pooling),
                ("Device", self._device),
            )
        )
        figures, nuclei = QWidget(), QWidget()
        layout = QVBoxLayout(figures)
        layout.addWidget(self._notes)
        layout.addWidget(self._table)
        layout.addWidget(self._plot, 1)
        layout.addStretch()
        layout = QVBoxLayout(nuclei)
        warning = text_label()
        warning.setText(_NOT_FOR_MEASURING)
        for widget in (warning, self._totals, row(self._by_fate, self._show)):
            layout.addWidget(widget)
        layout.addWidget(self._ledger, 1)
        saves = QGridLayout()
        for place, save in enumerate(self._saves.values()):
            saves.addWidget(save, *divmod(place, 2))
        for page, title in ((settings, "Settings"), (figures, "Precision"), (nuclei, "Nuclei")):
            self._tabs.addTab(page, title)
        actions = QHBoxLayout()
        for action in (self._detect, self._cancel):
            actions.addWidget(action)
        layout = QVBoxLayout(self)
        layout.addWidget(self._tabs, 1)
        layout.addLayout(actions)
        layout.addWidget(self._progress)
        layout.addWidget(self._status)
        layout.addLayout(saves)


def _model_entry(info: DetectorInfo) -> Entry:
    if info.problem:
        return Entry(f"{info.name} (cannot be used)", None, info.problem)
    if info.description is None and info.path is not None:
        return Entry(info.name, info.name, "Run by StarDist itself, with TensorFlow.")
    if info.description is None:
        return Entry(f"{info.name} (fetched when first used)", info.name, "Published by StarDist's authors.")
    parts = [info.description.description or "StarDist"]
    if info.description.nucleus_diameter_px:
        parts.append(f"nuclei of about {info.description.nucleus_diameter_px:g} pixels")
    return Entry(info.name, info.name, "; ".join(parts))
