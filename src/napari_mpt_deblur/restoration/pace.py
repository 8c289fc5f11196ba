"""How fast a network is here: measured once, on noise, so that a run's time can be told before it begins."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import numpy as np
import torch

from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.networks.guard import is_out_of_memory
from napari_mpt_deblur.networks.host_memory import kept_memory
from napari_mpt_deblur.restoration.devices import pick_precision
from napari_mpt_deblur.restoration.runner import NotFiniteError, Runner

_SIDE_PX = 128  # rounded up to the size rule of the network
_PATIENCE_S = 1.0  # a first pass that took longer is not repeated
_FAST_S, _WIDER = 0.25, 3  # one that took less is repeated on a square of so many times its side

_measured: dict[tuple[str, str, str, int], float] = {}


def seconds_per_megapixel(
    model: Model, device: str, precision: str, max_pixels: int, threads: int | None = None
) -> float:
    """Seconds that a million pixels take on the way through a model's network.

    Two passes, of which the second counts, are made for each model, device, precision and number of threads of the
    process; the answer is kept. The first holds the costs of a first time. Where the network is fast, the second is of
    a larger tile: small ones take longer for each pixel than those of a run. A GPU is faster with full batches than
    this says. Of a device that has no memory even for this, the CPU's pace is told: there a run would end.

    Parameters
    ----------
    model : Model
    device, precision : str
        Resolved, not "auto".
    max_pixels : int
        That a run gives to a tile: a pass has no more, but for the network's size rule.
    threads : int, optional
        Processor threads; torch's own number by default.

    Returns
    -------
    float
    """
    key = (model.sha256, device, precision, threads or torch.get_num_threads())
    if key not in _measured:
        try:
            _measured[key] = _measure(model, Runner(model.network, device, precision, threads), max_pixels)
        except (RuntimeError, MemoryError) as error:
            if device == "cpu" or not is_out_of_memory(error):
                raise
            slow = pick_precision("float32" if precision == "float32" else "auto", "cpu", model.config.network)
            return seconds_per_megapixel(model, "cpu", slow, max_pixels, threads)
    return _measured[key]


def _measure(model: Model, runner: Runner, max_pixels: int) -> float:
    network = model.config.network
    multiple = network.size_multiple
    most = max(1, math.isqrt(max_pixels) // multiple)  # in units of it
    units = min(-(-_SIDE_PX // multiple), most)

    def seconds(units: int) -> float:
        side = units * multiple
        return _timed(runner, np.random.default_rng(0).random((1, network.in_channels, side, side), np.float32))

    with kept_memory():  # as a run has it
        taken = seconds(units)
        if taken < _PATIENCE_S:
            if taken < _FAST_S:
                units = min(_WIDER * units, most)
            taken = seconds(units)
    return taken / ((units * multiple) ** 2 / 1e6)


def _timed(runner: Runner, tile: np.ndarray) -> float:
    begun = time.perf_counter()
    with suppress(NotFiniteError):  # the run will tell, and redo it in float32
        runner(tile)
    return time.perf_counter() - begun
