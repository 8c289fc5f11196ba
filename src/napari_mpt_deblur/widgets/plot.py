"""What plots are drawn with: paper, axes with round ticks, curves.

No plotting library: napari brings none. matplotlib, which comes with StarDist, takes 150 ms of the processor for the
frames of a training run, too much for the viewer's own thread; pyqtgraph takes 12 ms, but nobody has it; this takes 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qtpy.QtCore import QBuffer, QIODevice, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

PAPER, INK, GRID = QColor("white"), QColor("#222222"), QColor("#dddddd")
_PICTURE_PX = (480, 320)
_PICTURE_SCALE = 3  # for print
_FONT_PX = 11
_NOTHING = 1e-30  # drawn as 0: of the smallest numbers there is neither a logarithm nor a step between two


@dataclass(frozen=True)
class Axis:
    """One direction of a plot.

    Attributes
    ----------
    low, high : float
        At its ends; above 0 where it is logarithmic.
    ticks : tuple of float
    logarithmic : bool
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    @classmethod
    def around(cls, values: Iterable[float], *, most_ticks: int, by_decades: bool = False, margin: float = 0.0) -> Axis:
        """An axis that holds all values that are finite.

        Parameters
        ----------
        values : iterable of float
        most_ticks : int
        by_decades : bool
            Logarithmic where the values, all above 0, span more than one decade.
        margin : float
            Kept free at both ends, as a share of the axis.
        """
        finite = (value for value in values if math.isfinite(value))
        known = [value if abs(value) > _NOTHING else 0.0 for value in finite] or [0.0, 1.0]
        low, high = min(known), max(known)
        if by_decades and low > 0 and high > 10 * low:
            reach = (high / low) ** margin
            low, high = low / reach, high * reach
            return cls(low, high, _decades(low, high, most_ticks), logarithmic=True)
        reach = margin * (high - low) or 0.02 * max(abs(high), 1e-6) * (high == low)
        low, high = low - reach, high + reach
        return cls(low, high, _round_steps(low, high, most_ticks))

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def words(self, tick: float) -> str:
        """A tick for people."""
        if self.logarithmic:
            return f"{tick:.0e}".replace("e-0", "e-").replace("e+0", "e") if tick < 1e-3 or tick >= 1e4 else f"{tick:g}"
        return f"{tick:.{self._decimals}f}"

    @property
    def _decimals(self) -> int:
        step = min((b - a for a, b in zip(self.ticks, self.ticks[1:], strict=False)), default=0.1)
        return max(0, -math.floor(math.log10(step) + 1e-9))


@dataclass(frozen=True)
class Frame:
    """Where a plot's axes lie on the paper.

    Attributes
    ----------
    box : QRectF
    x, y : Axis
    """

    box: QRectF
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> QPointF:
        """Where a point lies."""
        return QPointF(
            self.box.left() + self.x.share(x) * self.box.width(),
            self.box.bottom() - self.y.share(y) * self.box.height(),
        )

    def draw(self, painter: QPainter, *, title_x: str = "", title_y: str, edge_x: float) -> None:
        """Grid, ticks and titles.

        Parameters
        ----------
        painter : QPainter
        title_x : str
            Without one there are no words at the ticks either: they stand below another frame.
        title_y : str
        edge_x : float
            Where the paper begins on the left.
        """
        align = Qt.AlignmentFlag
        for tick in self.y.ticks:
            level = self.at(self.x.low, tick).y()
            painter.setPen(GRID)
            painter.drawLine(QPointF(self.box.left(), level), QPointF(self.box.right(), level))
            painter.setPen(INK)
            label = QRectF(self.box.left() - 55, level - 8, 50, 16)
            painter.drawText(label, align.AlignRight | align.AlignVCenter, self.y.words(tick))
        painter.setPen(INK)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(self.box)
        if title_x:
            for tick in self.x.ticks:
                label = QRectF(self.at(tick, self.y.low).x() - 30, self.box.bottom() + 3, 60, 14)
                painter.drawText(label, align.AlignCenter, self.x.words(tick))
            painter.drawText(
                QRectF(self.box.left(), self.box.bottom() + 17, self.box.width(), 16), align.AlignCenter, title_x
            )
        painter.save()
        painter.translate(edge_x + 9, self.box.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-90, -8, 180, 16), align.AlignCenter, title_y)
        painter.restore()

    def curve(
        self,
        painter: QPainter,
        points: Sequence[tuple[float, float]],
        colour: QColor,
        width: float = 1.6,
        *,
        dot: float = 0.0,
    ) -> None:
        """A line through points, with dots on them where their radius is given."""
        places = [self.at(x, y) for x, y in points]
        painter.setPen(QPen(colour, width))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF(places))
        if dot or len(places) == 1:
            painter.setBrush(colour)
            for place in places:
                painter.drawEllipse(place, dot or width, dot or width)


class Plot(QWidget):
    """Black on white in every theme, as in print; what is on it, its subclasses draw."""

    def __init__(self, minimum_height: int) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(minimum_height)

    def png(self) -> bytes:
        """The plot as a PNG of 1440 x 960 pixels."""
        width, height = _PICTURE_PX
        image = QImage(width * _PICTURE_SCALE, height * _PICTURE_SCALE, QImage.Format.Format_RGB32)
        painter = QPainter(image)
        painter.scale(_PICTURE_SCALE, _PICTURE_SCALE)
        self._begin(painter, QRectF(0, 0, width, height))
        painter.end()
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        image.save(buffer, "PNG")
        return bytes(buffer.data().data())

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        self._begin(painter, QRectF(self.rect()))
        painter.end()

    def _begin(self, painter: QPainter, page: QRectF) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(page, PAPER)
        font = painter.font()
        font.setPixelSize(_FONT_PX)
        painter.setFont(font)
        painter.setPen(INK)
        self._draw(painter, page)

    def _draw(self, painter: QPainter, page: QRectF) -> None:
        raise NotImplementedError


def _round_steps(low: float, high: float, most: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten within the ends, at most that many."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * power for step in (1, 2, 5, 10, 20) if span / (step * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return tuple((first + i) * step for i in range(math.floor(high / step + 1e-9) - first + 1))


def _decades(low: float, high: float, most: int) -> tuple[float, ...]:
    """Powers of ten within the ends, thinned to at most that many; of fewer than two, 2 and 5 times them as well."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = [10.0**power for power in range(first, last + 1)]
    if len(powers) < 2:
        between = [step * 10.0**power for power in range(first - 1, last + 1) for step in (1, 2, 5)]
        return tuple(tick for tick in between if low <= tick <= high)
    return tuple(powers[:: math.ceil(len(powers) / most)])
