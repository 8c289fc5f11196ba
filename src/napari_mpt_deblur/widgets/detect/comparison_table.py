"""The table of average precision and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_mpt_deblur.widgets.detect.export import FIGURES

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison

_TITLES = {"gain_percent": "Gain"}
_ROW_PX = 20


class ComparisonTable(QTableWidget):
    """A column a threshold and one for the mean, a row a figure; as high as its rows, and hidden without any."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ContiguousSelection)
        columns, rows = self.horizontalHeader(), self.verticalHeader()
        assert columns is not None  # every table has them
        assert rows is not None
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)  # none is out of sight in a narrow panel
        columns.setMinimumSectionSize(_ROW_PX)
        rows.setMinimumSectionSize(_ROW_PX)
        rows.setDefaultSectionSize(_ROW_PX)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
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
                    item.setText("none" if figure is None else _signed(figure))
                    item.setToolTip("From 0 there is no gain in per cent." if figure is None else "")
                self.setItem(row, column, item)
        self.setVisible(bool(scores))
        self._fit()

    def changeEvent(self, event: QEvent | None) -> None:
        """A theme that is put on may change the font and so the height of the headings."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.FontChange):
            self._fit()

    def _fit(self) -> None:
        columns = self.horizontalHeader()
        assert columns is not None
        self.setFixedHeight(columns.sizeHint().height() + _ROW_PX * self.rowCount() + 2 * self.frameWidth())


def _signed(percent: float) -> str:
    """Without decimals from 100 on, so that it fits a narrow panel."""
    return f"{percent:+.0f} %" if abs(percent) >= 100 else f"{percent:+.1f} %"


def _words(figure: Any) -> str:
    return f"{figure:.3f}" if isinstance(figure, float) else str(figure)
