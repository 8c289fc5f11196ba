"""Sharp images to train on, from files, folders, globs and lists of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.images import find_images, read_image
from napari_mpt_deblur.training.simulation import SharpImage

_LIST_SUFFIX = ".txt"
_SMALLEST_PX = 16


def list_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Paths of images; a ``.txt`` file lists one path a line, relative to itself.

    Raises
    ------
    FileError, TrainingError
        If an input does not exist or a list cannot be read.
    """
    expanded: list[str | Path] = []
    for item in map(Path, inputs):
        if item.suffix.lower() != _LIST_SUFFIX:
            expanded.append(item)
            continue
        try:
            lines = item.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"Cannot read the list of images {item}: {error}.") from error
        expanded.extend(item.parent / line.strip() for line in lines if line.strip())
    return find_images(expanded) if expanded else []


def load_sharp_images(paths: Sequence[Path]) -> list[SharpImage]:
    """Every plane of every file as a sharp image.

    Raises
    ------
    TrainingError
        If a file cannot be read, or holds planes too small or without content.
    """
    images = []
    for path in paths:
        try:
            view = read_image(path)
            planes = [view.read_plane(plane) for plane in view.planes]
        except DeblurError as error:
            raise TrainingError(f"Cannot train on {path}: {error}") from error
        for plane in planes:
            if min(plane.shape) < _SMALLEST_PX or not np.isfinite(plane).all() or plane.min() == plane.max():
                raise TrainingError(
                    f"Cannot train on {path}: planes must be at least {_SMALLEST_PX} pixels a side, "
                    "with finite values that are not all the same; leave it out."
                )
            images.append(SharpImage.of(plane))
    return images


def hold_out(paths: Sequence[Path], every: int = 10) -> tuple[list[Path], list[Path]]:
    """Training and validation paths: every tenth, by name, is held out (at least one of two or more)."""
    ordered = sorted(paths)
    validation = ordered[every - 1 :: every] or ordered[-1:]
    return [path for path in ordered if path not in set(validation)], validation
