"""Losses and validation of a training run, drawn while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen

from napari_mpt_deblur.training.events import TERMS
from napari_mpt_deblur.widgets.plot import INK, Axis, Frame, Plot
from napari_mpt_deblur.widgets.train.curves import SHOWN, Curves, Points

_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX, _GAP_PX = 56.0, 20.0, 36.0, 36.0, 14.0
_LOSS_SHARE = 0.58  # of the height that both frames have
_POINT_PX = 6  # of the width, for one point of a curve: batches differ, and their mean is what is to be seen
_LEGEND_ROW_PX, _LEGEND_LINE_PX = 15, 12
# the total is drawn below the pixel loss, which it hardly differs from where beta is small: its rim is seen
_STYLES: Mapping[str, tuple[QColor, float]] = {
    "total": (QColor("#222222"), 3.6),
    "pixel": (QColor("#56b4e9"), 1.6),
    "positive": (QColor("#009e73"), 1.4),
    "negative": (QColor("#d55e00"), 1.4),
    "extra": (QColor("#cc79a7"), 1.4),
}
_PSNR = QColor("#0072b2")
_BEFORE = QColor("#888888")


class CurvePlot(Plot):
    """Losses above, PSNR of the held-out patches below, over the same iterations."""

    def __init__(self) -> None:
        super().__init__(minimum_height=260)
        self._curves = Curves()

    def sizeHint(self) -> QSize:
        return QSize(330, 340)

    def show_curves(self, curves: Curves) -> None:
        """Draw these; they may grow afterwards, call again then."""
        self._curves = curves
        self.update()

    def _draw(self, painter: QPainter, page: QRectF) -> None:
        curves = self._curves
        if curves.is_empty and not curves.psnr:
            painter.drawText(page, Qt.AlignmentFlag.AlignCenter, "Curves appear here when training begins.")
            return
        area = page.adjusted(_LEFT_PX, _TOP_PX, -_RIGHT_PX, -_BOTTOM_PX)
        height = (area.height() - _GAP_PX) * _LOSS_SHARE
        iterations = Axis.around((curves.began, curves.iterations), most_ticks=5)
        losses = {name: curves.loss(name, int(area.width() / _POINT_PX)) for name in SHOWN}
        self._draw_losses(painter, page, QRectF(area.left(), area.top(), area.width(), height), iterations, losses)
        self._draw_psnr(painter, page, area.adjusted(0, height + _GAP_PX, 0, 0), iterations)

    def _draw_losses(
        self, painter: QPainter, page: QRectF, box: QRectF, iterations: Axis, losses: Mapping[str, Points]
    ) -> None:
        values = [value for points in losses.values() for _, value in points]
        frame = Frame(box, iterations, Axis.around(values, most_ticks=5, by_decades=True, margin=0.04))
        title = "Loss (log)" if frame.y.logarithmic else "Loss"
        frame.draw(painter, title_y=title, edge_x=page.left())
        for name in SHOWN:
            frame.curve(painter, losses[name], *_STYLES[name])
        self._draw_legend(painter, page, losses)

    def _draw_legend(self, painter: QPainter, page: QRectF, losses: Mapping[str, Points]) -> None:
        left, level = page.left() + 8, page.top() + 4 + _LEGEND_ROW_PX / 2
        for name in (name for name in SHOWN if losses[name]):
            words = f"{TERMS[name]} {losses[name][-1][1]:.3g}"
            width = painter.fontMetrics().horizontalAdvance(words) + _LEGEND_LINE_PX + 4
            if left + width > page.right():
                left, level = page.left() + 8, level + _LEGEND_ROW_PX
            colour, line = _STYLES[name]
            painter.setPen(QPen(colour, max(line, 2)))
            painter.drawLine(QPointF(left, level), QPointF(left + _LEGEND_LINE_PX, level))
            painter.setPen(INK)
            place = QRectF(left + _LEGEND_LINE_PX + 4, level - 8, width, 16)
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, words)
            left += width + 12

    def _draw_psnr(self, painter: QPainter, page: QRectF, box: QRectF, iterations: Axis) -> None:
        points = self._curves.psnr
        before = self._curves.before
        levels = [value for _, value in points] + ([before.psnr] if before is not None else [])
        frame = Frame(box, iterations, Axis.around(levels, most_ticks=4, margin=0.15))
        frame.draw(painter, title_x="Iteration", title_y="PSNR (dB)", edge_x=page.left())
        if before is not None:
            start, end = (frame.at(x, before.psnr) for x in (iterations.low, iterations.high))
            painter.setPen(QPen(_BEFORE, 1.2, Qt.PenStyle.DashLine))
            painter.drawLine(start, end)
            painter.drawText(
                QRectF(end.x() - 124, end.y() - 15, 120, 14), Qt.AlignmentFlag.AlignRight, "before training"
            )
        if points:
            frame.curve(painter, points, _PSNR, dot=2.2)
