"""`MPTConfig`: validation, the size rule, plain data and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks import MPT, MPTConfig

PRESETS = {"paper": MPTConfig.paper(), "compact": MPTConfig.compact(), "tiny": MPTConfig.tiny()}
every_preset = pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)


@every_preset
def test_round_trip_through_json(config: MPTConfig) -> None:
    assert MPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@every_preset
def test_presets_can_be_built(config: MPTConfig) -> None:
    with torch.device("meta"):
        network = MPT(config)
        size = (1, config.in_channels, config.size_multiple, 3 * config.size_multiple)
        assert network(torch.empty(size)).shape == size


@pytest.mark.parametrize(("name", "multiple"), [("paper", 128), ("compact", 128), ("tiny", 64)])
def test_size_multiple(name: str, multiple: int) -> None:
    assert PRESETS[name].size_multiple == multiple


def test_size_multiple_follows_the_coarsest_scale_and_the_stem() -> None:
    coarse = replace(PRESETS["paper"], scales=((1 / 16, 1), (1 / 4, 1), (1 / 2, 1), (1 / 2, 1)))
    assert coarse.size_multiple == 128
    assert replace(coarse, scales=((1 / 32, 1), (1 / 4, 1), (1 / 2, 1), (1 / 2, 1))).size_multiple == 256
    assert replace(coarse, stem=2).size_multiple == 256


def test_paper_is_the_papers() -> None:
    config = MPTConfig.paper()
    assert config.in_channels == 3
    assert [len(stage) for stage in config.scales] == [6, 6, 6, 6]
    assert config.scales[0] == (1 / 8, 1 / 8, 1 / 4, 1 / 4, 1, 1)
    assert (config.window, config.expansion, config.stem) == (8, 2.6, 1)
    assert MPTConfig.paper(in_channels=1).in_channels == 1


def test_is_frozen_and_hashable() -> None:
    assert hash(MPTConfig.tiny()) == hash(MPTConfig.tiny())
    with pytest.raises(AttributeError):
        MPTConfig.tiny().window = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"in_channels": 65}, "in_channels"),
        ({"in_channels": True}, "in_channels"),
        ({"in_channels": 1.0}, "in_channels"),
        ({"window": 5}, "even"),
        ({"window": 0}, "window"),
        ({"stem": 3}, "stem"),
        ({"stem": 1.0}, "stem"),
        ({"stem": True}, "stem"),
        ({"expansion": 0}, "expansion"),
        ({"expansion": math.nan}, "expansion"),
        ({"expansion": True}, "expansion"),
        ({"expansion": "2"}, "expansion"),
        ({"dims": (2, 4, 4, 4), "heads": (1, 1, 1, 1), "expansion": 0.1}, "hidden"),
        ({"dims": (8, 8, 16)}, "dims must have 4"),
        ({"dims": (8, 8, 16, 10**9)}, "dims"),
        ({"dims": (8, 8, 16, -16)}, "dims"),
        ({"dims": (8, 8, 16, 16.0)}, "dims"),
        ({"dims": (8, 6, 16, 16)}, "multiple of 4"),
        ({"heads": (3, 1, 2, 2)}, "multiple of its heads"),
        ({"heads": (0, 1, 2, 2)}, "heads"),
        ({"scales": ((1,),) * 4}, "even number of scales"),
        ({"scales": ((),) * 4}, "even number of scales"),
        ({"scales": ((1, 1),) * 3}, "scales must have 4"),
        ({"scales": ((1, 1 / 2),) * 4}, "coarse to fine"),
        ({"scales": ((1 / 3, 1),) * 4}, "each scale"),
        ({"scales": ((2, 2),) * 4}, "each scale"),
        ({"scales": ((0, 1),) * 4}, "each scale"),
        ({"scales": ((math.nan, 1),) * 4}, "each scale"),
        ({"scales": ((1 / 128, 1),) * 4}, "each scale"),
        ({"scales": ((1,) * 66,) * 4}, "at most"),
        ({"scales": ((1 / 64, 1),) * 4}, "multiples of 4096 pixels"),
        ({"window_attention": "linear"}, "window_attention"),
        ({"channel_attention": "cosine"}, "channel_attention"),
        ({"global_residual": None}, "global_residual"),
        ({"branches": ["cswa"]}, "two attentions"),
        ({"branches": "cswa"}, "two attentions"),
        ({"branches": ["cswa", "wa"]}, "each of branches must be one of cswa, isca"),
        ({"down_sampling": "mean"}, "down_sampling must be one of average, max, convolution, bicubic"),
        ({"down_projection": "linear"}, "down_projection"),
        ({"np_conv": 1}, "np_conv must be one of true, false"),
        ({"window_shift": "no"}, "window_shift"),
        ({"fefn_join": "sum"}, "fefn_join"),
        ({"fefn_activate": "x3"}, "fefn_activate"),
        ({"fefn_shortcut": True}, "fefn_shortcut"),
        ({"fefn_join": "add", "fefn_activate": "both"}, "set fefn_join to multiply"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    values = MPTConfig.tiny().to_dict() | change
    with pytest.raises(ModelError, match=message) as caught:
        MPTConfig.from_dict(values)
    assert "\n" not in str(caught.value)


@every_preset
def test_a_file_that_says_nothing_of_variants_holds_the_papers_blocks(config: MPTConfig) -> None:
    """As files do that were written before there were any."""
    variants = ("branches", "down_sampling", "down_projection", "np_conv", "window_shift")
    variants += ("fefn_join", "fefn_activate", "fefn_shortcut")
    values = config.to_dict()
    for name in variants:
        del values[name]
    assert MPTConfig.from_dict(values) == config


@pytest.mark.parametrize(
    "values",
    [
        {"branches": None},
        {"widow": 8},
        {"dims": 8},
        {"scales": 1.0},
        {"scales": [["half", 1]] * 4},
        {"scales": [None] * 4},
        {"window_attention": ["scaled"]},
        [],
        "paper",
        None,
    ],
)
def test_damaged_data_is_refused(values: Any) -> None:
    with pytest.raises(ModelError) as caught:
        MPTConfig.from_dict(values)
    assert "\n" not in str(caught.value)
