"""Opening pairs that were recorded: images of the same fields, blurred and sharp, and stacks through focus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.images import Normalization
from napari_mpt_deblur.training.areas import Area, split
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.fields import Field
from napari_mpt_deblur.training.plane_pairs import Match, PlanePairs
from napari_mpt_deblur.training.registration import align, fit_levels

_CELL_PX = 32  # in which sharpness is measured
_SMOOTHING_PX = 1.5  # as `sharpness` has it


def recorded_pairs(
    blurred: Sequence[Field], sharp: Sequence[Field], config: TrainingConfig, stream: int
) -> tuple[PlanePairs, list[Area], list[str]]:
    """Pairs of two images of each field, the areas held out, and notes.

    Raises
    ------
    TrainingError
        If two images differ in size or number of planes, do not show the same field, or are too small.
    """
    matches: dict[tuple[int, int], Match] = {}
    notes, insets = [], []
    for number, (first, second) in enumerate(zip(blurred, sharp, strict=True)):
        _check_sizes(first, second)
        found = [
            _match(first, group, second, group if len(second.groups) > 1 else 0) for group in range(len(first.groups))
        ]
        matches |= {(number, group): match for group, match in enumerate(found)}
        farthest = max(max(abs(match.dy), abs(match.dx)) for match in found)
        insets.append(math.ceil(farthest))
        notes += _notes(first, found, farthest)
    train, held = split(blurred, max(config.patch_px), insets)
    pairs = PlanePairs(blurred, sharp, lambda box: matches[box.field, box.group], train, config, stream)
    return pairs, held, notes


def focus_pairs(
    stacks: Sequence[Field], config: TrainingConfig, stream: int
) -> tuple[PlanePairs, list[Area], list[str]]:
    """Pairs of the planes of a stack, each with the plane that is sharpest there; the areas held out, and notes.

    Raises
    ------
    TrainingError
        If a stack has no Z axis or one plane only, or is too small.
    """
    matchers = [_SharpestPlanes(stack) for stack in stacks]
    train, held = split(stacks, max(config.patch_px), [matcher.inset_px for matcher in matchers])
    pairs = PlanePairs(stacks, stacks, lambda box: matchers[box.field](box), train, config, stream)
    notes = [
        f"The planes of {stack.name} were registered; the farthest lay {matcher.farthest_px:.1f} pixels off."
        for stack, matcher in zip(stacks, matchers, strict=True)
        if matcher.farthest_px
    ]
    return pairs, held, notes


class _SharpestPlanes:
    """Of each part of a stack, the plane along Z that is sharpest there."""

    def __init__(self, stack: Field) -> None:
        letter = stack.view.axes.leading.find("Z")
        if letter < 0 or stack.view.shape[letter] < 2:
            raise TrainingError(
                f"{stack.name} is no stack through focus: of its axes ({stack.view.axes}), Z is missing or one plane."
            )
        # the groups of each stack of the image: same time, channel and colour, and all Z
        series: dict[object, list[int]] = {}
        for group, planes in enumerate(stack.groups):
            index = planes[0].index
            series.setdefault((index[:letter], index[letter + 1 :], planes[0].sample), []).append(group)
        self._series = {group: groups for groups in series.values() for group in groups}
        self._energy: dict[int, np.ndarray] = {}
        self._shift: dict[int, tuple[float, float]] = {}
        for groups in series.values():
            self._measure(stack, groups)
        self.farthest_px = max(max(map(abs, shift)) for shift in self._shift.values())
        self.inset_px = math.ceil(self.farthest_px)

    def __call__(self, box: Area) -> Match:
        cells = np.s_[box.y0 // _CELL_PX : -(-box.y1 // _CELL_PX), box.x0 // _CELL_PX : -(-box.x1 // _CELL_PX)]
        groups = self._series[box.group]
        best = max(groups, key=lambda group: float(self._energy[group][cells].sum()))
        (y, x), (best_y, best_x) = self._shift[box.group], self._shift[best]
        return Match(best, best_y - y, best_x - x)

    def _measure(self, stack: Field, groups: list[int]) -> None:
        """Sharpness of each cell of each plane, and where the planes lie on the sharpest of them."""
        for group in groups:
            self._energy[group] = _cell_energies(stack.plane(group).mean(0))
        sharpest = max(groups, key=lambda group: float(self._energy[group].mean()))
        # plane by plane from the sharpest on: neighbours are alike, the ends of a stack are not
        self._shift[sharpest] = (0.0, 0.0)
        middle = groups.index(sharpest)
        for path in (groups[middle:], groups[middle::-1]):
            for nearer, farther in pairwise(path):
                names = (_plane_name(stack, farther), _plane_name(stack, nearer))
                found = align(stack.plane(farther).mean(0), stack.plane(nearer).mean(0), names)
                y, x = self._shift[nearer]
                # a position of the sharpest plane, as seen in `farther`
                self._shift[farther] = (y - found.dy, x - found.dx)


def _cell_energies(plane: np.ndarray) -> np.ndarray:
    """Mean squared gradient in each cell."""
    gradient = ndimage.gaussian_gradient_magnitude(plane.astype(np.float64), _SMOOTHING_PX) ** 2
    rows, columns = (np.arange(0, size, _CELL_PX) for size in plane.shape)
    sums = np.add.reduceat(np.add.reduceat(gradient, rows, 0), columns, 1)
    areas = np.outer(*(np.diff([*starts, size]) for starts, size in zip((rows, columns), plane.shape, strict=True)))
    return sums / areas


def _check_sizes(blurred: Field, sharp: Field) -> None:
    names = f"{blurred.name} and {sharp.name}"
    if (blurred.height, blurred.width) != (sharp.height, sharp.width):
        raise TrainingError(
            f"{names} differ in size ({blurred.height} x {blurred.width} and {sharp.height} x {sharp.width} pixels): "
            "a pair shows the same field at the same scale."
        )
    if (blurred.channels, blurred.view.sample_count) != (sharp.channels, sharp.view.sample_count):
        raise TrainingError(f"{names} differ in colours: a pair is grey or RGB on both sides.")
    if len(sharp.groups) not in (1, len(blurred.groups)):
        raise TrainingError(
            f"{names} differ in planes ({len(blurred.groups)} and {len(sharp.groups)}): "
            "the sharp image has as many as the blurred one, or a single one."
        )


def _match(blurred: Field, group: int, sharp: Field, sharp_group: int) -> Match:
    names = (_plane_name(blurred, group), _plane_name(sharp, sharp_group))
    first, second = blurred.plane(group), sharp.plane(sharp_group)
    found = align(first.mean(0), second.mean(0), names)
    gains, offsets = [], []
    for channel, (mine, theirs) in enumerate(zip(blurred.groups[group], sharp.groups[sharp_group], strict=True)):
        gain, offset = _levels(
            blurred.normalization, mine.channel, first[channel], sharp.normalization, theirs.channel, second[channel]
        )
        gains.append(gain)
        offsets.append(offset)
    as_channels = (np.asarray(values, np.float32)[:, None, None] for values in (gains, offsets))
    return Match(sharp_group, found.dy, found.dx, *as_channels)


def _levels(
    blurred: Normalization, channel: int, plane: np.ndarray, sharp: Normalization, sharp_channel: int, truth: np.ndarray
) -> tuple[float, float]:
    """What brings the sharp plane's normalised values to the blurred plane's.

    Through grey levels, where these can be compared: percentiles of a blurred image are not those of a sharp one.
    Otherwise each keeps its own percentiles.
    """
    grey = fit_levels(blurred.undo(plane, channel), sharp.undo(truth, sharp_channel))
    if grey is None or blurred.is_flat(channel):
        return 1.0, 0.0
    low, span = blurred.low[channel], blurred.high[channel] - blurred.low[channel]
    sharp_low, sharp_span = sharp.low[sharp_channel], sharp.high[sharp_channel] - sharp.low[sharp_channel]
    return grey.gain * sharp_span / span, (grey.gain * sharp_low + grey.offset - low) / span


def _notes(field: Field, found: Sequence[Match], farthest: float) -> list[str]:
    if not farthest:
        return []
    return [f"{field.name} was registered to its sharp image by up to {farthest:.1f} pixels."]


def _plane_name(field: Field, group: int) -> str:
    return field.name if len(field.groups) == 1 else f"plane {field.index(group)} of {field.name}"
