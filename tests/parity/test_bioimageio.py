"""Exported models pass the check of the bioimage.io collection, in an environment that has it: `tox -e bioimageio`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("bioimageio.core", reason="checked by `tox -e bioimageio`, which has bioimageio.core")

import bioimageio.core

from napari_mpt_deblur import deblur, export_bioimageio
from napari_mpt_deblur.checkpoints import ModelConfig, save_model
from napari_mpt_deblur.networks import MPT, MPTConfig


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a small model, `mine`."""
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path))
    torch.manual_seed(0)
    network = MPT(MPTConfig.tiny())
    torch.nn.init.normal_(network.output.weight, std=0.05)  # away from the identity
    save_model(tmp_path / "mine.safetensors", network, ModelConfig(MPTConfig.tiny(), licence="MIT"))
    return export_bioimageio("mine", tmp_path / "mine.zip")


def check_passes(package: Path) -> None:
    """The test tensors, three sizes and two numbers of images."""
    summary = bioimageio.core.test_model(package, devices=["cpu"])
    assert summary.status == "passed", summary.format()
    names = [detail.name for detail in summary.details]
    assert "Reproduce test outputs from test inputs (torchscript)" in names
    assert sum("inference for inputs with" in name for name in names) == 6


def test_it_passes_and_predicts_what_deblur_does(package: Path) -> None:
    check_passes(package)
    image = np.random.default_rng(0).integers(300, 9000, (128, 64)).astype(np.uint16)
    found = (
        bioimageio.core.predict(model=package, inputs={"input": image[None, None]})
        .members["output"]
        .data.to_numpy()[0, 0]
    )
    low, high = np.percentile(image, (1, 99.8))
    expected = deblur(image, "mine", device="cpu", precision="float32", dtype="float32")
    np.testing.assert_allclose(found * (high - low) + low, expected, rtol=0, atol=1e-4 * (high - low))


def test_the_model_in_the_box_passes(tmp_path: Path) -> None:
    check_passes(export_bioimageio("nuclei", tmp_path / "nuclei.zip"))
