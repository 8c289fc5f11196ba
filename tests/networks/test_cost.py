"""Parameters and multiply-accumulates of the paper's configuration, counted (no forward is computed)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from napari_mpt_deblur.networks import MPT, CrossScaleWindowAttention, MPTConfig, attention


class CountMultiplications(TorchDispatchMode):
    """Multiply-accumulates of convolutions, matrix products and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.macs += out.numel() * args[0].shape[-1]
        elif func is torch.ops.aten.convolution.default:
            self.macs += out.numel() * args[1][0].numel()  # (C', C / groups, 3, 3)
        else:
            assert not any(part in str(func) for part in ("mm.", "addmm", "linear", "matmul", "conv")), func
        return out

    def attention(self, query, key, value, *args, **kwargs):
        """In place of scaled_dot_product_attention, whose CPU kernels torch's own counter scores as 0."""
        self.macs += 2 * query.numel() * key.shape[-2]
        assert value.shape == key.shape
        return torch.empty_like(query)


def test_paper_parameters() -> None:
    with torch.device("meta"):
        network = MPT(MPTConfig.paper())
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 19.80


def test_paper_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's 76.2 G in layers and 11.9 G in attention, less what one matrix for ISCA's two last steps saves."""
    counted = CountMultiplications()
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted.attention)
    config = MPTConfig.paper(in_channels=3)
    with torch.device("meta"):
        network = MPT(config)
        with torch.no_grad(), counted:
            network(torch.empty(1, 3, 256, 256))
    saved = 0
    for stage, (dim, heads) in enumerate(zip(config.dims, config.heads, strict=True)):
        sub_blocks = 6 if stage == 3 else 12
        saved += sub_blocks * dim**2 / heads * (256 / 2**stage) ** 2
    assert counted.macs / 1e9 == pytest.approx(76.2 + 11.9 - saved / 1e9, abs=0.15)
    assert saved / 1e9 == pytest.approx(2.3, abs=0.05)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("scale", [1, 1 / 2, 1 / 8])
def test_keys_and_values_are_never_repeated(scale: float, shift: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def spy(query, key, value, *args):
        shapes.append((query.shape, key.shape, value.shape))
        return real(query, key, value, *args)

    real = attention.attend
    monkeypatch.setattr(attention, "attend", spy)
    x = torch.randn(2, 8, 64, 96)
    CrossScaleWindowAttention(8, 2, scale, 4, shift)(x)
    ((query, key, value),) = shapes
    assert math.prod(query) == x.numel()
    assert key == value
    assert math.prod(key) == x.numel() * scale**2  # one key for each pixel of the down-scaled map, and no more
