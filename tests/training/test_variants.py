"""Every network variant of the paper's ablations can be named in a configuration, trained, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.networks import VARIANTS, MPTConfig, network_variant
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.opening import synthetic_data
from napari_mpt_deblur.training.simulation import SharpImage

SETTINGS = """
iterations = 2
patch_px = [32]
batch = [1]
warmup = 0
learning_rate = 2e-3
precision = "float32"
validate_every = 2
validation_pairs = 1

[simulation]  # the quickest to draw
psf_count = 12
disc_radius_px = [1.0, 2.0]
native_scale = 1.0
identity = 0.0
drawn = 0.0
grain = 0.0
textured = 0.0

[network]
base = "tiny"
window = 2
"""
SIX_SUB_BLOCKS = f"scales = {json.dumps(MPTConfig.paper().scales)}\nstem = 1\n"


@pytest.fixture(scope="module")
def images() -> list[SharpImage]:
    rng = np.random.default_rng(0)
    spots = gaussian_filter((rng.random((2, 120, 150)) > 0.995).astype(np.float32), (0, 4, 4))
    return [SharpImage.of(1000 * spot / spot.max()) for spot in spots]


@pytest.mark.parametrize("name", VARIANTS)
def test_it_trains_saves_and_loads(name: str, images: list[SharpImage], tmp_path: Path) -> None:
    text = f'{SETTINGS}variant = "{name}"\n'
    if name in ("table10-v2", "table10-v3"):
        text = text.replace("[32]", "[64]") + SIX_SUB_BLOCKS
    settings = tmp_path / "settings.toml"
    settings.write_text(text, encoding="utf-8")
    config = TrainingConfig.from_toml(settings)
    trainer = Trainer(config, tmp_path, synthetic_data(images[:1], images[1:], config))
    before = {key: values.clone() for key, values in trainer.network.state_dict().items()}
    steps = list(trainer.run())
    trainer.save()
    assert len(steps) == 2
    assert all(np.isfinite(step.loss) for step in steps)
    assert steps[-1].validation is not None
    unmoved = [key for key, values in trainer.network.state_dict().items() if torch.equal(values, before[key])]
    assert not unmoved
    model = load_model(trainer.last_path, "cpu")
    assert model.network.config == config.network == MPTConfig.from_dict(model.config.training["config"]["network"])
    found = model.network.state_dict()
    for key, values in trainer.average.state_dict().items():
        assert torch.equal(found[key], values)


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[network]\nvariant = "table9-mean"\n', encoding="utf-8")
    with pytest.raises(TrainingError, match="Unknown variant of the network: 'table9-mean'"):
        TrainingConfig.from_toml(settings)


def test_a_model_to_start_from_may_be_described_by_its_variant(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[network]\nbase = "tiny"\nvariant = "table9-bicubic"\n', encoding="utf-8")
    described = network_variant("table9-bicubic", MPTConfig.tiny())
    assert TrainingConfig.from_toml(settings, described).network == described
    with pytest.raises(TrainingError, match="another network"):
        TrainingConfig.from_toml(settings, MPTConfig.tiny())
