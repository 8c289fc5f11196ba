"""The yardstick of the benchmarks is what it says: the released arithmetic, which our network computes, too."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.released_plain import random_state

from napari_mpt_deblur.checkpoints.released import convert
from napari_mpt_deblur.networks import MPT, MPTConfig

_NAIVE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "naive_release.py"))
NaiveRelease = _NAIVE["NaiveRelease"]


def random_weights(module: torch.nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in module.parameters():
            weights.normal_(std=0.3)


@pytest.mark.parametrize("scales", [((1.0, 1.0),) * 4, ((1 / 4, 1 / 2), (1 / 2, 1.0), (1.0, 1.0), (1 / 2, 1 / 2))])
def test_it_is_our_network_in_the_released_arithmetic(scales: tuple[tuple[float, float], ...]) -> None:
    released = replace(MPTConfig.released(1), dims=(8, 8, 16, 16), heads=(1, 1, 2, 2), window=4, scales=scales)
    naive, network = NaiveRelease(released).double(), MPT(released).double()
    random_weights(naive)
    theirs = {name: values.numpy() for name, values in naive.state_dict().items()}
    ours = convert(theirs, released, {name: tuple(values.shape) for name, values in network.state_dict().items()})
    network.load_state_dict({name: torch.from_numpy(values) for name, values in ours.items()})
    image = torch.rand(2, 1, 64, 128, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        assert (expected - image).abs().max() > 0.1
        torch.testing.assert_close(naive(image), expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_the_full_network() -> None:
    """In float32, with weights by the published names."""
    channels, height, width = 1, 128, 256
    config = MPTConfig.released(channels)
    settings = (config.dims, config.heads, config.scales, config.window, config.expansion)
    state = random_state(channels, *settings, seed=0)
    naive, network = NaiveRelease(config), MPT(config)
    naive.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in state.items()})
    ours = convert(state, config, {name: tuple(values.shape) for name, values in network.state_dict().items()})
    network.load_state_dict({name: torch.from_numpy(values) for name, values in ours.items()})
    image = torch.rand(1, channels, height, width)
    with torch.inference_mode():
        expected = naive(image)
        assert (expected - image).abs().max() > 0.1
        torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-5)


def test_it_has_the_papers_weights() -> None:
    with torch.device("meta"):
        network = NaiveRelease(MPTConfig.paper())
        assert network(torch.empty(1, 3, 128, 128)).shape == (1, 3, 128, 128)
    assert sum(weights.numel() for weights in network.parameters()) == pytest.approx(19.80e6, abs=5e3)
    names = set(network.state_dict())
    assert {"inproj.weight", "down3_4.body.0.weight", "up2_1.body.0.weight", "latent.5.norm1.body.bias"} < names
    assert "encoder_level1.0.attn.downsamp.downproj.weight" in names
    assert "encoder_level1.4.attn.downsamp.downproj.weight" not in names
