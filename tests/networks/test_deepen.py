"""A deepened network computes the same and can learn more."""

import pytest
import torch

from napari_mpt_deblur.networks import MPT, MPTConfig
from napari_mpt_deblur.networks.deepen import deepened

TINY = MPTConfig.tiny()
IMAGE = torch.rand(1, 1, TINY.size_multiple, TINY.size_multiple, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stages", [(), (1,), (0, 3), (1, 2, 3)])
def test_it_computes_the_same(stages):
    network = MPT(TINY)
    deep = deepened(network, stages)
    with torch.no_grad():
        torch.testing.assert_close(deep(IMAGE), network(IMAGE), rtol=0, atol=0)
    for stage, (before, after) in enumerate(zip(network.config.scales, deep.config.scales, strict=True)):
        assert len(after) == len(before) * (2 if stage in stages else 1)
        assert set(after) == set(before)


def test_its_new_sub_blocks_learn():
    deep = deepened(MPT(TINY), (1, 2))
    deep(IMAGE).square().mean().backward()
    for block in (deep.encoder[1], deep.decoder[2]):
        assert all(sub_block.fefn.project.weight.grad.abs().max() > 0 for sub_block in block)


def test_it_shares_no_memory():
    network = MPT(TINY)
    deep = deepened(network, (1,))
    before = deep.input.weight.clone()
    with torch.no_grad():
        network.input.weight.add_(1)
    assert torch.equal(deep.input.weight, before)
