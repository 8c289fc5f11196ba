"""What a run will take, before it begins: seconds from one patch that is timed, memory from what that patch keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mpt_deblur.restoration.devices import bytes_per_pixel, pick_device
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.data import TrainingData
from napari_mpt_deblur.training.events import Estimate
from napari_mpt_deblur.training.guard import no_runtime_errors
from napari_mpt_deblur.training.loop import Trainer

_PATIENCE_S = 1.0  # a first step that took longer is not timed again
_VALUES_A_WEIGHT = 9  # weights, gradients, two moments, average; all but gradients twice, to go back to
_WORKING = 0.3  # times a pass's own peak without gradients: what the way back takes beyond what was kept; counted
_LIBRARY_BYTES = 10**8  # of torch's optimisers and buffers, once
_FORWARD_SHARE = 1 / 3  # of a step's time, for one pass


class Noise:
    """Patches that serve for timing."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def images(self, size: int, side: int) -> Tensor:
        return torch.rand(size, self.channels, side, side)

    def batch(self, number: int, size: int, side: int) -> Any:
        return self.images(size, side), self.images(size, side)


class NoiseImages(Noise):
    def batch(self, number: int, size: int, side: int) -> Any:
        return self.images(size, side)


def estimate(config: TrainingConfig, device: str = "auto") -> Estimate:
    """What a run of this configuration takes on this device; trains a network of its own for a step or two.

    One patch of the smallest side goes through a whole step of the method. Time grows with the pixels of a batch; the
    largest batch's memory is what the patch's passes keep for their gradients, by its pixels, and the weights with all
    that belongs to them. The time to draw pairs is not in it.

    Parameters
    ----------
    config : TrainingConfig
    device : str

    Raises
    ------
    DeviceError
        If the device is not present.
    OutOfMemoryError
        If not even one patch fits.
    """
    with no_runtime_errors():
        trainer = _trial(config, pick_device(device))
        side = min(config.patch_px)
        with _kept_bytes(trainer.network) as kept:
            seconds = _timed_step(trainer)
        # autocast keeps a copy of the weights, however many pixels there are
        kept_bytes = max(0, kept[0] - (2 * _count(trainer) if trainer.precision == "bfloat16" else 0))
        if seconds < _PATIENCE_S:
            seconds = _timed_step(trainer)
        return _scaled(config, trainer, seconds / side**2, kept_bytes / side**2)


def _trial(config: TrainingConfig, device: str) -> Trainer:
    channels = config.network.in_channels
    single = _with_one_patch(config)
    noise = Noise(channels)
    data = TrainingData(noise, (), NoiseImages(channels), noise)
    return Trainer(single, Path(), data, device)


def _with_one_patch(config: TrainingConfig) -> TrainingConfig:
    return replace(config, patch_px=(min(config.patch_px),), batch=(1,))


def _timed_step(trainer: Trainer) -> float:
    _wait(trainer.device)
    begun = time.perf_counter()
    trainer.step()
    _wait(trainer.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _kept_bytes(network: nn.Module) -> Iterator[list[int]]:
    """Counts the memory that passes keep for their gradients, weights left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    seen: set[int] = set()
    total = [0]

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen | own:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield total


def _scaled(config: TrainingConfig, trainer: Trainer, seconds_per_px: float, bytes_per_px: float) -> Estimate:
    sizes = [batch * side**2 for side, batch in zip(config.patch_px, config.batch, strict=True)]
    step = seconds_per_px * float(np.mean(sizes))
    validations = config.iterations / config.validate_every * config.validation_pairs
    passes = config.contrast.passes
    validation = validations * 256**2 * seconds_per_px * _FORWARD_SHARE / passes
    bytes_per_px += _WORKING * bytes_per_pixel(config.network, trainer.precision, trainer.device.type)
    memory = _LIBRARY_BYTES + bytes_per_px * max(sizes) + 4 * _VALUES_A_WEIGHT * _count(trainer)
    return Estimate(step, config.iterations * step + validation, int(memory))


def _count(trainer: Trainer) -> int:
    return sum(parameter.numel() for parameter in trainer.network.parameters())
