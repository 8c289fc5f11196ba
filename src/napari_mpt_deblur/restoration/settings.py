"""How a run uses its device, and what it gives up, step by step, when memory does not suffice."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.networks.build import NetworkConfig
from napari_mpt_deblur.restoration.devices import (
    batch_budget_px,
    bytes_per_pixel,
    pick_precision,
    tile_budget_px,
)
from napari_mpt_deblur.tiling import TilePlan

OVERLAP_PX = 64  # rounded up to the size rule of the network
# fewest and most squares, of twice the size rule: few large ones see more of what a plane does to its features
_LARGE_SAMPLES = (4, 8)
_SMALL_SAMPLES = (4, 16)  # of the size rule itself, where memory does not suffice for large ones
_MAX_BATCH = 64


class Asked(NamedTuple):
    """What the user chose of them; None leaves it to the engine."""

    tile_px: int | tuple[int, int] | None = None
    batch: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True)
class Settings:
    """Device, precision, tile and batch of a run.

    Attributes
    ----------
    network : MPTConfig or SpandrelConfig
    device, precision : str
        Resolved, not "auto".
    max_pixels : int
        Most pixels of an automatic tile, and of the samples that measure channel attention.
    tile_px : int, tuple of int or None
        Side of the tiles, or height and width; None chooses.
    batch : int or None
        Tiles in one forward pass; None chooses.
    asked : Asked
        What the last three are to be where memory suffices: on another device they are tried anew.
    """

    network: NetworkConfig
    device: str
    precision: str
    max_pixels: int
    tile_px: int | tuple[int, int] | None
    batch: int | None
    asked: Asked

    @classmethod
    def of(
        cls,
        network: NetworkConfig,
        device: str,
        precision: str,
        tile_px: int | tuple[int, int] | None = None,
        batch: int | None = None,
        max_pixels: int | None = None,
    ) -> Settings:
        """Settings for a device; `precision` may be "auto"."""
        precision = pick_precision(precision, device, network)
        most = tile_budget_px(network, device, precision) if max_pixels is None else max_pixels
        return cls(network, device, precision, most, tile_px, batch, Asked(tile_px, batch, max_pixels))

    def plan(self, height: int, width: int) -> TilePlan:
        """The tiles of a plane."""
        return TilePlan.of(
            height,
            width,
            multiple=self.network.size_multiple,
            overlap_px=OVERLAP_PX,
            tile_px=self.tile_px,
            max_pixels=self.max_pixels,
        )

    def batch_for(self, plan: TilePlan) -> int:
        """Tiles in one forward pass."""
        if self.batch is not None:
            return self.batch
        return max(1, min(_MAX_BATCH, batch_budget_px(self.device, self.max_pixels) // plan.tile_pixels))

    def samples(self, plan: TilePlan) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Side and offsets of the squares on which a plane of several tiles measures its channel attention."""
        multiple = self.network.size_multiple
        large = min(2 * multiple, plan.padded_height, plan.padded_width)
        side, (fewest, most) = large, _LARGE_SAMPLES
        if large == multiple or self.max_pixels < fewest * large**2:
            side, (fewest, most) = multiple, _SMALL_SAMPLES
        return side, plan.samples(side, max(fewest, min(most, self.max_pixels // side**2)), multiple)

    def memory_bytes(self, plan: TilePlan, planes: int = 1) -> int:
        """Estimated peak memory of a forward pass; planes that are one tile go through the network together."""
        pixels = plan.tile_pixels * min(self.batch_for(plan), len(plan.tiles) if len(plan.tiles) > 1 else planes)
        if len(plan.tiles) > 1:
            pixels = max(pixels, self._sampled_pixels(plan))
        return int(pixels * bytes_per_pixel(self.network, self.precision, self.device))

    def smaller(self, plan: TilePlan) -> tuple[Settings, str] | None:
        """What to try when memory does not suffice, and its description; None when nothing is left to try.

        First half the batch, then fewer and smaller samples, then half the tile, then the CPU.
        """
        batch = self.batch_for(plan)
        if batch > 1:
            batch //= 2
            fits = min(self.max_pixels, batch * plan.tile_pixels)  # the samples shrink along
            return replace(self, batch=batch, max_pixels=fits), f"batch halved to {batch}"
        if len(plan.tiles) > 1 and self.max_pixels > plan.tile_pixels:
            fewer = replace(self, max_pixels=plan.tile_pixels)
            if fewer.plan(plan.height, plan.width) == plan and fewer._sampled_pixels(plan) < self._sampled_pixels(plan):
                return fewer, "channel statistics from fewer pixels"
        halved = replace(self, tile_px=None, max_pixels=plan.tile_pixels // 2)
        tile = halved.plan(plan.height, plan.width)
        if tile.tile_pixels < plan.tile_pixels:
            return halved, f"tile reduced to {tile.tile_height} x {tile.tile_width}"
        return self.on_cpu()

    def on_cpu(self) -> tuple[Settings, str] | None:
        """The last thing to try, and its description; None on the CPU itself."""
        if self.device == "cpu":
            return None
        precision = "float32" if self.precision == "float32" else "auto"  # what was asked to be exact stays so
        return Settings.of(self.network, "cpu", precision, *self.asked), "moved to the CPU"

    def _sampled_pixels(self, plan: TilePlan) -> int:
        if not self.network.pools_channels:
            return 0
        side, offsets = self.samples(plan)
        return side**2 * len(offsets)

    def exact(self) -> Settings | None:
        """The same in float32, in as much memory; None if it is in float32 already."""
        if self.precision == "float32":
            return None
        half, full = (bytes_per_pixel(self.network, each, self.device) for each in (self.precision, "float32"))
        return replace(self, precision="float32", max_pixels=max(1, int(self.max_pixels * half / full)))


def whole_number(number: Any, name: str) -> int | None:
    """A number of at least 1, numpy's too, or None.

    Raises
    ------
    ParameterError
        If it is another.
    """
    if number is None:
        return None
    try:
        whole = operator.index(number)
    except TypeError:
        whole = 0
    if isinstance(number, bool) or whole < 1:
        raise ParameterError(f"{name} must be a whole number of at least 1; got {number!r}.")
    return whole


def tile_sides(tile_px: Any) -> int | tuple[int, int] | None:
    """The side of a tile, or its height and width, or None.

    Raises
    ------
    ParameterError
        If it is something else.
    """
    if not isinstance(tile_px, (list, tuple)):
        return whole_number(tile_px, "tile")
    height, width = (whole_number(side, "tile") for side in tile_px) if len(tile_px) == 2 else (None, None)
    if height is None or width is None:
        raise ParameterError(f"tile must be a whole number, or height and width; got {tile_px!r}.")
    return height, width
