"""The engine: array in, array out, tile by tile. Loaded on first use, so that importing it does not wait for torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mpt_deblur.restoration.api import deblur
    from napari_mpt_deblur.restoration.deblurrer import Deblurrer
    from napari_mpt_deblur.restoration.devices import available_devices, available_precisions, pick_device
    from napari_mpt_deblur.restoration.outcomes import Estimate, Progress, Restored

__all__ = [
    "Deblurrer",
    "Estimate",
    "Progress",
    "Restored",
    "available_devices",
    "available_precisions",
    "deblur",
    "pick_device",
]

_ROOMS = {
    "Deblurrer": "deblurrer",
    "Estimate": "outcomes",
    "Progress": "outcomes",
    "Restored": "outcomes",
    "available_devices": "devices",
    "available_precisions": "devices",
    "deblur": "api",
    "pick_device": "devices",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
