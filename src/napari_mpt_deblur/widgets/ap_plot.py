"""Average precision against the threshold of overlap, drawn small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QBuffer, QIODevice, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison, Score

_PAPER, _INK, _GRID = QColor("white"), QColor("#222222"), QColor("#dddddd")
_COLOURS = {"before": QColor("#d55e00"), "after": QColor("#0072b2")}
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 44.0, 12.0, 26.0, 36.0
_DOT_PX = 2.5
_PICTURE_PX = (480, 320)
_PICTURE_SCALE = 3  # for print


class PrecisionPlot(QWidget):
    """The curves before and after; black on white in every theme, as in print."""

    def __init__(self) -> None:
        super().__init__()
        self._curve: Sequence[Score] = ()
        self._truth = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(170)

    def sizeHint(self) -> QSize:
        return QSize(320, 220)

    def show_comparison(self, comparison: Comparison | None) -> None:
        """Draw the curves; without truth there are none, and no plot."""
        self._curve = comparison.curve if comparison is not None else ()
        self.setVisible(bool(self._curve))
        self._truth = (comparison.truth or "") if comparison is not None else ""
        self.update()

    def png(self) -> bytes:
        """The plot as a PNG of 1440 x 960 pixels."""
        width, height = _PICTURE_PX
        image = QImage(width * _PICTURE_SCALE, height * _PICTURE_SCALE, QImage.Format.Format_RGB32)
        painter = QPainter(image)
        painter.scale(_PICTURE_SCALE, _PICTURE_SCALE)
        self._draw(painter, QRectF(0, 0, width, height))
        painter.end()
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        image.save(buffer, "PNG")
        return bytes(buffer.data().data())

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        self._draw(painter, QRectF(self.rect()))
        painter.end()

    def _draw(self, painter: QPainter, page: QRectF) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(page, _PAPER)
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        if not self._curve:
            return
        frame = page.adjusted(_LEFT_PX, _TOP_PX, -_RIGHT_PX, -_BOTTOM_PX)
        thresholds = [score.threshold for score in self._curve]
        low, high = thresholds[0], thresholds[-1]

        def at(threshold: float, precision: float) -> QPointF:
            x = frame.left() + (threshold - low) / (high - low) * frame.width()
            return QPointF(x, frame.bottom() - precision * frame.height())

        self._draw_axes(painter, page, frame, at)
        for number, (side, colour) in enumerate(_COLOURS.items()):
            points = [at(score.threshold, getattr(score, side)) for score in self._curve]
            painter.setPen(QPen(colour, 1.6))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawPolyline(QPolygonF(points))
            painter.setBrush(colour)
            for point in points:
                painter.drawEllipse(point, _DOT_PX, _DOT_PX)
            painter.drawText(QPointF(frame.left() + 60 * number, frame.top() - 9), side)

    def _draw_axes(self, painter: QPainter, page: QRectF, frame: QRectF, at: Callable[[float, float], QPointF]) -> None:
        low, high = self._curve[0].threshold, self._curve[-1].threshold
        for tenth in range(0, 11, 2):
            painter.setPen(_GRID)
            painter.drawLine(at(low, tenth / 10), at(high, tenth / 10))
            painter.setPen(_INK)
            label = QRectF(frame.left() - 30, at(low, tenth / 10).y() - 8, 25, 16)
            painter.drawText(label, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{tenth / 10:.1f}")
        for tenth in range(5, 10):
            label = QRectF(at(tenth / 10, 0).x() - 15, frame.bottom() + 3, 30, 14)
            painter.drawText(label, Qt.AlignmentFlag.AlignCenter, f"{tenth / 10:.1f}")
        painter.drawRect(frame)
        foot = QRectF(page.left(), frame.bottom() + 17, page.width(), 16)
        painter.drawText(foot, Qt.AlignmentFlag.AlignCenter, f"IoU with the {self._truth}")
        painter.save()
        painter.translate(page.left() + 9, frame.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-80, -8, 160, 16), Qt.AlignmentFlag.AlignCenter, "Average precision")
        painter.restore()
