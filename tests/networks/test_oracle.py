"""The network's parts, and the whole of it, agree with the plain-loop reference in tests/oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import mpt_plain as plain

from napari_mpt_deblur.networks import (
    MPT,
    CrossScaleWindowAttention,
    FeatureEnhancingFeedForward,
    IntraScaleChannelAttention,
    MPTConfig,
)

TOLERANCE = {"rtol": 0, "atol": 1e-10}


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Weights far from their initial values, so that no term is small or one by chance."""
    generator = torch.Generator().manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("attention", ["scaled", "cosine"])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(
    ("scale", "size"), [(1, (4, 12)), (1, (8, 8)), (1 / 2, (16, 8)), (1 / 4, (16, 32)), (1 / 8, (32, 64))]
)
def test_cswa(scale: float, size: tuple[int, int], shift: bool, attention: str) -> None:
    options = {"heads": 2, "scale": scale, "window": 4, "shift": shift, "attention": attention}
    module = randomised(CrossScaleWindowAttention(6, **options))
    x = image(2, 6, *size)
    expected = [plain.cswa(one, plain.weights_of(module), **options) for one in x.numpy()]
    np.testing.assert_allclose(module(x).detach().numpy(), np.stack(expected), **TOLERANCE)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("scale", [1, 1 / 2, 1 / 4])
@pytest.mark.parametrize(
    "variant",
    [
        {"down_projection": "plain"},
        {"down_projection": "none"},
        {"down_sampling": "max"},
        {"down_sampling": "convolution"},
        {"down_sampling": "bicubic"},
        {"down_sampling": "bicubic", "down_projection": "none", "np_conv": False},
        {"np_conv": False},
    ],
)
def test_cswa_variants(variant: dict, scale: float, shift: bool) -> None:
    options = {"heads": 2, "scale": scale, "window": 4, "shift": shift, "attention": "scaled"} | variant
    module = randomised(CrossScaleWindowAttention(6, **options))
    x = image(1, 6, 16, 32)
    expected = plain.cswa(x[0].numpy(), plain.weights_of(module), **options)
    np.testing.assert_allclose(module(x)[0].detach().numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize("attention", ["normalised", "literal"])
@pytest.mark.parametrize("heads", [1, 3])
def test_isca(heads: int, attention: str) -> None:
    module = randomised(IntraScaleChannelAttention(6, heads, attention))
    x = image(2, 6, 5, 9)
    expected = [plain.isca(one, plain.weights_of(module), heads=heads, attention=attention) for one in x.numpy()]
    np.testing.assert_allclose(module(x).detach().numpy(), np.stack(expected), **TOLERANCE)


@pytest.mark.parametrize("shortcut", ["x1", "x2", "none"])
@pytest.mark.parametrize(
    ("join", "activate"),
    [*(("multiply", activate) for activate in ("x1", "x2", "both", "none")), ("concatenate", "x2"), ("add", "x2")],
)
def test_fefn(join: str, activate: str, shortcut: str) -> None:
    options = join, activate, shortcut
    module = randomised(FeatureEnhancingFeedForward(6, 2.6, *options))
    x1, x2 = image(2, 2, 6, 5, 9)
    expected = [
        plain.fefn(*pair, plain.weights_of(module), *options) for pair in zip(x1.numpy(), x2.numpy(), strict=True)
    ]
    np.testing.assert_allclose(module(x1, x2).detach().numpy(), np.stack(expected), **TOLERANCE)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"window_attention": "cosine", "channel_attention": "literal", "stem": 1},
        {"branches": ("cswa", "cswa"), "window_shift": False},
        {"branches": ("isca", "isca"), "fefn_join": "add"},
        {"branches": ("isca", "cswa"), "down_sampling": "max", "down_projection": "plain", "fefn_shortcut": "x2"},
    ],
)
def test_whole_network(variant: dict) -> None:
    config = replace(MPTConfig.tiny(in_channels=2), **variant)
    network = randomised(MPT(config))
    x = image(1, 2, config.size_multiple, config.size_multiple * 2)
    expected = plain.mpt(x[0].numpy(), plain.weights_of(network), config)
    found = network(x)[0].detach().numpy()
    assert np.abs(found - x[0].numpy()).max() > 0.1  # the network does something to compare
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
