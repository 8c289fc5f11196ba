"""Probabilities and distances of a plane, tile by tile, the same whatever the tiles."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch

from napari_mpt_deblur.detection.layout import conv_layers, grid_steps
from napari_mpt_deblur.detection.network import StarDistNetwork
from napari_mpt_deblur.errors import ImageError, OutOfMemoryError, ParameterError
from napari_mpt_deblur.networks.guard import free_memory, is_out_of_memory

Region = tuple[int, int, int, int]  # y0, x0, y1, x1, multiples of the size divisor

_BUDGET_BYTES = 400e6  # of a tile; with torch and the rest of the process, a run then stays under 1 GB


@dataclass(frozen=True, eq=False)
class TilePrediction:
    """What the network says about one tile.

    Attributes
    ----------
    y, x : int
        Where the tile begins on the grid.
    prob : ndarray
        (rows, columns) float32, of the grid.
    dist : ndarray
        (rows, columns, n_rays) float32 in pixels, as the network gives them.
    done, total : int
        Tiles, this one counted.
    """

    y: int
    x: int
    prob: np.ndarray
    dist: np.ndarray
    done: int
    total: int


def predict(
    network: StarDistNetwork, image: np.ndarray, *, tile_px: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and distances of a plane of any size.

    Parameters
    ----------
    network : StarDistNetwork
    image : ndarray
        (C, Y, X), normalised to about 0..1.
    tile_px : int, optional
        Side of the tiles, without what they share; as memory allows by default. Results do not depend on it.

    Returns
    -------
    prob : ndarray
        (rows, columns) float32, one for each square of the grid that lies in the image or begins in it.
    dist : ndarray
        (rows, columns, n_rays) float32 in pixels, at least 0.001, as StarDist's ``predict`` gives them.

    Raises
    ------
    ImageError
        If the image has not the network's channels.
    OutOfMemoryError
        If not even the smallest tile fits the memory.
    """
    config = network.config
    rows, columns = grid_shape(network, image.shape[-2:])
    prob = np.empty((rows, columns), np.float32)
    dist = np.empty((rows, columns, config.n_rays), np.float32)
    for tile in predict_tiles(network, image, tile_px=tile_px):
        here = np.s_[tile.y : tile.y + tile.prob.shape[0], tile.x : tile.x + tile.prob.shape[1]]
        prob[here], dist[here] = tile.prob, np.maximum(tile.dist, 1e-3)
    y, x = (-(-length // step) for length, step in zip(image.shape[-2:], config.grid, strict=True))
    return prob[:y, :x], dist[:y, :x]


def grid_shape(network: StarDistNetwork, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the grid of a plane that was padded to the network's size divisor."""
    rows, columns = (
        -(-length // divisor) * divisor // step
        for length, divisor, step in zip(shape, network.size_divisor, network.config.grid, strict=True)
    )
    return rows, columns


def predict_tiles(
    network: StarDistNetwork, image: np.ndarray, *, tile_px: int | None = None
) -> Generator[TilePrediction, None, None]:
    """`predict`, tile by tile: the whole padded plane, in rows of tiles, without holding more than one.

    Each tile is read with all that its output depends on, from the plane padded by reflection at its end as StarDist
    does. Where memory does not suffice for a tile, its halves are predicted one after the other.
    """
    config = network.config
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or image.shape[0] != config.n_channel_in or 0 in image.shape:
        raise ImageError(f"The model takes planes of {config.n_channel_in} channels; got an array {image.shape}.")
    if tile_px is not None and tile_px < 1:
        raise ParameterError(f"tile_px must be at least 1; got {tile_px}.")
    padding = ((0, 0), *((0, -n % d) for n, d in zip(image.shape[1:], network.size_divisor, strict=True)))
    padded = np.pad(image, padding, mode="reflect")
    side = tile_px or default_tile_px(network)
    step = [max(1, round(side / divisor)) * divisor for divisor in network.size_divisor]
    height, width = padded.shape[1:]
    starts = [(y, x) for y in range(0, height, step[0]) for x in range(0, width, step[1])]
    for number, (y, x) in enumerate(starts):
        region = (y, x, min(height, y + step[0]), min(width, x + step[1]))
        prob, dist = _predict_region(network, padded, region)
        yield TilePrediction(y // config.grid[0], x // config.grid[1], prob, dist, number + 1, len(starts))


def default_tile_px(network: StarDistNetwork) -> int:
    """Side of the tiles that the memory of a run is meant for."""
    return max(max(network.size_divisor), int(math.sqrt(_BUDGET_BYTES / _bytes_per_pixel(network))))


def _bytes_per_pixel(network: StarDistNetwork) -> float:
    """Estimated peak memory of a forward pass: the widest convolution and the skip connections kept meanwhile."""
    config = network.config
    widest = 0.0
    for layer in conv_layers(config):
        parts = layer.name.split("_")
        pixels = 1.0 / math.prod(config.grid)
        if parts[0] == "grid":
            pixels = 1.0 / math.prod(math.prod(step) for step in grid_steps(config)[: int(parts[1])])
        elif "level" in parts:
            pixels /= math.prod(config.unet_pool) ** int(parts[2])
        widest = max(widest, pixels * (layer.channels_in + 2 * layer.channels_out))
    skips = sum(
        config.filters(level) / math.prod(config.unet_pool) ** level for level in range(config.unet_n_depth)
    ) / math.prod(config.grid)
    return 4 * (widest + skips)


def _predict_region(network: StarDistNetwork, padded: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """A part of the padded plane, in halves of halves where memory does not suffice."""
    failed = None
    try:
        return _forward(network, padded, region)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = str(error)  # not the error itself, which holds on to the memory
    free_memory(_device(network).type)
    y0, x0, y1, x1 = region
    counts = [length // divisor for length, divisor in zip((y1 - y0, x1 - x0), network.size_divisor, strict=True)]
    axis = 0 if counts[0] >= counts[1] else 1
    if counts[axis] == 1:
        raise OutOfMemoryError(
            f"Not even a tile of {y1 - y0} x {x1 - x0} pixels fits the memory ({failed[:80]}): choose the device cpu, "
            "or close other programs."
        )
    middle = region[axis] + counts[axis] // 2 * network.size_divisor[axis]
    halves = ((y0, x0, middle, x1), (middle, x0, y1, x1)) if axis == 0 else ((y0, x0, y1, middle), (y0, middle, y1, x1))
    parts = [_predict_region(network, padded, half) for half in halves]
    prob, dist = (np.concatenate([part[i] for part in parts], axis) for i in (0, 1))
    return prob, dist


def _forward(network: StarDistNetwork, padded: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """A region read with its context where the plane has it; at the plane's own edge zeros follow, as in the whole."""
    read, keep = [], []
    for axis in (0, 1):
        length, divisor, grid = padded.shape[axis + 1], network.size_divisor[axis], network.config.grid[axis]
        before, after = (-(-context // divisor) * divisor for context in network.context_px[axis])
        start, stop = region[axis], region[axis + 2]
        low = max(0, start - before)
        read.append(slice(low, min(length, stop + after)))
        keep.append(slice((start - low) // grid, (stop - low) // grid))
    pixels = torch.from_numpy(np.ascontiguousarray(padded[:, read[0], read[1]])[None])
    with torch.inference_mode():
        prob, dist = network(pixels.to(_device(network)))
        return (
            prob[0, 0, keep[0], keep[1]].float().cpu().numpy().copy(),
            dist[0, :, keep[0], keep[1]].permute(1, 2, 0).float().cpu().numpy().copy(),
        )


def _device(network: StarDistNetwork) -> torch.device:
    return next(network.parameters()).device
