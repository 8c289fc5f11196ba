"""The fields that panels are made of, alike in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QWidget,
)

_TEXT_MARGIN_PX = 6
_FLAGS_ROLE = Qt.ItemDataRole.UserRole - 1  # Qt's own role for an entry's flags; 0 is none: it cannot be chosen


class Entry(NamedTuple):
    """One line of a list. Without a value it cannot be chosen."""

    text: str
    value: Any
    tip: str = ""


class Choice(QComboBox):
    """A list that does not grow the panel with its longest entry.

    Parameters
    ----------
    tip : str
    entries : sequence of Entry
    """

    opened = Signal()

    def __init__(self, tip: str, entries: Sequence[Entry] = ()) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._tip = tip
        self._entries: tuple[Entry, ...] = ()
        self.currentIndexChanged.connect(self._explain)
        self.offer(entries)

    @property
    def chosen(self) -> Any:
        """The value of the chosen entry; None in an empty list."""
        row = self.currentIndex()
        return self._entries[row].value if 0 <= row < len(self._entries) else None

    def offer(self, entries: Sequence[Entry], chosen: Any = None) -> None:
        """Replace the entries, without a signal.

        Parameters
        ----------
        entries : sequence of Entry
        chosen : object, optional
            The value to choose; by default the one chosen before, or the first where that is gone.
        """
        chosen = self.chosen if chosen is None else chosen
        blocked = self.blockSignals(True)
        if tuple(entries) != self._entries:  # else an open list would flicker
            self._entries = tuple(entries)
            self.clear()
            for row, entry in enumerate(entries):
                self.addItem(entry.text)
                self.setItemData(row, entry.tip or entry.text, Qt.ItemDataRole.ToolTipRole)
                if entry.value is None:
                    self.setItemData(row, 0, _FLAGS_ROLE)
        rows = [row for row, entry in enumerate(entries) if entry.value is not None]
        rows = [row for row in rows if entries[row].value == chosen] or rows or [-1]
        self.setCurrentIndex(rows[0])
        self.blockSignals(blocked)
        self._explain()

    def showPopup(self) -> None:
        """Open the list, and tell so: whoever fills it may look for news."""
        self.opened.emit()
        super().showPopup()

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        """Draw the field, a text that does not fit ending in an ellipsis."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        style = self.style()
        assert style is not None  # every widget has one
        complex_control, field = QStyle.ComplexControl.CC_ComboBox, QStyle.SubControl.SC_ComboBoxEditField
        width = style.subControlRect(complex_control, option, field, self).width() - _TEXT_MARGIN_PX
        option.currentText = self.fontMetrics().elidedText(self.currentText(), Qt.TextElideMode.ElideRight, width)
        painter = QStylePainter(self)
        painter.drawComplexControl(complex_control, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def _explain(self) -> None:
        """The tooltip holds the whole text, which the field may cut."""
        self.setToolTip(f"{self.currentText()}\n\n{self._tip}" if self.currentText() else self._tip)


def number(tip: str, unit: str, *, maximum: int, step: int) -> QSpinBox:
    """A whole number from 0, where 0 reads "Automatic"."""
    box = QSpinBox()
    box.setRange(0, maximum)
    box.setSingleStep(step)
    box.setSuffix(f" {unit}")
    box.setSpecialValueText("Automatic")
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.setToolTip(tip)
    return box


def decimal(tip: str, *, maximum: float, step: float, decimals: int, unit: str = "", at_0: str = "") -> QDoubleSpinBox:
    """A number from 0, where 0 reads as told."""
    box = QDoubleSpinBox()
    box.setDecimals(decimals)
    box.setRange(0, maximum)
    box.setSingleStep(step)
    box.setSuffix(unit)
    box.setSpecialValueText(at_0)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.setToolTip(tip)
    return box


def row(*fields: QWidget) -> QWidget:
    """Fields beside each other, as one; the tooltip is that of the first."""
    box = QWidget()
    layout = QHBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    for field in fields:
        layout.addWidget(field)
    box.setToolTip(fields[0].toolTip())
    return box


def show_error(message: str) -> None:
    """Tell the user of an error, as napari does."""
    from napari.utils.notifications import show_error as notify

    notify(message)


def text_label() -> QLabel:
    """Words that take as many lines as they need."""
    label = QLabel()
    label.setWordWrap(True)
    return label


def button(text: str, tip: str) -> QPushButton:
    """A push button with a tooltip."""
    result = QPushButton(text)
    result.setToolTip(tip)
    return result


def beside(field: QWidget, action: QPushButton) -> QWidget:
    """A field and what else can be done about it, in one line."""
    line = QWidget()
    line.setToolTip(field.toolTip())
    line.setFocusProxy(field)
    layout = QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(field, 1)
    layout.addWidget(action)
    return line


def form(*rows: tuple[str, QWidget]) -> QFormLayout:
    """Labels on the left, fields that fill the width on the right."""
    layout = QFormLayout()
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    for text, field in rows:
        label = QLabel(text)
        label.setToolTip(field.toolTip())
        label.setBuddy(field)
        layout.addRow(label, field)
    return layout
