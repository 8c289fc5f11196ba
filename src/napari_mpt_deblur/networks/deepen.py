"""Deepen a trained network without changing what it computes, so that training goes on from there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks.mpt import MPT, PyramidBlock, branch_names


def deepened(network: MPT, stages: Collection[int]) -> MPT:
    """The same function with twice the sub-blocks at some stages.

    Every local scale of such a stage comes twice, so that each has windows that are shifted and windows that are not.
    The new sub-blocks are the identity at first: the last projections of FEFN and of the attention that its shortcut
    carries are zero, and their shortcuts remain (Chen et al. 2016, Net2Net, section 2.3, by another route).

    Parameters
    ----------
    network : MPT
    stages : collection of int
        Counted from 0, the finest; others are passed over.

    Returns
    -------
    MPT
        On the CPU; shares no memory with `network`.

    Raises
    ------
    ModelError
        If the network's FEFN has no shortcut: then no sub-block can be the identity.
    """
    config = network.config
    if config.fefn_shortcut == "none":
        raise ModelError("A network whose FEFN has no shortcut cannot be deepened: its new sub-blocks would change it.")
    carried = branch_names(config)[0 if config.fefn_shortcut == "x1" else 1]
    scales = tuple(
        tuple(scale for scale in of_stage for _ in range(2)) if stage in stages else of_stage
        for stage, of_stage in enumerate(config.scales)
    )
    deep = MPT(replace(config, scales=scales))
    weights = deep.state_dict()
    for path in ("encoder", "decoder"):
        old: PyramidBlock
        for stage, old in enumerate(getattr(network, path)):
            if stage not in stages:
                continue
            # sub-block j keeps its place among the shifted (odd) or the unshifted (even) ones
            places = {2 * j + j % 2: j for j in range(len(old))}
            for place in range(2 * len(old)):
                prefix = f"{path}.{stage}.{place}."
                if place in places:
                    weights |= {prefix + name: values for name, values in old[places[place]].state_dict().items()}
                else:
                    for name in (f"{carried}.project.weight", "fefn.project.weight"):
                        weights[prefix + name] = torch.zeros_like(weights[prefix + name])
    deepened_blocks = tuple(f"{path}.{stage}." for path in ("encoder", "decoder") for stage in stages)
    weights |= {n: values for n, values in network.state_dict().items() if not n.startswith(deepened_blocks)}
    deep.load_state_dict(weights)
    return deep
