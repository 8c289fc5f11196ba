"""Models: weights with their configuration in safetensors files, and the library of them.

What needs torch is loaded on first use, so that models can be listed without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.checkpoints.library import (
    DEFAULT_MODEL,
    ModelInfo,
    available_models,
    check_name,
    find_model,
    user_folder,
)
from napari_mpt_deblur.checkpoints.safetensors_file import (
    ModelFile,
    ModelHeader,
    read_header,
    read_model_file,
)

if TYPE_CHECKING:
    from napari_mpt_deblur.checkpoints.exporting import export_bioimageio
    from napari_mpt_deblur.checkpoints.importing import import_checkpoint
    from napari_mpt_deblur.checkpoints.loading import Model, load_model
    from napari_mpt_deblur.checkpoints.saving import save_model

__all__ = [
    "DEFAULT_MODEL",
    "Model",
    "ModelConfig",
    "ModelFile",
    "ModelHeader",
    "ModelInfo",
    "available_models",
    "check_name",
    "export_bioimageio",
    "find_model",
    "import_checkpoint",
    "load_model",
    "read_header",
    "read_model_file",
    "save_model",
    "user_folder",
]

_ROOMS = {
    "export_bioimageio": "exporting",
    "import_checkpoint": "importing",
    "Model": "loading",
    "load_model": "loading",
    "save_model": "saving",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
