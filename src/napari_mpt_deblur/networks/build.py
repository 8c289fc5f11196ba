"""From a configuration to a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.mpt import MPT
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig
from napari_mpt_deblur.networks.spandrel_network import SpandrelNetwork
from napari_mpt_deblur.networks.spandrel_network import build as build_spandrel

Network = MPT | SpandrelNetwork
NetworkConfig = MPTConfig | SpandrelConfig


def new_network(config: NetworkConfig, weights: Mapping[str, Tensor] | None = None) -> Network:
    """A network with random weights.

    Parameters
    ----------
    config : MPTConfig or SpandrelConfig
    weights : mapping of str to Tensor, optional
        Which it is to have; a network of others' that would take much more memory is not built. They are not loaded.

    Raises
    ------
    ModelError
        If it is a network of others' and cannot be built.
    """
    if isinstance(config, SpandrelConfig):
        return build_spandrel(config, weights)
    return MPT(config)
