"""Bring out-of-focus microscopy back into focus, with the Multi-Pyramid Transformer.

>>> from napari_mpt_deblur import deblur, load_model

Names are loaded on first use, so that importing the package loads neither torch nor Qt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mpt_deblur.checkpoints import export_bioimageio, import_checkpoint, load_model
    from napari_mpt_deblur.detection.detect import detect
    from napari_mpt_deblur.detection.precision import average_precision
    from napari_mpt_deblur.restoration import deblur

    __version__: str

__all__ = [
    "__version__",
    "average_precision",
    "deblur",
    "detect",
    "export_bioimageio",
    "import_checkpoint",
    "load_model",
]

_ROOMS = {
    "average_precision": "detection.precision",
    "deblur": "restoration",
    "detect": "detection.detect",
    "export_bioimageio": "checkpoints",
    "import_checkpoint": "checkpoints",
    "load_model": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-mpt-deblur")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
