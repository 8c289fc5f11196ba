"""The paper's ablations as configurations: what each name stands for, and that all else holds for each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch

from napari_mpt_deblur.checkpoints.shapes import index_bytes, network_shapes
from napari_mpt_deblur.errors import ImageError, ModelError
from napari_mpt_deblur.networks import MPT, VARIANTS, CrossScaleWindowAttention, MPTConfig, network_variant
from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.networks.deepen import deepened
from napari_mpt_deblur.networks.variants import network_from_settings

PAPER = MPTConfig.paper()
TINY = MPTConfig.tiny()
# as many sub-blocks as in the paper, for the variants that set their scales
SIX = replace(TINY, scales=PAPER.scales, stem=1)

FIG8 = {f"fig8-activate-{a}-shortcut-{s}" for a in ("x1", "x2", "both", "none") for s in ("x1", "x2", "none")}
SAME = [
    {"baseline", "fig8-activate-x2-shortcut-x1"},
    {"table4-reversed", "fig8-activate-x1-shortcut-x1"},
    {"table3-wa-isca", "table10-v1"},  # which is what the paper says of V1
]
every_variant = pytest.mark.parametrize("name", VARIANTS)


def base_of(name: str) -> MPTConfig:
    return SIX if name in ("table10-v2", "table10-v3") else TINY


def small(name: str) -> MPTConfig:
    return network_variant(name, base_of(name))


@cache
def lively(name: str) -> tuple[MPT, torch.Tensor, torch.Tensor]:
    """A small network of the variant, whose output is far from its input; an image; and what becomes of it."""
    torch.manual_seed(0)
    network = MPT(small(name))
    torch.nn.init.normal_(network.output.weight, std=0.2)
    for key, weights in network.named_parameters():
        if key.endswith("convolution.weight"):  # starts as average pooling
            torch.nn.init.uniform_(weights)
    image = torch.rand(1, 1, network.config.size_multiple, network.config.size_multiple)
    with torch.no_grad():
        return network, image, network(image)


def total(of_sub_block: Callable[[int, int, float], int], config: MPTConfig = PAPER) -> int:
    """Sum over the network's sub-blocks of a function of width, heads and scale."""
    stages = list(zip(config.dims, config.heads, config.scales, strict=True))
    return sum(of_sub_block(dim, heads, scale) for dim, heads, scales in stages + stages[:-1] for scale in scales)


def cswa(dim: int, heads: int, scale: float) -> int:
    """Weights of CSWA: projections, 3x3 convolutions, position biases (15 x 15 for M = 8), down-sampling."""
    return 4 * dim**2 + 27 * dim + 225 * heads + (dim**2 if scale < 1 else 0)


def isca(dim: int, heads: int, _: float) -> int:
    return 4 * dim**2 + 27 * dim + heads


def linear(dim: int, _: int, scale: float) -> int:
    """Weights of CSWA's down-sampling."""
    return dim**2 if scale < 1 else 0


MORE_WEIGHTS = {
    "released": total(lambda _, heads, __: heads),  # temperatures
    "table3-cswa-cswa": total(cswa) - total(isca),
    "table3-wa-wa": total(lambda dim, heads, _: cswa(dim, heads, 1)) - total(isca) - total(linear),
    "table3-isca-isca": total(isca) - total(cswa),
    "table3-wa-isca": -total(linear),
    "table4-concat-gelu": total(lambda dim, *_: int(2.6 * dim) * dim),
    "table9-no-linear": -total(linear),
    "table9-convolution": total(lambda dim, _, scale: dim * round(1 / scale) ** 2 if scale < 1 else 0),
    "table9-no-npconv": -total(lambda dim, *_: 27 * dim),
    "table10-v1": -total(linear),
}


def test_every_row_of_the_tables_has_a_name() -> None:
    assert set(VARIANTS) == FIG8 | {
        "baseline",
        "released",
        *(f"table3-{name}" for name in ("cswa-cswa", "wa-wa", "isca-isca", "wa-isca")),
        *(f"table4-{name}" for name in ("concat-gelu", "add-gelu", "reversed")),
        *(f"table9-{name}" for name in ("no-shortcut", "no-linear", "max-pooling", "convolution", "bicubic")),
        *(f"table9-{name}" for name in ("no-npconv", "no-shift")),
        *(f"table10-{name}" for name in ("v1", "v2", "v3")),
    }


@cache
def weights_of(config: MPTConfig) -> int:
    return sum(torch.Size(shape).numel() for shape in network_shapes(config, 10**8).values())


@every_variant
def test_weights_at_the_papers_size(name: str) -> None:
    assert weights_of(network_variant(name, PAPER)) - weights_of(PAPER) == MORE_WEIGHTS.get(name, 0)


@every_variant
def test_it_is_another_network_than_all_others(name: str) -> None:
    same = {other for other in VARIANTS if network_variant(other) == network_variant(name)}
    assert same == next((names for names in SAME if name in names), {name})


@every_variant
def test_it_computes_something_else_than_the_baseline(name: str) -> None:
    """With the baseline's weights, as far as both have them."""
    network, image, _ = lively(name)
    config = base_of(name)
    baseline = MPT(config)
    own = network.state_dict()
    shared = {
        key: own[key] for key, values in baseline.state_dict().items() if key in own and own[key].shape == values.shape
    }
    baseline.load_state_dict(shared, strict=False)
    size = max(config.size_multiple, image.shape[-1])
    image = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        difference = (network(image) - baseline(image)).abs().max()
    assert (difference > 1e-4) == (name not in SAME[0])


@every_variant
def test_it_runs_forward_and_backward(name: str) -> None:
    network, image, _ = lively(name)
    out = network(image)
    assert out.shape == image.shape
    assert out.isfinite().all()
    out.square().mean().backward()
    gradients = {key: weights.grad for key, weights in network.named_parameters()}
    network.zero_grad()
    assert not [key for key, gradient in gradients.items() if not (gradient.isfinite().all() and gradient.any())]


@every_variant
def test_it_travels_with_the_weights(name: str) -> None:
    config = small(name)
    assert MPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@every_variant
def test_the_size_rule_holds(name: str) -> None:
    coarse = {"table10-v1": 64, "table3-wa-wa": 64, "table3-wa-isca": 64, "table10-v2": 256}
    assert network_variant(name, PAPER).size_multiple == coarse.get(name, 128)
    network, image, _ = lively(name)
    assert image.shape[-1] == network.config.size_multiple
    with pytest.raises(ImageError, match="multiples of"):
        network(image[..., : image.shape[-1] // 2])


@every_variant
def test_tiles_share_their_planes_channel_attention(name: str) -> None:
    """Of one image, the pooled attention is its own: measured and taken, the result is the same."""
    network, image, expected = lively(name)
    with torch.no_grad(), ChannelPool().use():
        for _ in range(2):
            torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-5)


@every_variant
def test_it_can_be_deepened(name: str) -> None:
    network, image, expected = lively(name)
    if network.config.fefn_shortcut == "none":
        with pytest.raises(ModelError, match="cannot be deepened"):
            deepened(network, (1,))
        return
    with torch.no_grad():
        torch.testing.assert_close(deepened(network, (1,))(image), expected, rtol=0, atol=0)


def test_without_shift_no_window_is_shifted() -> None:
    shifted = {
        name: {m.windows.shifted for m in MPT(small(name)).modules() if isinstance(m, CrossScaleWindowAttention)}
        for name in ("baseline", "table9-no-shift")
    }
    assert shifted == {"baseline": {False, True}, "table9-no-shift": {False}}


def test_a_table_of_position_indices_for_every_cswa() -> None:
    """They take memory that no file's size bounds."""
    for name, count in (("baseline", 1), ("table3-cswa-cswa", 2), ("table3-isca-isca", 0)):
        config = network_variant(name, TINY)
        tables = [values for key, values in MPT(config).named_buffers() if key.endswith("relative_index")]
        assert index_bytes(config) == sum(values.numel() * values.element_size() for values in tables)
        assert len(tables) == count * total(lambda *_: 1, config)


def test_scales_of_table_10() -> None:
    v2, v3 = (network_variant(name, PAPER).scales for name in ("table10-v2", "table10-v3"))
    assert v2[0] == (1 / 16, 1 / 16, 1 / 8, 1 / 8, 1, 1)
    assert v2[1] == (1 / 8, 1 / 8, 1 / 4, 1 / 4, 1, 1)
    assert v2[2] == v2[3] == v3[0] == (1 / 4, 1 / 4, 1 / 2, 1 / 2, 1, 1)
    assert v3[1] == v3[2] == v3[3] == (1 / 2, 1 / 2, 1 / 2, 1 / 2, 1, 1)
    assert network_variant("table10-v1", PAPER).scales == ((1.0,) * 6,) * 4
    with pytest.raises(ModelError, match="6 sub-blocks at every stage"):
        network_variant("table10-v2", MPTConfig.compact())


def test_settings_say_base_and_variant_by_name() -> None:
    found = network_from_settings({"base": "compact", "window": 4, "variant": "table9-max-pooling"})
    assert found == replace(MPTConfig.compact(), window=4, down_sampling="max")
    assert network_from_settings({"variant": "table3-wa-wa", "in_channels": 3}) == network_variant(
        "table3-wa-wa", PAPER
    )
    assert network_from_settings({"base": "tiny"}) == TINY
    assert network_from_settings({"stem": 2}) == replace(MPTConfig(), stem=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"variant": "table9-max"},
            "Unknown variant of the network: 'table9-max'; the nearest known is 'table9-max-pooling'",
        ),
        ({"variant": ["baseline"]}, "Unknown variant"),
        ({"base": "huge"}, "Unknown base of the network: 'huge'; the nearest known is 'paper'"),
        ({"base": "tiny", "widow": 8}, "Unknown network setting 'widow'; the nearest known is 'window'"),
        ({"base": "tiny", "variant": "table10-v3"}, "6 sub-blocks"),
        ({"fefn_activate": "x1", "variant": "table4-add-gelu"}, "fefn_activate is for branches that are multiplied"),
        ([], "not a table"),
    ],
)
def test_bad_settings_are_refused(settings: object, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        network_from_settings(settings)
    assert "\n" not in str(caught.value)
