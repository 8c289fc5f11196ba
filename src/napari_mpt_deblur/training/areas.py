"""Where patches come from: which parts of which planes are trained on, which are held out, and how one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.fields import Field

_HELD_OUT = 5  # a fifth of the only plane, every fifth of several
_THINNEST_STRIP_PX = 16


class Area(NamedTuple):
    """A part of a plane."""

    field: int
    group: int
    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    def without(self, other: Area) -> Area:
        """The largest part of it that does not overlap another of the same plane; empty where there is none."""
        rests = (
            self._replace(y1=min(self.y1, other.y0)),
            self._replace(y0=max(self.y0, other.y1)),
            self._replace(x1=min(self.x1, other.x0)),
            self._replace(x0=max(self.x0, other.x1)),
        )
        return max(rests, key=lambda rest: max(rest.height, 0) * max(rest.width, 0))


def split(fields: Sequence[Field], side: int, inset_px: Sequence[int] | None = None) -> tuple[list[Area], list[Area]]:
    """Areas to train on and areas held out.

    Of several images some are held out whole; of a single one a strip along its longer side, the same in all planes;
    where that leaves no room for a patch, some of its planes.

    Parameters
    ----------
    fields : sequence of Field
    side : int
        Of the largest patch.
    inset_px : sequence of int, optional
        How many pixels to leave out at the edges of each image.

    Raises
    ------
    TrainingError
        If an image is too small for a patch, or there is nothing to hold out.
    """
    insets = inset_px or [0] * len(fields)
    whole = [
        whole_planes(number, field, side, inset)
        for number, (field, inset) in enumerate(zip(fields, insets, strict=True))
    ]
    if len(fields) > 1:
        held = set(_every(len(fields)))
        return (
            [area for number, areas in enumerate(whole) if number not in held for area in areas],
            [area for number, areas in enumerate(whole) if number in held for area in areas],
        )
    (areas,) = whole
    strip = _strip(areas[0], side)
    if strip is not None:
        cut = [(_upper(area, strip), _lower(area, strip)) for area in areas]
        return [train for train, _ in cut], [held for _, held in cut]
    if len(areas) > 1:
        planes = set(_every(len(areas)))
        return (
            [area for number, area in enumerate(areas) if number not in planes],
            [area for number, area in enumerate(areas) if number in planes],
        )
    raise TrainingError(
        f"{fields[0].name} is too small: beside a patch of {side} pixels it has no "
        f"{_THINNEST_STRIP_PX} to validate on; choose a smaller patch, or a larger image."
    )


class Crop(NamedTuple):
    """A patch to be cut out of an area's plane."""

    area: Area
    y: int
    x: int
    size: int  # what is read, a square; reduced to the patch's side where it is larger
    side: int
    turns: int
    mirrored: bool

    def finish(self, pixels: np.ndarray) -> np.ndarray:
        """What was read, (C, size, size), as a patch, (C, side, side)."""
        if self.size != self.side:
            tensor = torch.from_numpy(np.ascontiguousarray(pixels))[None]
            tensor = F.interpolate(tensor, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False)
            pixels = tensor[0].numpy()
        pixels = np.rot90(pixels, self.turns, axes=(1, 2))
        return np.ascontiguousarray(pixels[:, ::-1] if self.mirrored else pixels, np.float32)


class Draw:
    """Draws patches from areas; every pixel is as likely as any other.

    Parameters
    ----------
    areas : sequence of Area
        Each at least as large as a patch.
    config : TrainingConfig
        Its `flips`, `scaled` and `scales`.
    """

    def __init__(self, areas: Sequence[Area], config: TrainingConfig) -> None:
        self.areas, self.config = areas, config
        self._shares = np.cumsum([area.height * area.width for area in areas], dtype=np.float64)

    def crop(self, rng: np.random.Generator, side: int) -> Crop:
        """A random patch."""
        area = self.areas[int(np.searchsorted(self._shares, rng.random() * self._shares[-1], side="right"))]
        size = side
        if rng.random() < self.config.scaled:
            size = round(side / rng.uniform(*self.config.scales))
        size = min(size, area.height, area.width)
        y, x = rng.integers(area.y0, area.y1 - size + 1), rng.integers(area.x0, area.x1 - size + 1)
        turns, mirrored = (int(rng.integers(4)), bool(rng.random() < 0.5)) if self.config.flips else (0, False)
        return Crop(area, int(y), int(x), size, side, turns, mirrored)


def held_out_boxes(areas: Sequence[Area], count: int, side: int) -> list[Area]:
    """Parts of held-out areas to validate on, no longer than `side`, evenly spread over the areas, the same always."""
    rng = np.random.default_rng(1_000_003)
    boxes = []
    for number in range(count):
        area = areas[int((number + 0.5) / count * len(areas))]
        height, width = min(side, area.height), min(side, area.width)
        y = int(rng.integers(area.y0, area.y1 - height + 1))
        x = int(rng.integers(area.x0, area.x1 - width + 1))
        boxes.append(area._replace(y0=y, x0=x, y1=y + height, x1=x + width))
    return boxes


def whole_planes(number: int, field: Field, side: int, inset: int = 0) -> list[Area]:
    """All planes of an image, without `inset` pixels at each edge.

    Raises
    ------
    TrainingError
        If that is too small for a patch.
    """
    height, width = field.height - 2 * inset, field.width - 2 * inset
    if min(height, width) < side:
        beyond = f", of which registration uses {max(height, 0)} x {max(width, 0)}" if inset else ""
        raise TrainingError(
            f"{field.name} is too small: it is {field.height} x {field.width} pixels{beyond}, a patch {side} x {side}; "
            "choose a smaller patch, or leave it out."
        )
    return [Area(number, group, inset, inset, inset + height, inset + width) for group in range(len(field.groups))]


def _every(count: int) -> list[int]:
    return list(range(_HELD_OUT - 1, count, _HELD_OUT)) or [count - 1]


def _strip(area: Area, side: int) -> int | None:
    length = max(area.height, area.width)
    room = length - side
    return None if room < _THINNEST_STRIP_PX else min(max(length // _HELD_OUT, _THINNEST_STRIP_PX), room)


def _upper(area: Area, strip: int) -> Area:
    return area._replace(y1=area.y1 - strip) if area.height >= area.width else area._replace(x1=area.x1 - strip)


def _lower(area: Area, strip: int) -> Area:
    return area._replace(y0=area.y1 - strip) if area.height >= area.width else area._replace(x0=area.x1 - strip)
