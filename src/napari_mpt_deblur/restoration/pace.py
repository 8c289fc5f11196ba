"""How fast a network is here: measured once, on noise, so that a run's time can be told before it begins."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import torch

from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.restoration.devices import pick_precision
from napari_mpt_deblur.restoration.guard import is_out_of_memory
from napari_mpt_deblur.restoration.runner import NotFiniteError, Runner

_SIDE_PX = 128  # rounded up to the size rule of the network
_PATIENCE_S = 1.0  # a first pass that took longer is not repeated

_measured: dict[tuple[str, str, str, int], float] = {}


def seconds_per_megapixel(model: Model, device: str, precision: str, threads: int | None = None) -> float:
    """Seconds that a million pixels take on the way through a model's network.

    Two passes of one small tile, of which the second counts, are made for each model, device, precision and number of
    threads of the process; the answer is kept. A GPU is faster with full batches than this says. Of a device that has
    no memory even for this, the CPU's pace is told: there a run would end.

    Parameters
    ----------
    model : Model
    device, precision : str
        Resolved, not "auto".
    threads : int, optional
        Processor threads; torch's own number by default.

    Returns
    -------
    float
    """
    key = (model.sha256, device, precision, threads or torch.get_num_threads())
    if key not in _measured:
        try:
            _measured[key] = _measure(model, device, precision, threads)
        except (RuntimeError, MemoryError) as error:
            if device == "cpu" or not is_out_of_memory(error):
                raise
            slow = pick_precision("float32" if precision == "float32" else "auto", "cpu", model.config.network)
            return seconds_per_megapixel(model, "cpu", slow, threads)
    return _measured[key]


def _measure(model: Model, device: str, precision: str, threads: int | None) -> float:
    network = model.config.network
    side = -(-_SIDE_PX // network.size_multiple) * network.size_multiple
    tile = np.random.default_rng(0).random((1, network.in_channels, side, side), np.float32)
    runner = Runner(model.network, device, precision, threads)
    seconds = _timed(runner, tile)
    if seconds < _PATIENCE_S:  # it held the costs of a first time
        seconds = _timed(runner, tile)
    return seconds / (side**2 / 1e6)


def _timed(runner: Runner, tile: np.ndarray) -> float:
    begun = time.perf_counter()
    with suppress(NotFiniteError):  # the run will tell, and redo it in float32
        runner(tile)
    return time.perf_counter() - begun
