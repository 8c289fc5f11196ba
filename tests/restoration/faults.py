"""Failures injected into the engine."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.networks import MPT
from napari_mpt_deblur.restoration import Deblurrer, runner
from napari_mpt_deblur.restoration.planes import PlanePixels
from napari_mpt_deblur.restoration.request import Request
from napari_mpt_deblur.restoration.runner import Finish, Runner
from napari_mpt_deblur.tiling import Blender

NO_MEMORY: dict[str, Exception] = {
    "accelerator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "python": MemoryError(),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 9.00 GB)."),
}
MORE_NO_MEMORY: dict[str, Exception] = {
    "windows": RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "one tensor on mps": RuntimeError("Invalid buffer size: 38.15 GB"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "c++": RuntimeError("std::bad_alloc"),
    "mapped file": OSError(errno.ENOMEM, "Cannot allocate memory"),
}
STAGES: dict[str, tuple[Any, str]] = {
    "a plane is read": (PlanePixels, "__init__"),
    "channel statistics are measured": (Runner, "measure"),
    "a tile is read": (PlanePixels, "read"),
    "a batch is sent": (Runner, "_sent"),
    "a batch is computed": (MPT, "forward"),
    "a batch is fetched": (Runner, "_fetched"),
    "tiles are blended": (Blender, "add"),
    "rows become pixels": (PlanePixels, "write"),
    "pixels are written": (Request, "write"),
}
"""Where memory can run out within a run: a function of the engine for each."""


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, when: Callable[[Runner, np.ndarray], bool]) -> list[str]:
    """Let forward passes fail; returns a list that grows by each failure."""
    forward, failures = Runner.begin, []

    def begin(self: Runner, tiles: np.ndarray, pool: Any = None) -> Finish:
        if when(self, tiles):
            failures.append(str(tiles.shape))
            raise error
        return forward(self, tiles, pool)

    monkeypatch.setattr(Runner, "begin", begin)
    return failures


def failing_at(
    monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], error: Exception, calls: Callable[[int], bool]
) -> list[int]:
    """Let a function fail in calls of these numbers, from 1 on; returns a list that grows by each failure."""
    owner, name = place
    original, called, failures = getattr(owner, name), [], []

    def call(*args: Any, **kwargs: Any) -> Any:
        called.append(1)
        if calls(len(called)):
            failures.append(len(called))
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return failures


def on_fake_accelerator(monkeypatch: pytest.MonkeyPatch, model: Model, precision: str) -> Deblurrer:
    """An engine that takes its device for a CUDA device; a pass on it never has memory."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (8 * 10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(runner, "_on", lambda network, device: network)
    deblurrer = Deblurrer(model)
    deblurrer.device = "cuda"
    deblurrer.settings = type(deblurrer.settings).of(model.config.network, "cuda", precision)
    return deblurrer
