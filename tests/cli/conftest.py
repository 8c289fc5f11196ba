"""A command line with a tiny model instead of the bundled one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from napari_mpt_deblur.checkpoints import ModelConfig, library, save_model
from napari_mpt_deblur.cli.main import main
from napari_mpt_deblur.networks import MPTConfig


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network of random weights, named as the default model."""
    import torch

    from napari_mpt_deblur.networks import MPT

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = MPT(MPTConfig.tiny())
    with torch.no_grad():
        network.output.weight.normal_(std=0.05)  # away from the identity: results differ from their inputs
    config = ModelConfig(MPTConfig.tiny(), nucleus_diameter_px=(8, 150), description="for tests")
    save_model(folder / "nuclei.safetensors", network, config)
    return folder


@pytest.fixture(autouse=True)
def only_tiny_models(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_BUNDLED", tiny_models)
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "no-models"))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: ``run("deblur", path, "-o", out)``."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return call
