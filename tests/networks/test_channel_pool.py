"""`ChannelPool`: tiles get the channel attention of their plane."""

from __future__ import annotations

import threading

import pytest
import torch

from napari_mpt_deblur.networks import MPT, IntraScaleChannelAttention, MPTConfig
from napari_mpt_deblur.networks.channel_pool import ChannelPool

forms = pytest.mark.parametrize("form", ["normalised", "literal"])


def isca(form: str) -> IntraScaleChannelAttention:
    torch.manual_seed(0)
    return IntraScaleChannelAttention(8, 2, form).double()


def plane() -> torch.Tensor:
    """(1, 8, 32, 32), bright on the left and dark on the right: halves alone have other statistics than the whole."""
    x = torch.randn(1, 8, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x * torch.linspace(2, 0.1, 32)


@forms
def test_tiles_are_as_in_the_plane(form: str) -> None:
    module, x = isca(form), plane()
    left = x[..., :16]
    with torch.no_grad():
        expected = module(x)
        alone = module(left)
        pool = ChannelPool()
        with pool.use():
            module(x)  # measures
            tile = module(left)
    inside = (..., slice(0, 15))  # without the column that the 3x3 convolution's padding reaches
    torch.testing.assert_close(tile[inside], expected[inside], rtol=0, atol=1e-12)
    assert (alone[inside] - expected[inside]).abs().max() > 1e-3  # which is what the pool is for


@forms
def test_measuring_sums_over_samples(form: str) -> None:
    """A batch of samples counts as one map; a literal sum grows with the area that the samples stand for."""
    module, x = isca(form), plane()
    with torch.no_grad():
        whole, samples = ChannelPool(area_ratio=3.0), ChannelPool()
        with whole.use():
            module(x)
        with samples.use():
            module(x.repeat(3, 1, 1, 1))
    torch.testing.assert_close(whole.get(module), samples.get(module), rtol=0, atol=1e-12)
    assert whole.get(module).shape == (1, 2, 4, 4)


def test_without_a_pool_nothing_is_kept() -> None:
    module, x = isca("normalised"), plane()
    with torch.no_grad():
        before = module(x)
        with ChannelPool().use():
            module(x.flip(-1) * 3)
        assert ChannelPool.active() is None
        torch.testing.assert_close(module(x), before, rtol=0, atol=0)


def test_a_failed_pass_puts_the_pool_away() -> None:
    with pytest.raises(RuntimeError), ChannelPool().use():
        isca("normalised")(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert ChannelPool.active() is None


def test_threads_do_not_see_each_others_pool() -> None:
    seen = []
    with ChannelPool().use():
        thread = threading.Thread(target=lambda: seen.append(ChannelPool.active()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_every_isca_of_a_network_is_pooled_apart() -> None:
    config = MPTConfig.tiny()
    torch.manual_seed(0)
    network = MPT(config).double().eval()
    torch.nn.init.normal_(network.output.weight, std=0.2)
    image = torch.rand(1, 1, 64, 128, dtype=torch.float64)
    pool = ChannelPool()
    with torch.no_grad():
        expected = network(image)
        with pool.use():
            measured = network(image)
            again = network(image)
    blocks = [module for module in network.modules() if isinstance(module, IntraScaleChannelAttention)]
    attentions = [pool.get(block) for block in blocks]
    assert all(attention is not None for attention in attentions)
    assert len({attention.data_ptr() for attention in attentions}) == len(blocks)
    torch.testing.assert_close(measured, expected, rtol=0, atol=1e-12)  # of one image: as without a pool
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-12)
