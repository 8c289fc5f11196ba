"""Networks of others', the paper's baselines, train with our losses from a configuration (Table 5)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.loop import Trainer

if not find_spec("spandrel") or not find_spec("spandrel_extra_arches"):
    pytest.skip("needs the extra spandrel-extra", allow_module_level=True)

SETTINGS = """
iterations = 3
patch_px = [32]
batch = [2]
warmup = 0
learning_rate = 1e-3
precision = "float32"
validate_every = 3
validation_pairs = 1

[contrast]
method = "{method}"
beta = 0.1

[simulation]
psf_count = 4
disc_radius_px = [0.7, 1.5]
drawn = 0.0

"""
RESTORMER = """
[network]
architecture = "Restormer"
in_channels = 1
size_multiple = 8

[network.parameters]
inp_channels = 1
out_channels = 1
dim = 8
num_blocks = [1, 1, 1, 1]
num_refinement_blocks = 1
heads = [1, 1, 2, 2]
ffn_expansion_factor = 2.0
"""
GRL = """
[network]
architecture = "GRL"
in_channels = 1
size_multiple = 8

[network.parameters]
in_channels = 1
out_channels = 1
embed_dim = 12
depths = [2, 2]
num_heads_window = [2, 2]
num_heads_stripe = [2, 2]
anchor_window_down_factor = 4
"""


@pytest.mark.parametrize("network", [RESTORMER, GRL], ids=["Restormer", "GRL"])
@pytest.mark.parametrize("method", ["efcr", "efcrex"])
def test_a_baseline_trains_with_efcr(
    tmp_path: Path, make_trainer: Callable[..., Trainer], network: str, method: str
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS.format(method=method) + network, encoding="utf-8")
    config = TrainingConfig.from_toml(settings)
    assert TrainingConfig.from_dict(config.to_dict()) == config
    trainer = make_trainer(config, tmp_path / "run")
    before = {key: values.clone() for key, values in trainer.network.named_parameters()}
    steps = list(trainer.run())
    assert all(np.isfinite(step.loss) for step in steps)
    moved = [key for key, values in trainer.network.named_parameters() if not torch.equal(values, before[key])]
    assert len(moved) > 0.9 * len(before)
    trainer.save()
    model = load_model(trainer.last_path, "cpu")
    assert model.network.config == config.network
    found = model.network.state_dict()
    for key, values in trainer.average.state_dict().items():
        assert torch.equal(found[key], values)
    again = make_trainer(config, tmp_path / "run")
    assert again.resume()
    assert again.iteration == 3
    onward = make_trainer(config, tmp_path / "next", start=model)
    assert torch.equal(onward.network.state_dict()[moved[0]], model.network.state_dict()[moved[0]])


def test_a_patch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS.format(method="efcr").replace("[32]", "[36]") + RESTORMER, encoding="utf-8")
    with pytest.raises(TrainingError, match="multiples of 8"):
        TrainingConfig.from_toml(settings)
