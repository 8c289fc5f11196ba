"""The folder of a training run: the same settings and the same images find it again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mpt_deblur.checkpoints import find_model, read_header
from napari_mpt_deblur.checkpoints.library import user_folder
from napari_mpt_deblur.checkpoints.safetensors_file import SUFFIX
from napari_mpt_deblur.errors import DeblurError
from napari_mpt_deblur.images.view import ImageView
from napari_mpt_deblur.widgets.train.request import Images, Pairs, TrainRequest

_SIDE_PX = 64  # of the pixels by which two images of one name and size are told apart
_PROLONGING = "iterations"  # a run that this alone changes goes on
_DIGITS = 10


def run_folder(request: TrainRequest) -> Path:
    """Where a run keeps its state and weights.

    Parameters
    ----------
    request : TrainRequest

    Returns
    -------
    Path
        In the folder of the user's models, where it is no model. It depends on all that a run depends on, but on how
        long it is to last and on the device. A plane of each image is read.

    Raises
    ------
    DeblurError
        If the base model or a folder cannot be read.
    """
    config = {name: value for name, value in request.config.to_dict().items() if name != _PROLONGING}
    told = {
        "config": config,
        "base": request.base and _file_hash(find_model(request.base)),
        "pairs": _describe_pairs(request.pairs),
        "unlabelled": request.unlabelled and _describe(request.unlabelled),
        "extra": request.extra and _describe_pairs(request.extra),
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGITS]
    return user_folder() / "training" / f"{request.slug}-{digest}"


def _describe_pairs(pairs: Pairs) -> Any:
    return [pairs.kind.value, *map(_describe, pairs.images)]


def _describe(images: Images) -> Any:
    if images.source is not None:
        return [images.source.name, _describe_view(images.source.open())]
    files = [source.path for source in images.sources()]
    states = [(path.name, path.stat()) for path in files if path is not None and path.exists()]
    return [str(images.folder), [(name, state.st_size, state.st_mtime_ns) for name, state in states]]


def _describe_view(view: ImageView) -> Any:
    """Its shape, and a few pixels of its middle plane."""
    pixels = view.read_pixels(view.planes[len(view.planes) // 2])
    steps = tuple(max(1, length // _SIDE_PX) for length in pixels.shape)
    few = np.ascontiguousarray(pixels[:: steps[0], :: steps[1]])
    return [view.axes.text, list(view.shape), str(view.dtype), hashlib.sha256(few.tobytes()).hexdigest()]


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class EarlierRun:
    """A run of the same settings, which can be gone on with.

    Attributes
    ----------
    iteration : int
        Reached.
    iterations : int
        That it was to have.
    """

    iteration: int
    iterations: int


def earlier_run(folder: Path) -> EarlierRun | None:
    """The run that a folder holds; None if it holds none.

    Parameters
    ----------
    folder : Path
    """
    if not (folder / "state.pt").is_file():
        return None
    try:
        recipe = read_header(folder / f"last{SUFFIX}").config.training
        return EarlierRun(int(recipe["iterations"]), int(recipe["config"]["iterations"]))
    except (DeblurError, KeyError, TypeError, ValueError):
        return None  # the engine says what is wrong with it
