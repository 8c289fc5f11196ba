"""A tiny model whose output differs clearly from its input, and a way to drive the engine's generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_mpt_deblur.checkpoints import Model, ModelConfig
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPT, MPTConfig
from napari_mpt_deblur.restoration import Deblurrer, Progress, Restored
from napari_mpt_deblur.restoration.runner import Runner


def make_model(channels: int = 1, nucleus_diameter_px: tuple[float, float] | None = None) -> Model:
    torch.manual_seed(7)
    config = MPTConfig.tiny(in_channels=channels)
    network = MPT(config).eval().requires_grad_(False)
    with torch.no_grad():
        network.output.weight.normal_(std=0.02)  # at 1e-3, its start, nothing would show
    return Model(
        "tiny", network, ModelConfig(config, nucleus_diameter_px=nucleus_diameter_px), "0" * 64, torch.device("cpu")
    )


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Model]:
    """Makes tiny models."""
    return make_model


@pytest.fixture(scope="session")
def drive() -> Callable[..., tuple[Restored, list[Progress]]]:
    """Runs a generator to its end."""
    return finish


@pytest.fixture(scope="session")
def model() -> Model:
    return make_model()


@pytest.fixture(scope="session")
def colour_model() -> Model:
    return make_model(channels=3)


@pytest.fixture(scope="session")
def scene() -> Callable[..., np.ndarray]:
    def draw(*shape: int, seed: int = 0) -> np.ndarray:
        """Smooth random blobs of 0 to about 1000, float32."""
        from scipy import ndimage

        noise = np.random.default_rng(seed).random(shape)
        smooth = ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [3, 3])
        return ((smooth - smooth.min()) / np.ptp(smooth) * 1000).astype(np.float32)

    return draw


@pytest.fixture
def overlapping(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A device that computes by itself, acted by the CPU: its outputs arrive when they are waited for."""
    events: list[str] = []
    monkeypatch.setattr(Runner, "overlaps", True)
    monkeypatch.setattr(Runner, "_sent", lambda _, tiles: events.append("begin") or tiles)

    def fetched(_: Runner, restored: torch.Tensor) -> Callable[[], torch.Tensor]:
        kept = restored.clone()
        return lambda: events.append("finish") or kept

    monkeypatch.setattr(Runner, "_fetched", fetched)
    return events


def finish(steps: Any) -> tuple[Restored, list[Progress]]:
    """Drive a run to its end."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


@pytest.fixture(scope="session")
def restore(model: Model) -> Callable[..., Restored]:
    def run(image: Any, axes: str | None = None, /, *, use: Model | None = None, **options: Any) -> Restored:
        arguments = {name: options.pop(name) for name in ("tile_px", "batch", "device", "threads") if name in options}
        precision = options.pop("precision", "float32")
        view = image if isinstance(image, ImageView) else ImageView.of(image, axes)
        deblurrer = Deblurrer(use or model, precision=precision, **arguments)
        return finish(deblurrer.run(view, **options))[0]

    return run
