"""Training, and the contrastive losses for use elsewhere. What needs torch is loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mpt_deblur.training.config import ContrastConfig, SimulationConfig, TrainingConfig
    from napari_mpt_deblur.training.contrastive import EFCR, efcr, efcr_extra, haar_bands, to_channels
    from napari_mpt_deblur.training.publish import publish
    from napari_mpt_deblur.training.request import (
        FocusStacks,
        ImagePairs,
        ImageSource,
        OpenLayer,
        PreviewPlane,
        SharpImages,
        TrainingRequest,
    )
    from napari_mpt_deblur.training.session import train

__all__ = [
    "EFCR",
    "ContrastConfig",
    "FocusStacks",
    "ImagePairs",
    "ImageSource",
    "OpenLayer",
    "PreviewPlane",
    "SharpImages",
    "SimulationConfig",
    "TrainingConfig",
    "TrainingRequest",
    "efcr",
    "efcr_extra",
    "haar_bands",
    "publish",
    "to_channels",
    "train",
]

_ROOMS = {
    "config": ("ContrastConfig", "SimulationConfig", "TrainingConfig"),
    "contrastive": ("EFCR", "efcr", "efcr_extra", "haar_bands", "to_channels"),
    "publish": ("publish",),
    "request": (
        "FocusStacks",
        "ImagePairs",
        "ImageSource",
        "OpenLayer",
        "PreviewPlane",
        "SharpImages",
        "TrainingRequest",
    ),
    "session": ("train",),
}


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
