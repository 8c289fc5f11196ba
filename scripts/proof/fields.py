"""Images of the proofs: which train, which are looked at, and how the camera sees them out of focus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evaluate_model import CAMERA, DATA, MICROSCOPE
from skimage.io import imread

from napari_mpt_deblur.optics.psf import blur, defocus_psf
from napari_mpt_deblur.training import ImageSource
from napari_mpt_deblur.training.folders import list_images

TARGET, OTHER = "bbbc039", "dsb2018_fluo"


class Seen(NamedTuple):
    """A field as it is, and as the camera sees it at some distances from focus."""

    name: str
    truth: np.ndarray  # (Y, X) float32 grey levels
    planes: np.ndarray  # (Z, Y, X) float32, one a distance
    labels: np.ndarray | None  # (Y, X) int32, the true nuclei; None where they do not matter


def listed(lists: Path, split: str, data_set: str) -> list[Path]:
    """The images of one data set in ``train.txt`` or ``validation.txt``."""
    return [path for path in list_images([lists / f"{split}.txt"]) if path.parent.parent.name == data_set]


def shuffled(paths: Sequence[Path]) -> list[Path]:
    """In an order that is random, and the same always."""
    ordered = sorted(paths)
    return [ordered[i] for i in np.random.default_rng(0).permutation(len(ordered))]


def sources(paths: Sequence[Path]) -> tuple[ImageSource, ...]:
    """As the engine takes them."""
    return tuple(ImageSource.of_file(path) for path in paths)


def seen(path: Path, number: int, depths_um: Sequence[float], *, gain: float = 1.0) -> Seen:
    """A field, defocused and recorded as in evaluate_model.py.

    Parameters
    ----------
    path : Path
        Its labels lie in the folder ``masks`` beside that of the images.
    number : int
        Of the camera's noise.
    depths_um : sequence of float
    gain : float
        What brings images of 8 bits to a camera's range.
    """
    truth = imread(path).astype(np.float32) * gain
    rng = np.random.default_rng([number, 1])
    planes = np.stack([CAMERA.record(blur(truth, defocus_psf(MICROSCOPE, depth)), rng) for depth in depths_um])
    labels = imread(path.parent.parent / "masks" / f"{path.stem}.png").astype(np.int32)
    return Seen(path.stem, truth, planes, labels)


def median_areas(data_set: str) -> dict[str, float]:
    """Median area of the nuclei of each image, in pixels, from its masks."""
    entries = json.loads((DATA / data_set / "index.json").read_text())
    return {entry["id"]: float(entry["median_area_px"]) for entry in entries}
