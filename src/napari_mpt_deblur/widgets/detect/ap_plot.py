"""Average precision against the threshold of overlap, drawn small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize
from qtpy.QtGui import QColor, QPainter

from napari_mpt_deblur.widgets.plot import Axis, Frame, Plot

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison, Score

_COLOURS = {"before": QColor("#d55e00"), "after": QColor("#0072b2")}
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 44.0, 12.0, 26.0, 36.0
_DOT_PX = 2.5
_PRECISION = Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


class PrecisionPlot(Plot):
    """The curves before and after."""

    def __init__(self) -> None:
        super().__init__(minimum_height=170)
        self._curve: Sequence[Score] = ()
        self._truth = ""

    def sizeHint(self) -> QSize:
        return QSize(320, 220)

    def show_comparison(self, comparison: Comparison | None) -> None:
        """Draw the curves; without truth there are none, and no plot."""
        self._curve = comparison.curve if comparison is not None else ()
        self.setVisible(bool(self._curve))
        self._truth = (comparison.truth or "") if comparison is not None else ""
        self.update()

    def _draw(self, painter: QPainter, page: QRectF) -> None:
        if not self._curve:
            return
        thresholds = Axis(self._curve[0].threshold, self._curve[-1].threshold, (0.5, 0.6, 0.7, 0.8, 0.9))
        frame = Frame(page.adjusted(_LEFT_PX, _TOP_PX, -_RIGHT_PX, -_BOTTOM_PX), thresholds, _PRECISION)
        frame.draw(painter, title_x=f"IoU with the {self._truth}", title_y="Average precision", edge_x=page.left())
        for number, (side, colour) in enumerate(_COLOURS.items()):
            points = [(score.threshold, getattr(score, side)) for score in self._curve]
            frame.curve(painter, points, colour, dot=_DOT_PX)
            painter.drawText(QPointF(frame.box.left() + 60 * number, frame.box.top() - 9), side)
