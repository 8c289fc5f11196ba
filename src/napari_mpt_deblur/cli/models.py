"""``mpt-deblur models``: lists models that deblur and that detect; `importing` and `exporting` bring and take them."""

from __future__ import annotations

import argparse
import hashlib
from contextlib import suppress
from typing import Any

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, ModelInfo, available_models, user_folder
from napari_mpt_deblur.cli import exporting, importing
from napari_mpt_deblur.cli.console import DONE, subparser
from napari_mpt_deblur.detection import DEFAULT_DETECTOR, DetectorInfo, available_detectors

_HASH_LETTERS = 16  # of the 64 that a record holds


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "models", "list the models that can be used, import or export one", run)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    importing.add_parser(commands)
    exporting.add_parser(commands)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a model; a broken one is listed with the reason."""
    models, detectors = available_models(), available_detectors()
    names = [model.name for model in models] + [detector.name for detector in detectors]
    width = max(map(len, names), default=0)
    print("To deblur:" if models else "No model is installed.")
    for model in models:
        print(f"{model.name:{width}}  {_describe(model)}")
    print("To detect nuclei:")
    for detector in detectors:
        print(f"{detector.name:{width}}  {_describe_detector(detector)}")
    print(
        f"Your own models (.safetensors) belong in {user_folder()}; "
        "those that detect (StarDist folders) in its folder detection"
    )
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
    with suppress(OSError), model.path.open("rb") as file:  # it may have gone since it was listed
        parts.append(f"SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()[:_HASH_LETTERS]}")
    kind = "bundled" if model.bundled else str(model.path)
    default = ", default" if model.name == DEFAULT_MODEL else ""
    return f"[{kind}{default}] {'; '.join(parts)}"


def _describe_detector(info: DetectorInfo) -> str:
    if info.problem:
        return f"[broken] {info.problem}"
    kind = {"published": "published by StarDist", "own": str(info.path)}.get(info.kind, info.kind)
    default = ", default" if info.name == DEFAULT_DETECTOR else ""
    if info.description is None:
        return (
            f"[{kind}] {'run by StarDist itself, with TensorFlow' if info.path else 'fetched when it is first named'}"
        )
    channels = info.description.config.n_channel_in
    parts = [info.description.description or "StarDist", "grey" if channels == 1 else f"{channels} channels"]
    if info.description.nucleus_diameter_px:
        parts.append(f"nuclei of about {info.description.nucleus_diameter_px:g} pixels")
    if info.description.licence:
        parts.append(f"licence {info.description.licence}")
    return f"[{kind}{default}] {'; '.join(parts)}"
