"""Pairs of planes that were both recorded: two images of one field, or two planes of a stack through focus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy import ndimage
from torch import Tensor

from napari_mpt_deblur.training.areas import Area, Draw, held_out_boxes
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.data import Patches, stack_pairs
from napari_mpt_deblur.training.fields import Field

_SPLINE_MARGIN_PX = 8  # of a patch that is moved by a part of a pixel
_WHOLE_PX = 0.05  # shifts nearer to a whole pixel are whole


class Match(NamedTuple):
    """The sharp plane that belongs to a patch of a blurred one.

    Attributes
    ----------
    group : int
        Of the sharp field.
    dy, dx : float
        The blurred plane's (y, x) shows what the sharp plane shows at (y + dy, x + dx).
    gain, offset : ndarray
        (C, 1, 1), what brings the sharp field's values to the blurred field's.
    """

    group: int
    dy: float = 0.0
    dx: float = 0.0
    gain: np.ndarray = np.ones((1, 1, 1), np.float32)
    offset: np.ndarray = np.zeros((1, 1, 1), np.float32)


class Matcher(Protocol):
    """Finds the sharp plane of a part of a blurred field."""

    def __call__(self, box: Area) -> Match: ...


class PlanePairs:
    """Pairs of patches of planes that were recorded.

    Parameters
    ----------
    blurred, sharp : sequence of Field
        The n-th of one belongs to the n-th of the other; they may be the same.
    match : callable
        Which plane of the sharp field belongs to a part of the blurred one, and how it lies on it.
    areas : sequence of Area
        Of the blurred fields, to draw from.
    config : TrainingConfig
    stream : int
        Tells sources apart that are drawn from with one seed.
    """

    def __init__(
        self,
        blurred: Sequence[Field],
        sharp: Sequence[Field],
        match: Matcher,
        areas: Sequence[Area],
        config: TrainingConfig,
        stream: int,
    ) -> None:
        self.blurred, self.sharp, self.match, self.areas = blurred, sharp, match, areas
        self._draw, self._seed = Draw(areas, config), (config.seed, stream)

    def batch(self, number: int, size: int, side: int) -> Patches:
        """Blurred and sharp, each (size, C, side, side) float32; `number` is that of the first pair."""
        return stack_pairs([self._pair(number + i, side) for i in range(size)])

    def held_out(self, areas: Sequence[Area], count: int, side: int) -> list[tuple[Tensor, Tensor]]:
        """Pairs of parts of other areas, no longer than `side`, neither turned nor scaled.

        A part whose own plane is the sharp one is left out, unless all are.
        """
        boxes = held_out_boxes(areas, count, side)
        others = [box for box in boxes if not self._is_itself(box)] or boxes
        return [stack_pairs([self._cut(box)]) for box in others]

    def on_sharp(self, area: Area) -> Area:
        """Where the sharp side of a part of a blurred field lies in the sharp one."""
        found = self.match(area)
        (dy, _), (dx, _) = (_whole_and_rest(shift) for shift in (found.dy, found.dx))
        return Area(area.field, found.group, area.y0 + dy, area.x0 + dx, area.y1 + dy, area.x1 + dx)

    def _is_itself(self, box: Area) -> bool:
        return self.blurred[box.field] is self.sharp[box.field] and self.match(box).group == box.group

    def _pair(self, number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        crop = self._draw.crop(np.random.default_rng([*self._seed, number]), side)
        box = crop.area._replace(y0=crop.y, x0=crop.x, y1=crop.y + crop.size, x1=crop.x + crop.size)
        blurred, sharp = self._cut(box)
        return crop.finish(blurred), crop.finish(sharp)

    def _cut(self, box: Area) -> tuple[np.ndarray, np.ndarray]:
        """Both sides of a box, each (C, height, width).

        The sharp side is moved by whole pixels only, which changes none of its values; the rest of the shift is the
        blurred side's, where interpolation has little to smooth.
        """
        found = self.match(box)
        (dy, rest_y), (dx, rest_x) = (_whole_and_rest(shift) for shift in (found.dy, found.dx))
        height, width = box.height, box.width
        sharp = self.sharp[box.field].read(found.group, box.y0 + dy, box.x0 + dx, height, width)
        field = self.blurred[box.field]
        if not rest_y and not rest_x:
            blurred = field.read(box.group, box.y0, box.x0, height, width)
        else:
            margin = _SPLINE_MARGIN_PX
            wide = field.read(box.group, box.y0 - margin, box.x0 - margin, height + 2 * margin, width + 2 * margin)
            moved = ndimage.shift(wide, (0, rest_y, rest_x), order=3, mode="nearest")
            blurred = moved[:, margin:-margin, margin:-margin]
        return np.ascontiguousarray(blurred, np.float32), (sharp * found.gain + found.offset).astype(np.float32)


def _whole_and_rest(shift: float) -> tuple[int, float]:
    whole = math.floor(shift + 0.5)
    rest = shift - whole
    return whole, rest if abs(rest) > _WHOLE_PX else 0.0
