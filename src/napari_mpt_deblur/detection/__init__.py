"""Finding nuclei with StarDist, and comparing what is found before and after deblurring.

What needs torch is loaded on first use, so that models can be listed without it. The function `detect` stands in the
module of its name, and in the package itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.detected import Detected, DetectionProgress
    from napari_mpt_deblur.detection.folder import AnyDetector, Detector, load_detector, load_folder, save_detector
    from napari_mpt_deblur.detection.library import DEFAULT_DETECTOR, DetectorInfo, available_detectors, find_detector
    from napari_mpt_deblur.detection.run import detection_steps
    from napari_mpt_deblur.detection.settings import DetectionSettings

__all__ = [
    "DEFAULT_DETECTOR",
    "AnyDetector",
    "Detected",
    "DetectionProgress",
    "DetectionSettings",
    "Detector",
    "DetectorInfo",
    "available_detectors",
    "detection_steps",
    "find_detector",
    "load_detector",
    "load_folder",
    "save_detector",
]

_ROOMS = {
    "detected": ("Detected", "DetectionProgress"),
    "folder": ("AnyDetector", "Detector", "load_detector", "load_folder", "save_detector"),
    "library": ("DEFAULT_DETECTOR", "DetectorInfo", "available_detectors", "find_detector"),
    "run": ("detection_steps",),
    "settings": ("DetectionSettings",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
