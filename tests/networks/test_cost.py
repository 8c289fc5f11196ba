"""Parameters and multiply-accumulates of the paper's configuration, counted by hooks (no forward is computed)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from napari_mpt_deblur.networks import MPT, CrossScaleWindowAttention, MPTConfig


class CountProducts(TorchDispatchMode):
    """Multiply-accumulates of matrix products outside linear layers, and of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default:  # (B, m, k) @ (B, k, n)
            self.macs += args[0].numel() * args[1].shape[-1]
        return func(*args, **(kwargs or {}))

    def attention(self, query, key, value, *args, **kwargs):
        """In place of scaled_dot_product_attention, whose CPU kernels torch's own counter scores as 0."""
        self.macs += 2 * query.numel() * key.shape[-2]
        assert value.shape == key.shape
        return torch.empty_like(query)


def count_layers(network: nn.Module, counted: dict[str, int]) -> None:
    def linear(module, inputs, output):
        counted["linear"] += output.numel() * module.in_features

    def convolution(module, inputs, output):
        each = module.in_channels // module.groups * math.prod(module.kernel_size)
        counted["convolution"] += output.numel() * each

    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
        elif isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)


def test_paper_parameters() -> None:
    with torch.device("meta"):
        network = MPT(MPTConfig.paper())
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 19.80


def test_paper_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {"linear": 0, "convolution": 0}
    products = CountProducts()
    monkeypatch.setattr(F, "scaled_dot_product_attention", products.attention)
    with torch.device("meta"):
        network = MPT(MPTConfig.paper(in_channels=3))
        count_layers(network, counted)
        with torch.no_grad(), products:
            network(torch.empty(1, 3, 256, 256))
    assert sum(counted.values()) / 1e9 == pytest.approx(76.2, abs=0.05)
    assert products.macs / 1e9 == pytest.approx(11.9, abs=0.05)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("scale", [1, 1 / 2, 1 / 8])
def test_keys_and_values_are_never_repeated(scale: float, shift: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def spy(query, key, value, *args, **kwargs):
        shapes.append((query.shape, key.shape, value.shape))
        return real(query, key, value, *args, **kwargs)

    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    x = torch.randn(2, 8, 64, 96)
    CrossScaleWindowAttention(8, 2, scale, 4, shift)(x)
    ((query, key, value),) = shapes
    assert math.prod(query) == x.numel()
    assert key == value
    assert math.prod(key) == x.numel() * scale**2  # one key for each pixel of the down-scaled map, and no more
