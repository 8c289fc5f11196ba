"""The tiles of a plane: equal rectangles on the padded plane, their offsets multiples of the network's size rule.

A network with windows sees a tile as it sees the whole plane only where its windows fall on the same pixels; offsets
are therefore multiples of the network's `size_multiple`, and what is left to blend away is the influence of the tile's
edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import ParameterError

_BLEND_PX = 32  # on either side of the middle of an overlap, one tile passes into the next

Region = tuple[int, int, int, int]
"""Rows and columns of a plane, (y0, x0, y1, x1), the ends excluded."""


@dataclass(frozen=True)
class Tile:
    """One tile: its first row and column on the padded plane, and its place in the grid of tiles."""

    y: int
    x: int
    row: int
    column: int


@dataclass(frozen=True)
class TilePlan:
    """Equal, overlapping tiles that cover a plane; `TilePlan.of` makes one.

    Attributes
    ----------
    height, width : int
        Of the plane, in pixels.
    padded_height, padded_width : int
        Of the plane continued by reflection, evenly on opposite sides, to what the network accepts.
    tile_height, tile_width : int
        Of every tile.
    rows, columns : tuple of int
        First rows and first columns of the grid of tiles, on the padded plane.
    overlap_px : int
        Neighbouring tiles share at least this many pixels.
    """

    height: int
    width: int
    padded_height: int
    padded_width: int
    tile_height: int
    tile_width: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    overlap_px: int

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        *,
        multiple: int = 1,
        overlap_px: int = 64,
        tile_px: int | tuple[int, int] | None = None,
        max_pixels: int = 2**20,
    ) -> TilePlan:
        """Plan the tiles of a plane.

        Parameters
        ----------
        height, width : int
            Of the plane, at least 1.
        multiple : int
            Sides and offsets of the tiles are multiples of this.
        overlap_px : int
            Least overlap of neighbouring tiles; rounded up to a multiple.
        tile_px : int or tuple of int, optional
            Side of a tile, or its height and width, rounded up to what overlap and multiple allow. None chooses the
            tiles that cost the fewest pixels in all.
        max_pixels : int
            Most pixels of an automatic tile; the smallest tile that the overlap allows may have more.

        Raises
        ------
        ParameterError
            If a number is outside what it accepts.
        """
        asked = (tile_px, tile_px) if isinstance(tile_px, int) else tile_px
        if asked is not None and min(asked) < 1:
            raise ParameterError(f"The tile size must be at least 1 pixel; got {tile_px}. Leave it out for automatic.")
        if min(height, width, multiple) < 1 or overlap_px < 0:
            raise ParameterError(
                f"Height, width and multiple must be at least 1 and the overlap at least 0; "
                f"got {height}, {width}, {multiple}, {overlap_px}."
            )
        needed = (_ceil(height, multiple), _ceil(width, multiple))  # all in units of `multiple` from here
        overlap = _ceil(overlap_px, multiple)
        if asked is None:
            sides = _cheapest(needed, overlap, max(1, max_pixels // multiple**2))
        else:
            height_units, width_units = (max(_ceil(side, multiple), overlap + 1) for side in asked)
            sides = (min(height_units, needed[0]), min(width_units, needed[1]))
        rows, columns = (_spread(n, side, overlap, multiple) for n, side in zip(needed, sides, strict=True))
        padded, tile = ([n * multiple for n in lengths] for lengths in (needed, sides))
        return cls(height, width, padded[0], padded[1], tile[0], tile[1], rows, columns, overlap * multiple)

    @property
    def top(self) -> int:
        """Rows of padding above the plane."""
        return (self.padded_height - self.height) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the plane."""
        return (self.padded_width - self.width) // 2

    @property
    def tile_pixels(self) -> int:
        return self.tile_height * self.tile_width

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, row by row."""
        return tuple(
            Tile(y, x, row, column) for row, y in enumerate(self.rows) for column, x in enumerate(self.columns)
        )

    def tiles_for(self, region: Region) -> tuple[Tile, ...]:
        """The tiles that a region of the plane depends on, row by row."""
        y0, x0, y1, x1 = region
        top, left = y0 + self.top, x0 + self.left
        bottom, right = y1 + self.top, x1 + self.left
        return tuple(
            tile
            for tile in self.tiles
            if self.row_weights[tile.row][max(0, top - tile.y) : max(0, bottom - tile.y)].any()
            and self.column_weights[tile.column][max(0, left - tile.x) : max(0, right - tile.x)].any()
        )

    @cached_property
    def row_weights(self) -> np.ndarray:
        """(rows of tiles, tile height) float32: the share of each tile in each of its rows; shares sum to 1."""
        return _shares(self.rows, self.tile_height)

    @cached_property
    def column_weights(self) -> np.ndarray:
        """(columns of tiles, tile width) float32, as `row_weights`."""
        return _shares(self.columns, self.tile_width)

    def source(self, y: int, x: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the plane behind a rectangle of the padded plane, as indices for `numpy.ix_`."""
        return (
            reflect(y - self.top, y - self.top + height, self.height),
            reflect(x - self.left, x - self.left + width, self.width),
        )

    def samples(self, side_px: int, count: int, multiple: int) -> tuple[tuple[int, int], ...]:
        """First rows and columns of at most `count` squares, evenly spread over the padded plane.

        Their offsets are multiples of `multiple`; they depend on the plane's size alone, not on its tiles.
        """
        height, width = self.padded_height / side_px, self.padded_width / side_px
        columns = min(max(1, round((count * width / height) ** 0.5)), count)
        rows = max(1, count // columns)
        ys = _middles(self.padded_height, side_px, rows, multiple)
        xs = _middles(self.padded_width, side_px, columns, multiple)
        return tuple((y, x) for y in ys for x in xs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the record of a run."""
        return {
            "tile_px": [self.tile_height, self.tile_width],
            "overlap_px": self.overlap_px,
            "padded_px": [self.padded_height, self.padded_width],
            "rows": list(self.rows),
            "columns": list(self.columns),
        }


def reflect(start: int, stop: int, size: int) -> np.ndarray:
    """Indices start..stop of an axis of `size` pixels, continued by reflection as often as needed.

    As ``numpy.pad(mode="reflect")``, the edge pixel itself is not repeated; an axis of one pixel repeats it.
    """
    index = np.arange(start, stop)
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = index % period
    return np.minimum(index, period - index)


def _ceil(number: int, unit: int) -> int:
    return -(-number // unit)


def _count(needed: int, side: int, overlap: int) -> int:
    return 1 if side >= needed else _ceil(needed - overlap, side - overlap)


def _spread(needed: int, side: int, overlap: int, multiple: int) -> tuple[int, ...]:
    """Offsets of tiles, evenly over an axis; in pixels, from lengths in units of `multiple`."""
    count = _count(needed, side, overlap)
    return tuple(i * (needed - side) // max(1, count - 1) * multiple for i in range(count))


def _cheapest(needed: tuple[int, int], overlap: int, most: int) -> tuple[int, int]:
    """Sides of the tiles, of at most `most` units of area, that together read the fewest units."""
    smallest = [min(n, overlap + 1) for n in needed]
    best = (smallest[0], smallest[1])
    best_cost = None
    for height in range(smallest[0], needed[0] + 1):
        if height * smallest[1] > most:
            break
        for width in range(smallest[1], min(needed[1], most // height) + 1):
            count = _count(needed[0], height, overlap) * _count(needed[1], width, overlap)
            cost = (count * height * width, count, abs(height - width))
            if best_cost is None or cost < best_cost:
                best, best_cost = (height, width), cost
    return best


def _shares(offsets: tuple[int, ...], side: int) -> np.ndarray:
    """Weights of tiles along one axis, which sum to 1 at every pixel: (tiles, side).

    One tile passes smoothly into the next around the middle of their overlap, where both are far from their edges.
    """
    weights = np.ones((len(offsets), side))
    position = np.arange(side) + 0.5
    stride = min((second - first for first, second in pairwise(offsets)), default=side)
    for i, (first, second) in enumerate(pairwise(offsets)):
        middle = (second + first + side) / 2
        reach = min(_BLEND_PX, (first + side - second) / 2, stride / 2)  # one passage ends before the next begins
        if reach:
            weights[i] *= 1 - _ramp((first + position - middle) / (2 * reach) + 0.5)
            weights[i + 1] *= _ramp((second + position - middle) / (2 * reach) + 0.5)
    return weights.astype(np.float32)


def _ramp(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _middles(padded: int, side: int, count: int, multiple: int) -> list[int]:
    last = max(0, padded - side)
    places = ((2 * i + 1) * padded / (2 * count) - side / 2 for i in range(count))
    return sorted({min(last, max(0, round(place / multiple) * multiple)) for place in places})
