"""Tiles back to a plane, band by band: what is complete is handed out, so that no whole plane is held."""

from __future__ import annotations

import numpy as np

from napari_mpt_deblur.tiling.plan import Region, Tile, TilePlan


class Blender:
    """Weighs and sums the tiles of a plane, or of a region of it, given row by row.

    Parameters
    ----------
    plan : TilePlan
    region : tuple of int, optional
        (y0, x0, y1, x1) of the plane; all of it by default.
    channels : int
        Channels of the tiles.

    Attributes
    ----------
    tiles : tuple of Tile
        The tiles to `add`, in this order.
    """

    def __init__(self, plan: TilePlan, region: Region | None = None, channels: int = 1) -> None:
        self.plan = plan
        self.region = region or (0, 0, plan.height, plan.width)
        self.tiles = plan.tiles_for(self.region)
        self._last_of_row = {tile.row: tile for tile in self.tiles}
        y0, x0, y1, x1 = self.region
        self._columns = (x0 + plan.left, x1 + plan.left)
        self._next = y0 + plan.top  # first row, on the padded plane, that was not handed out
        self._stop = y1 + plan.top
        self._sums = np.zeros((channels, plan.tile_height, x1 - x0), np.float32)
        self._first = self.tiles[0].y  # row of the padded plane that the first row of sums is

    def add(self, tile: Tile, values: np.ndarray) -> tuple[int, np.ndarray] | None:
        """Add one tile.

        Parameters
        ----------
        tile : Tile
            The next of `tiles`.
        values : ndarray
            (channels, tile height, tile width) float32.

        Returns
        -------
        tuple of int and ndarray, or None
            When the tile completes rows of the region: the first of them, counted in the plane, and their values,
            (channels, rows, width of the region) float32.
        """
        self._move_to(tile.y)
        plan = self.plan
        first, stop = max(self._columns[0], tile.x), min(self._columns[1], tile.x + plan.tile_width)
        inside = slice(first - tile.x, stop - tile.x)
        weighted = values[:, :, inside] * plan.row_weights[tile.row][:, None]
        weighted *= plan.column_weights[tile.column][inside]
        self._sums[:, :, first - self._columns[0] : stop - self._columns[0]] += weighted
        return self._finished(tile) if self._last_of_row[tile.row] is tile else None

    def _move_to(self, y: int) -> None:
        """Let the first row of sums be row y; rows above it are complete and were handed out."""
        step = y - self._first
        if step:
            kept = self._sums[:, step:].copy()
            self._sums[:, : kept.shape[1]] = kept
            self._sums[:, kept.shape[1] :] = 0
            self._first = y

    def _finished(self, tile: Tile) -> tuple[int, np.ndarray] | None:
        below = tile.row + 1
        stop = self.plan.rows[below] if below in self._last_of_row else tile.y + self.plan.tile_height
        first, stop = self._next, min(stop, self._stop)
        if stop <= first:
            return None
        self._next = stop
        return first - self.plan.top, self._sums[:, first - self._first : stop - self._first].copy()
