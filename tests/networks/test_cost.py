"""Parameters and multiply-accumulates of the paper's configuration, counted (no forward is computed)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from napari_mpt_deblur.networks import (
    MPT,
    CrossScaleWindowAttention,
    FeatureEnhancingFeedForward,
    IntraScaleChannelAttention,
    MPTConfig,
    strips,
    windows,
)


class CountMultiplications(TorchDispatchMode):
    """Multiply-accumulates of convolutions, matrix products and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.attention = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.layers += out.numel() * args[0].shape[-1]
        elif func is torch.ops.aten.convolution.default:
            self.layers += out.numel() * args[1][0].numel()  # (C', C / groups, 3, 3)
        elif func is torch.ops.aten.bmm.default:
            self.attention += out.numel() * args[0].shape[-1]
        else:
            assert not any(part in str(func) for part in ("mm.", "addmm", "linear", "matmul", "conv")), func
        return out

    def attend(self, query, key, value, *args, **kwargs):
        """In place of scaled_dot_product_attention, whose CPU kernels torch's own counter scores as 0."""
        self.attention += 2 * query.numel() * key.shape[-2]
        assert value.shape == key.shape
        return torch.empty_like(query)


def test_paper_parameters() -> None:
    with torch.device("meta"):
        network = MPT(MPTConfig.paper())
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 19.80


def test_paper_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's 76.2 G in layers and 11.9 G in attention; ISCA's projection is one matrix with its attention."""
    counted = CountMultiplications()
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted.attend)
    config = MPTConfig.paper(in_channels=3)
    with torch.device("meta"):
        network = MPT(config)
        with torch.no_grad(), counted:
            network(torch.empty(1, 3, 256, 256))
    moved, saved = 0, 0
    for stage, (dim, heads) in enumerate(zip(config.dims, config.heads, strict=True)):
        each = (6 if stage == 3 else 12) * dim**2 * (256 / 2**stage) ** 2
        moved, saved = moved + each, saved + each / heads
    assert (counted.layers + moved) / 1e9 == pytest.approx(76.2, abs=0.05)
    assert (counted.attention - moved + saved) / 1e9 == pytest.approx(11.9, abs=0.05)
    assert saved / 1e9 == pytest.approx(2.3, abs=0.05)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("scale", [1 / 2, 1 / 8])
def test_keys_and_values_are_never_repeated(scale: float, shift: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def spy(query, key, value, *args, **kwargs):
        shapes.append((query.shape, key.shape, value.shape))
        return real(query, key, value, *args, **kwargs)

    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    x = torch.randn(2, 8, 64, 96)
    with torch.no_grad():
        CrossScaleWindowAttention(8, 2, scale, 4, shift)(x)
    ((query, key, value),) = shapes
    assert math.prod(query) == x.numel()
    assert key == value
    assert math.prod(key) == x.numel() * scale**2  # one key for each pixel of the down-scaled map, and no more


@pytest.mark.parametrize(("together", "turns"), [(1, [1] * 16), (150, [3, 3, 3, 3, 3, 1])])
@pytest.mark.parametrize("shift", [False, True])
def test_at_full_scale_scores_are_those_of_some_rows_of_windows(
    shift: bool, together: int, turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_TOGETHER", together)
    shapes = []

    def spy(bias, query, key, **kwargs):
        shapes.append((bias.shape, query.shape, key.shape))
        return real(bias, query, key, **kwargs)

    real = torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", spy)
    with torch.no_grad():
        CrossScaleWindowAttention(8, 2, 1, 4, shift)(torch.randn(2, 8, 64, 96))
    of_row = 2 * 96 // 4  # windows, by head
    counts = [rows * of_row for rows in turns] * 2  # images
    assert shapes == [((count, 16, 16), (count, 16, 4), (count, 4, 16)) for count in counts]


class WideMaps(TorchDispatchMode):
    """Memory of results that are as large as some maps, other than theirs."""

    def __init__(self, *maps: torch.Tensor) -> None:
        super().__init__()
        self.numbers = maps[0].numel()
        self.held = {x.untyped_storage().data_ptr(): x for x in maps}  # and held, so that no address comes twice
        self.of_maps = len(self.held)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() >= self.numbers:
            self.held.setdefault(out.untyped_storage().data_ptr(), out)
        return out

    @property
    def count(self) -> int:
        return len(self.held) - self.of_maps


@pytest.mark.parametrize("kind", [FeatureEnhancingFeedForward, IntraScaleChannelAttention])
def test_only_the_result_is_as_wide_as_the_map(kind: type[torch.nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no gradients are wanted, strips of all that lies between are made, one after the other."""
    monkeypatch.setattr(strips, "_STRIP_NUMBERS", 2**12)
    module = kind(8, 2)
    maps = torch.randn(2, 1, 64, 48, 8).movedim(-1, 2)[: 2 if kind is FeatureEnhancingFeedForward else 1]
    with torch.no_grad(), WideMaps(*maps) as held:
        module(*maps)
    assert held.count == 1
    with WideMaps(*maps) as held:
        module(*maps)
    assert held.count > 4  # what the backward pass needs
