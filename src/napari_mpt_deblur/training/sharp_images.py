"""Sharp images to train on, from files and layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.training.request import ImageSource
from napari_mpt_deblur.training.simulation import SharpImage

_SMALLEST_PX = 16


def load_sharp_images(sources: Sequence[ImageSource], *, colours_together: bool = False) -> list[SharpImage]:
    """Every plane of every image as a sharp image of its own.

    Parameters
    ----------
    sources : sequence of ImageSource
    colours_together : bool
        Make one image of the three planes of an RGB image.

    Raises
    ------
    TrainingError
        If an image cannot be read, or holds planes too small or without content.
    """
    images = []
    for source in sources:
        for plane in _planes(source, colours_together):
            small = min(plane.shape[-2:]) < _SMALLEST_PX
            if small or not np.isfinite(plane).all() or plane.min() == plane.max():
                raise TrainingError(
                    f"Cannot train on {source.path or source.name}: planes must be at least {_SMALLEST_PX} pixels a "
                    "side, with finite values that are not all the same; leave it out."
                )
            images.append(SharpImage.of(plane))
    return images


def _planes(source: ImageSource, colours_together: bool) -> list[np.ndarray]:
    """Each (Y, X), or (3, Y, X) for colours that are kept together."""
    try:
        view = source.open()
        planes = [view.read_plane(plane) for plane in view.planes]
    except DeblurError as error:
        raise TrainingError(f"Cannot train on {source.path or source.name}: {error}") from error
    if not colours_together or not view.sample_count:
        return planes
    count = view.sample_count
    return [np.stack(planes[first : first + count]) for first in range(0, len(planes), count)]
