"""The paper's network. Classes are loaded on first use, so that the configuration can be read without torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.variants import VARIANTS, network_variant

if TYPE_CHECKING:
    from napari_mpt_deblur.networks.attention import CrossScaleWindowAttention, IntraScaleChannelAttention
    from napari_mpt_deblur.networks.feed_forward import FeatureEnhancingFeedForward
    from napari_mpt_deblur.networks.layers import NPConv, ScaleDown
    from napari_mpt_deblur.networks.mpt import MPT, PyramidBlock, SubBlock

__all__ = [
    "MPT",
    "VARIANTS",
    "CrossScaleWindowAttention",
    "FeatureEnhancingFeedForward",
    "IntraScaleChannelAttention",
    "MPTConfig",
    "NPConv",
    "PyramidBlock",
    "ScaleDown",
    "SubBlock",
    "network_variant",
]

_ROOMS = {
    "CrossScaleWindowAttention": "attention",
    "IntraScaleChannelAttention": "attention",
    "FeatureEnhancingFeedForward": "feed_forward",
    "NPConv": "layers",
    "ScaleDown": "layers",
    "MPT": "mpt",
    "PyramidBlock": "mpt",
    "SubBlock": "mpt",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
