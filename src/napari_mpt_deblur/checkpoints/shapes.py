"""The weights that a network has, by name and shape, found out without allocating them."""

from __future__ import annotations

import torch

from napari_mpt_deblur.networks.build import NetworkConfig, new_network
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.mpt import MPT


def index_bytes(config: MPTConfig) -> int:
    """Memory of the tables that a network makes for itself when it is built; no file's size bounds them.

    Each CSWA looks its position biases up by a table of M^2 x M^2 whole numbers.
    """
    encoder = [len(scales) for scales in config.scales]
    sub_blocks = sum(encoder) + sum(encoder[:-1])  # the decoder has no block of the last stage
    return sub_blocks * config.branches.count("cswa") * config.window**4 * 8


def network_shapes(config: MPTConfig, most_parameters: int) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of an MPT's weights.

    Parameters
    ----------
    config : MPTConfig
        May be absurd: it can come from a hostile file.
    most_parameters : int
        Networks with more than that are not built.

    Returns
    -------
    dict or None
        None if the network has more parameters.
    """
    # each sub-block has more weights than that: an absurd network is refused before it is built, even without memory
    least = sum(4 * dim**2 * len(scales) for dim, scales in zip(config.dims, config.scales, strict=True))
    if least > most_parameters:
        return None
    with torch.device("meta"):
        network = MPT(config)
    shapes = {name: tuple(values.shape) for name, values in network.state_dict().items()}
    return shapes if sum(map(_product, shapes.values())) <= most_parameters else None


def _product(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def parameter_count(config: NetworkConfig) -> int:
    """Number of a network's weights; those of ours are not allocated for it.

    Raises
    ------
    ModelError
        If it is a network of others' and cannot be built.
    """
    if not isinstance(config, MPTConfig):
        return sum(parameter.numel() for parameter in new_network(config).parameters())
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in MPT(config).parameters())
