"""``mpt-deblur models``: list the model library."""

from __future__ import annotations

import argparse
from typing import Any

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, ModelInfo, available_models, user_folder
from napari_mpt_deblur.cli.console import DONE, subparser


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    subparser(subparsers, "models", "list the models that can be used", run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a model; a broken file is listed with the reason."""
    models = available_models()
    width = max([len(model.name) for model in models], default=0)
    for model in models:
        print(f"{model.name:{width}}  {_describe(model)}")
    if not models:
        print("No model is installed.")
    print(f"Your own models (.safetensors) belong in {user_folder()}")
    return DONE


def _describe(model: ModelInfo) -> str:
    if model.problem or model.config is None:
        return f"[broken] {model.problem}"
    parts = [model.description or "no description", f"{model.parameter_count / 1e6:.2f} M parameters"]
    if model.config.nucleus_diameter_px:
        low, high = model.config.nucleus_diameter_px
        parts.append(f"nuclei of {low:g} to {high:g} pixels")
    if model.config.licence:
        parts.append(f"licence {model.config.licence}")
    kind = "bundled" if model.bundled else str(model.path)
    default = ", default" if model.name == DEFAULT_MODEL else ""
    return f"[{kind}{default}] {'; '.join(parts)}"
