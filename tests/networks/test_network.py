"""What `MPT` accepts and gives: sizes, memory layouts, batches, precisions, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_mpt_deblur.errors import ImageError
from napari_mpt_deblur.networks import (
    MPT,
    CrossScaleWindowAttention,
    FeatureEnhancingFeedForward,
    IntraScaleChannelAttention,
    MPTConfig,
    strips,
    windows,
)

TINY = MPTConfig.tiny()


def lively(config: MPTConfig = TINY) -> MPT:
    """A network whose output is far from its input: the last convolution starts near zero."""
    torch.manual_seed(0)
    network = MPT(config).eval()
    torch.nn.init.normal_(network.output.weight, std=0.2)
    return network


def test_starts_next_to_the_identity() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        change = MPT(TINY)(image) - image
    assert 0 < change.abs().max() < 0.05


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stem", [1, 2, 4])
@pytest.mark.parametrize("residual", ["image", "features"])
def test_shape_is_kept(channels: int, stem: int, residual: str) -> None:
    config = replace(TINY, in_channels=channels, stem=stem, global_residual=residual)
    image = torch.rand(2, channels, config.size_multiple, 2 * config.size_multiple)
    with torch.no_grad():
        out = MPT(config)(image)
    assert out.shape == image.shape
    assert out.dtype == image.dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("size", [(32, 64), (64, 96), (65, 64), (1, 1)])
def test_sizes_off_the_rule_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"multiples of 64.*pad by reflection"):
        MPT(TINY)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(
    "shape", [(1, 2, 64, 64), (1, 64, 64), (64, 64), (1, 1, 1, 64, 64), (0, 1, 64, 64), (1, 1, 0, 64)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"takes \(N, 1, H, W\)"):
        MPT(TINY)(torch.zeros(shape))


def test_size_rule_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the declared multiple does not fit: the rule is no stricter than it must be."""
    from napari_mpt_deblur.networks import mpt

    monkeypatch.setattr(mpt, "_check", lambda image, config: None)
    with pytest.raises(RuntimeError):
        MPT(TINY)(torch.zeros(1, 1, 32, 32))


def test_channels_last_in_and_out() -> None:
    network = lively(replace(TINY, in_channels=3))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(image)
        out = network(image.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch() -> None:
    network = lively().double()
    batch = torch.rand(3, 1, 64, 128, dtype=torch.float64)
    with torch.no_grad():
        together = network(batch)
        for one, expected in zip(batch, together, strict=True):
            torch.testing.assert_close(network(one[None])[0], expected, rtol=0, atol=1e-12)


def test_training_works_after_inference_mode() -> None:
    """Masks are cached across calls: one made in inference mode could not take part in autograd."""
    windows._halves_apart.cache_clear()
    network = lively()
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        first = network(image)
    assert windows._halves_apart.cache_info().currsize > 0
    out = network(image)
    out.square().mean().backward()
    assert windows._halves_apart.cache_info().hits > 0
    torch.testing.assert_close(out.detach(), first)
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


def test_the_image_has_its_gradient_where_weights_have_none() -> None:
    gradients = []
    for trains in (True, False):
        network = lively().requires_grad_(trains)
        image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        network(image).square().mean().backward()
        gradients.append(image.grad)
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], gradients[0])


def test_every_parameter_matters() -> None:
    network = lively()
    network(torch.rand(1, 1, 64, 64)).square().mean().backward()
    unused = [name for name, p in network.named_parameters() if not p.grad.any()]
    assert not unused


def test_float64_refines_float32() -> None:
    network = lively()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        single = network(image)
        double = network.double()(image.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


VARIANTS = (
    {},
    {"window_attention": "cosine", "channel_attention": "literal"},
    {"fefn_join": "concatenate", "fefn_shortcut": "x2", "np_conv": False},
)


@pytest.mark.parametrize(
    ("variant", "numbers"), [(VARIANTS[0], 1), *((each, numbers) for each in VARIANTS for numbers in (2**12, 2**16))]
)
def test_without_gradients_it_computes_the_same(variant: dict, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By strips of few rows or many, and by fused attention or row by row, where training needs the parts."""
    network = lively(replace(TINY, **variant)).double()
    image = torch.rand(2, 1, 64, 128, dtype=torch.float64)
    expected = network(image).detach()
    monkeypatch.setattr(strips, "_STRIP_NUMBERS", numbers)
    for context, together in ((torch.no_grad(), 1), (torch.inference_mode(), 200)):
        monkeypatch.setattr(windows, "_TOGETHER", together)
        with context:
            torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-12)


def test_bfloat16_autocast() -> None:
    network = lively()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = network(image) - image
        with torch.autocast("cpu", dtype=torch.bfloat16):
            change = network(image) - image
    assert change.isfinite().all()
    assert (change - expected).norm() < 0.05 * expected.norm()


def test_bfloat16_changes_the_released_arithmetic_by_less_than_50_db_show() -> None:
    scales = ((1 / 4, 1.0), (1 / 2, 1.0), (1 / 2, 1.0), (1.0, 1.0))
    network = lively(replace(MPTConfig.released(1), dims=(16, 16, 32, 32), heads=(1, 2, 2, 4), scales=scales))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast = network(image).float()
    assert (exact - image).std() > 0.3
    assert 20 * torch.log10((exact.max() - exact.min()) / (exact - fast).square().mean().sqrt()) > 50


def test_channel_attention_does_not_depend_on_contrast() -> None:
    """Normalised over the pixels, the mixture of channels is the same however strong the map: no saturation."""
    torch.manual_seed(0)
    module = IntraScaleChannelAttention(8, 2).double()
    x = torch.randn(1, 8, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(module(1000 * x), 1000 * module(x))


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("kind", ["scaled", "cosine"])
@pytest.mark.parametrize("scale", [1, 1 / 2])
def test_cswa_gradients(scale: float, kind: str, shift: bool) -> None:
    torch.manual_seed(0)
    module = CrossScaleWindowAttention(2, 1, scale, 2, shift, kind).double()
    check_gradients(module, torch.randn(1, 2, 4, 8, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["normalised", "literal"])
def test_isca_gradients(kind: str) -> None:
    torch.manual_seed(0)
    check_gradients(IntraScaleChannelAttention(4, 2, kind).double(), torch.randn(1, 4, 3, 5, dtype=torch.float64))


def test_fefn_gradients() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 1, 4, 3, 5, dtype=torch.float64)
    check_gradients(FeatureEnhancingFeedForward(4, 2.0).double(), *maps)


def check_gradients(module: torch.nn.Module, *inputs: torch.Tensor) -> None:
    """Analytical against numerical gradients, of the inputs and of every weight."""
    names, weights = zip(*module.named_parameters(), strict=True)

    def function(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, values, strict=False))
        return torch.func.functional_call(module, named, values[len(names) :])

    values = [value.detach().clone().requires_grad_() for value in (*weights, *inputs)]
    assert torch.autograd.gradcheck(function, values, fast_mode=True)
