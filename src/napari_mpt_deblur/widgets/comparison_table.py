"""The table of average precision and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_mpt_deblur.widgets.detect_export import FIGURES

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison

_TITLES = {"gain_percent": "Gain"}


class ComparisonTable(QTableWidget):
    """A column a threshold and one for the mean, a row a figure."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ContiguousSelection)
        for header in (self.horizontalHeader(), self.verticalHeader()):
            assert header is not None  # every table has them
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.show_comparison(None)

    def show_comparison(self, comparison: Comparison | None) -> None:
        """Show the figures; none without truth."""
        scores = comparison.scores if comparison is not None else ()
        means = comparison.means if comparison is not None and scores else ()
        self.setRowCount(len(FIGURES) if scores else 0)
        self.setColumnCount(len(scores) + 1 if scores else 0)
        self.setVerticalHeaderLabels([_TITLES.get(name, name.replace("_", " ")) for name, _ in FIGURES])
        self.setHorizontalHeaderLabels([*(f"IoU {score.threshold:g}" for score in scores), "Mean"])
        for row, (name, value) in enumerate(FIGURES if scores else ()):
            values = [value(score) for score in scores] + ([means[row]] if row < len(means) else [""])
            for column, figure in enumerate(values):
                item = QTableWidgetItem(_words(figure))
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                if name == "gain_percent":
                    item.setText("none" if figure is None else f"{figure:+.1f} %")
                    item.setToolTip("From 0 there is no gain in per cent." if figure is None else "")
                self.setItem(row, column, item)


def _words(figure: Any) -> str:
    return f"{figure:.3f}" if isinstance(figure, float) else str(figure)
