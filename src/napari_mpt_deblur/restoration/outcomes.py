"""What the engine says before, during and after a run, in plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_mpt_deblur.images import PlaneIndex
from napari_mpt_deblur.words import describe_seconds


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    done, total : int
        Tiles. The total changes where a run goes on with smaller tiles for want of memory.
    plane : PlaneIndex
        The plane that was worked on last.
    measuring : bool
        Whether the image's intensities are being measured, before the first tile.
    """

    done: int
    total: int
    plane: PlaneIndex
    measuring: bool = False


@dataclass(frozen=True, eq=False)
class Restored:
    """A result.

    Attributes
    ----------
    array : array
        The restored image, or the `out` that was given.
    record : dict
        What was done, in plain data: enough to do it again.
    """

    array: Any
    record: dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    tiles, forwards : int
        Tiles to restore, and passes through the network, those that measure channel statistics included.
    megapixels : float
        That go through the network, padding and overlaps included.
    memory_bytes : int
        Peak memory of a pass, beyond the image, the result and the model.
    """

    tiles: int
    forwards: int
    megapixels: float
    memory_bytes: int

    def describe(self, seconds_per_megapixel: float) -> str:
        """What a run will take, for people."""
        tiles = "1 tile" if self.tiles == 1 else f"{self.tiles} tiles"
        memory = f"{max(0.1, self.memory_bytes / 1e9):.1f} GB"
        return f"{tiles}, {describe_seconds(self.megapixels * seconds_per_megapixel)} and {memory} of memory"
