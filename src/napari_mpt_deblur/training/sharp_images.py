"""Sharp images to train on, from files and layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.training.request import ImageSource
from napari_mpt_deblur.training.simulation import SharpImage

_SMALLEST_PX = 16
_SMALLEST_STRIPED_PX = 5 * _SMALLEST_PX  # a fifth of the only plane is held out
_EVERY = 10


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


def hold_out_planes(images: list[SharpImage]) -> tuple[list[SharpImage], list[SharpImage]]:
    """Training and validation parts of a single source: every tenth plane, or a strip of the only one.

    Raises
    ------
    TrainingError
        If the only plane is too small for that.
    """
    if len(images) > 1:
        held = set(range(_EVERY - 1, len(images), _EVERY)) or {len(images) - 1}
        return (
            [image for number, image in enumerate(images) if number not in held],
            [image for number, image in enumerate(images) if number in held],
        )
    pixels, nucleus_px = images[0].pixels, images[0].nucleus_px
    axis = -2 if pixels.shape[-2] >= pixels.shape[-1] else -1
    length = pixels.shape[axis]
    if length < _SMALLEST_STRIPED_PX:
        raise TrainingError(
            f"Training needs at least two sharp images, or one of {_SMALLEST_STRIPED_PX} pixels: "
            "one part to train on and one to validate on."
        )
    train, held_out = np.split(pixels, [length - length // 5], axis)
    return [SharpImage(train, nucleus_px)], [SharpImage(held_out, nucleus_px)]


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
