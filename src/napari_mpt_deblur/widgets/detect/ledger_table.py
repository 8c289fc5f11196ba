"""The ledger of nuclei as a table: a click on a row tells which nucleus to go to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_mpt_deblur.widgets.detect.result import FATE_COLOURS, shown_fate

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.ledger import Nucleus


class _Column(NamedTuple):
    title: str
    value: Callable[[Nucleus], Any]
    tip: str
    digits: int = 0


_RAW = "Measured on the image before, as recorded"
_ROW_PX = 22
_MARGIN_PX = 14
_SAMPLE = 200
_JUDGED = {None: "", True: "right", False: "wrong"}
_COLUMNS = (
    _Column("Image", lambda n: n.image, "In which of the two images the nucleus was found"),
    _Column("Fate", shown_fate, "What became of it; unsupported: gained without evidence in the raw image"),
    _Column("Label", lambda n: n.label, "Its number in the labels layer"),
    _Column("Plane", lambda n: n.plane, "Counted from 0 over all axes before Y and X"),
    _Column("Right", lambda n: _JUDGED[n.right], "Whether it matches a nucleus of the truth at IoU 0.5"),
    _Column("Evidence", lambda n: n.evidence, f"{_RAW}: contrast in standard errors; below 3 there is none", 1),
    _Column("Area", lambda n: n.area_px, "In pixels"),
    _Column("Probability", lambda n: n.probability, "The detector's", 2),
    _Column("Contrast", lambda n: n.contrast, f"{_RAW}: nucleus minus surroundings, in units of the noise", 2),
    _Column("Mean", lambda n: n.mean_intensity, f"Mean intensity. {_RAW}", 1),
    _Column("Total", lambda n: n.total_intensity, f"Total intensity. {_RAW}", 0),
    _Column("IoU", lambda n: n.iou, "Greatest overlap with a nucleus of the other image", 2),
    _Column(
        "Partners", lambda n: " ".join(map(str, n.partners)), "Labels of the nuclei in the other image it belongs to"
    ),
)


def _text(column: _Column, nucleus: Nucleus) -> str:
    value = column.value(nucleus)
    return "" if value is None else f"{value:.{column.digits}f}" if isinstance(value, float) else str(value)


class LedgerModel(QAbstractTableModel):
    """The nuclei of a ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.nuclei: list[Nucleus] = []

    def show_nuclei(self, nuclei: Sequence[Nucleus]) -> None:
        """Show other nuclei."""
        self.beginResetModel()
        self.nuclei = list(nuclei)
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.nuclei)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        nucleus, column = self.nuclei[index.row()], _COLUMNS[index.column()]
        value = column.value(nucleus)
        if role == Qt.ItemDataRole.DisplayRole:
            return _text(column, nucleus)
        if role == Qt.ItemDataRole.DecorationRole and column.title == "Fate":
            return QColor(FATE_COLOURS[value])
        if role == Qt.ItemDataRole.TextAlignmentRole and isinstance(value, (int, float)):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return _COLUMNS[section].tip
        return _COLUMNS[section].title if role == Qt.ItemDataRole.DisplayRole else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """By a column, what is not known last; below 0 the order stays."""
        if column < 0:
            return
        value, falling = _COLUMNS[column].value, order == Qt.SortOrder.DescendingOrder
        self.beginResetModel()
        known = [nucleus for nucleus in self.nuclei if value(nucleus) is not None]
        unknown = [nucleus for nucleus in self.nuclei if value(nucleus) is None]
        self.nuclei = sorted(known, key=value, reverse=falling) + unknown
        self.endResetModel()


class LedgerTable(QTableView):
    """The table; `chosen` carries the nucleus whose row was clicked, or on which Enter was pressed."""

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._model = LedgerModel()
        self.setModel(self._model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None  # every table has them
        assert columns is not None
        rows.hide()
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        columns.setMinimumSectionSize(_ROW_PX)
        rows.setMinimumSectionSize(_ROW_PX)
        rows.setDefaultSectionSize(_ROW_PX)
        columns.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)  # in the ledger's own order at first
        self.setSortingEnabled(True)
        self.clicked.connect(self._choose)
        self.activated.connect(self._choose)

    def show_nuclei(self, nuclei: Sequence[Nucleus]) -> None:
        """Show other nuclei."""
        self._model.show_nuclei(nuclei)
        header = self.horizontalHeader()
        assert header is not None
        self._model.sort(header.sortIndicatorSection(), header.sortIndicatorOrder())
        shown = self._model.nuclei
        sample = [*shown[:: max(1, len(shown) // _SAMPLE)], *shown[-1:]]  # to ask all takes half a second
        for number, column in enumerate(_COLUMNS):  # narrow: a heading needs its arrow only while it is sorted by
            texts = [_text(column, nucleus) for nucleus in sample]
            widest = max(map(self.fontMetrics().horizontalAdvance, texts), default=0)
            widest += _ROW_PX if column.title == "Fate" else 0  # the colour
            heading = header.fontMetrics().horizontalAdvance(column.title)
            self.setColumnWidth(number, max(heading, widest) + _MARGIN_PX)

    def show_columns(self, nuclei: Sequence[Nucleus]) -> None:
        """Show the columns that say something of these nuclei; the others take no room."""
        for number, column in enumerate(_COLUMNS):
            values = {column.value(nucleus) for nucleus in nuclei}
            self.setColumnHidden(number, values <= {None, ""} or (column.title == "Plane" and values == {0}))

    def _choose(self, index: QModelIndex) -> None:
        self.chosen.emit(self._model.nuclei[index.row()])
