"""One run over many planes of one size: batches, tiles, pooled statistics, and what to do when memory runs out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from torch import nn

from napari_mpt_deblur.errors import ModelError, OutOfMemoryError
from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.networks.guard import free_memory, is_out_of_memory
from napari_mpt_deblur.restoration.planes import PlaneGroup, PlanePixels, ReducedPixels
from napari_mpt_deblur.restoration.runner import Finish, NotFiniteError, Runner
from napari_mpt_deblur.restoration.settings import Settings
from napari_mpt_deblur.tiling import Blender, Region, Tile

Pixels = PlanePixels | ReducedPixels
Prepare = Callable[[PlaneGroup], Pixels]

NO_ROOM = "The memory does not suffice even for the smallest tile: close other programs, or restore a part."


class Session:
    """Restores planes one after the other.

    A plane that is one tile goes through the network whole, in a batch with others if they are small. A larger one is
    read tile by tile: first a few samples that measure its channel attention, then all tiles, which share it.

    Planes that are under way when memory runs out, or half precision overflows, are begun again with other settings,
    which then hold for the rest of the run; those that are done stay.

    Parameters
    ----------
    network : nn.Module
    settings : Settings
    height, width : int
        Of each plane.
    region : tuple of int
        (y0, x0, y1, x1) of each plane, what to restore.
    threads : int, optional

    Attributes
    ----------
    settings : Settings
        In use now; what memory did not allow is given up for the rest of the run.
    notes : list of str
        What was given up, for the record.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: Settings,
        height: int,
        width: int,
        region: Region,
        threads: int | None = None,
    ) -> None:
        self.notes: list[str] = []
        self._network, self._region, self._threads = network, region, threads
        self._size = (height, width)
        self._runner: Runner | None = None
        self._use(settings)

    @property
    def all_notes(self) -> list[str]:
        """`notes`, and what the user should know of the tiles."""
        agree = len(self.plan.tiles) == 1 or self.settings.network.tiles_agree
        return self.notes + ([] if agree else ["in tiles, which this network restores otherwise than a whole plane"])

    @property
    def tiles_per_plane(self) -> int:
        return len(self._tiles)

    @property
    def channel_statistics(self) -> str:
        """Where the channel attention takes its statistics from, in words."""
        if len(self.plan.tiles) == 1:
            return "whole plane"
        if not self.settings.network.pools_channels:
            return "each tile's own"
        side, offsets = self.settings.samples(self.plan)
        return f"pooled over {len(offsets)} samples of {side} x {side} pixels of each plane"

    def restore(self, groups: tuple[PlaneGroup, ...], prepare: Prepare) -> Iterator[tuple[int, int, PlaneGroup]]:
        """Restore planes; yields the tiles done, all tiles, and the plane, after every batch.

        Raises
        ------
        OutOfMemoryError
            If memory does not suffice for the smallest tile.
        ModelError
            If the model computes something that is not a number.
        """
        position = 0
        while position < len(groups):
            size = self.settings.batch_for(self.plan) if len(self.plan.tiles) == 1 else 1
            chunk = groups[position : position + size]
            try:
                for tiles in self._attempt(chunk, prepare):
                    yield position * self.tiles_per_plane + tiles, len(groups) * self.tiles_per_plane, chunk[-1]
                position += len(chunk)
                continue
            except NotFiniteError:
                failure: BaseException | None = None
            except (RuntimeError, MemoryError, OSError) as error:
                if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # the traceback holds on to the tensors
            self._give_up(failure)

    def _attempt(self, chunk: tuple[PlaneGroup, ...], prepare: Prepare) -> Iterator[int]:
        """Restore a few planes with the present settings; yields the number of tiles done."""
        if self._runner is None:
            self._runner = Runner(self._network, self.settings.device, self.settings.precision, self._threads)
        pixels = [prepare(group) for group in chunk]
        work = [plane for plane in pixels if not plane.is_constant]
        for plane in pixels:
            if plane.is_constant:
                plane.write_unchanged()
        if len(self.plan.tiles) > 1 and work:
            yield from self._tiled(self._runner, work[0])
        elif work:
            self._whole(self._runner, work)
        for plane in work:
            plane.finish()
        yield len(chunk) * self.tiles_per_plane

    def _whole(self, runner: Runner, planes: list[Pixels]) -> None:
        """Planes of one tile each, in one batch."""
        plan = self.plan
        index = plan.source(0, 0, plan.tile_height, plan.tile_width)
        restored = runner(np.stack([plane.read(*index) for plane in planes]))
        y0, x0, y1, x1 = self._region
        for plane, values in zip(planes, restored, strict=True):
            plane.write(y0, values[:, plan.top + y0 : plan.top + y1, plan.left + x0 : plan.left + x1])

    def _tiled(self, runner: Runner, plane: Pixels) -> Iterator[int]:
        """One plane of several tiles; yields the number of tiles done, after every batch but the last."""
        plan = self.plan
        pool = self._measure(runner, plane) if self.settings.network.pools_channels else None
        blender: Blender | None = None
        done = 0
        for few, finish in self._passes(runner, plane, pool):
            restored = finish()
            blender = blender or Blender(plan, self._region, restored.shape[1])
            for tile, values in zip(few, restored, strict=True):
                finished = blender.add(tile, values)
                if finished is not None:
                    plane.write(*finished)
            done += len(few)
            if done < len(self._tiles):
                yield done

    def _passes(
        self, runner: Runner, plane: Pixels, pool: ChannelPool | None
    ) -> Iterator[tuple[tuple[Tile, ...], Finish]]:
        """Batches of tiles, each begun; where the device computes by itself, the next is begun before one is given."""
        plan, batch = self.plan, self.settings.batch_for(self.plan)
        begun: deque[tuple[tuple[Tile, ...], Finish]] = deque()
        for first in range(0, len(self._tiles), batch):
            few = self._tiles[first : first + batch]
            sources = (plan.source(tile.y, tile.x, plan.tile_height, plan.tile_width) for tile in few)
            begun.append((few, runner.begin(np.stack([plane.read(*source) for source in sources]), pool)))
            if len(begun) > runner.overlaps:
                yield begun.popleft()
        yield from begun

    def _measure(self, runner: Runner, plane: Pixels) -> ChannelPool:
        side, offsets = self.settings.samples(self.plan)
        squares = [plane.read(*self.plan.source(y, x, side, side)) for y, x in offsets]
        area = self.plan.padded_height * self.plan.padded_width
        return runner.measure(np.stack(squares), area / (side**2 * len(squares)))

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self.plan = settings.plan(*self._size)
        self._tiles = self.plan.tiles_for(self._region)  # once: this is asked for after every batch
        self._runner = None

    def _give_up(self, failure: BaseException | None) -> None:
        """Change the settings after a failed attempt: to float32, or to what needs less memory."""
        device = self.settings.device
        if failure is None:
            exact = self.settings.exact()
            if exact is None:
                raise ModelError("The model computes values that are not numbers on this image: choose another model.")
            self.notes.append(f"{self.settings.precision} overflowed: redone in float32")
            self._use(exact)
            return
        # without a runner it is the model itself that found no room, which smaller tiles do not make
        less = self.settings.smaller(self.plan) if self._runner is not None else self.settings.on_cpu()
        if less is None:
            raise OutOfMemoryError(NO_ROOM) from failure
        self.notes.append(f"out of memory on {device}: {less[1]}")
        self._use(less[0])
        free_memory(device)
