from __future__ import annotations

import json

import pytest

from napari_mpt_deblur.checkpoints import ModelConfig
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks import MPTConfig

TINY = MPTConfig.tiny()


def test_it_survives_json() -> None:
    config = ModelConfig(TINY, {"percentiles": [0.5, 99]}, (8, 150), "nuclei", "of cells", "CC0-1.0", {"seed": 3})
    assert ModelConfig.from_dict(json.loads(config.to_json())) == config
    assert config.intensity_rule == (0.5, 99.0)


def test_intensities_survive_json_too() -> None:
    config = ModelConfig(TINY, {"range": "full", "clip": True})
    assert ModelConfig.from_dict(json.loads(config.to_json())) == config
    assert (config.intensity_rule, config.clips) == ("full", True)
    assert not ModelConfig(TINY, {"range": "full", "clip": False}).clips
    assert "clipped" in config.describe_intensities()


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": {"dims": [8, 8, 16]}},
        {"network": {"dims": 8}},
        {"network": {"colour": 1}},
        {"normalization": {}},
        {"normalization": {"percentiles": [99, 1]}},
        {"normalization": {"percentiles": [1, 101]}},
        {"normalization": {"percentiles": [1, 2, 3]}},
        {"normalization": {"percentiles": ["a", "b"]}},
        {"normalization": {"percentiles": [0, 10**400]}},
        {"normalization": {"percentiles": [1, 99], "mode": "min"}},
        {"normalization": [1, 99]},
        {"normalization": {"range": "half"}},
        {"normalization": {"range": "full", "percentiles": [1, 99]}},
        {"normalization": {"percentiles": [1, 99], "clip": 1}},
        {"nucleus_diameter_px": 8},
        {"nucleus_diameter_px": [150, 8]},
        {"nucleus_diameter_px": [-1, 8]},
        {"nucleus_diameter_px": [8, 10**400]},
        {"name": 3},
        {"licence": None},
        {"training": "long"},
        {"author": "me"},
        {"format": 2},
        {"format": None},
    ],
)
def test_what_does_not_fit_is_refused(change: dict) -> None:
    values = json.loads(ModelConfig(TINY).to_json()) | change
    with pytest.raises(ModelError) as caught:
        ModelConfig.from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [None, [], "model", {}, {"name": "x"}])
def test_what_is_no_configuration_is_refused(values: object) -> None:
    with pytest.raises(ModelError):
        ModelConfig.from_dict(values)


def test_a_training_record_is_plain_data() -> None:
    for training in ({"loss": float("nan")}, {"data": object()}):
        with pytest.raises(ModelError, match="plain data"):
            ModelConfig(TINY, training=training).to_json()
