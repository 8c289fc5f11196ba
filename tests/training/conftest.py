"""What the tests of training share; `training.small` says with which network and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training.small import SIDE, UnlabelledOf, small_network, spots

from napari_mpt_deblur.checkpoints import ModelConfig, save_model
from napari_mpt_deblur.networks import MPT
from napari_mpt_deblur.training import opening
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.data import TrainingData
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.opening import synthetic_data
from napari_mpt_deblur.training.simulation import SharpImage


@pytest.fixture(autouse=True)
def small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_VALIDATION_SIDE_PX", SIDE)


@pytest.fixture(scope="session")
def images() -> list[SharpImage]:
    return [SharpImage.of(spots((60, 70), seed)) for seed in range(3)]


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the small network with random weights, away from the identity."""
    import torch

    torch.manual_seed(0)
    network = MPT(small_network())
    with torch.no_grad():
        network.output.weight.normal_(std=0.05)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    return save_model(path, network, ModelConfig(small_network(), {"percentiles": [2.0, 99.0]}, (8, 20)))


@pytest.fixture
def make_trainer(images: list[SharpImage]) -> Callable[..., Trainer]:
    """``make_trainer(config, folder)``, on synthetic pairs, with unlabelled images and extra pairs where they serve."""

    def make(config: TrainingConfig, folder: Path, **arguments: Any) -> Trainer:
        data = synthetic_data(images[:2], images[2:], config)
        contrast = config.contrast
        other = data
        if contrast.needs_unlabelled or contrast.needs_extra_pairs:
            other = synthetic_data([images[2]], images[:1], config)
        unlabelled = UnlabelledOf(other) if config.contrast.needs_unlabelled else None
        extra = other.train if config.contrast.needs_extra_pairs else None
        data = TrainingData(data.train, data.validation, unlabelled, extra, data.nucleus_px)
        return Trainer(config, folder, data, **arguments)

    return make
