"""What a model sees at once: one grey plane, or the channels of one, normalised. No torch."""

from __future__ import annotations

import numpy as np

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.images import ImageView, PlaneIndex, measure_normalization

PlaneGroup = tuple[PlaneIndex, ...]  # what the network sees at once: one grey plane, or the colours of one


def plane_groups(view: ImageView, channels: int) -> tuple[dict[tuple[int, ...], PlaneGroup], str]:
    """What the network sees at once, by position along the leading axes of the labels, and the axes of these.

    Parameters
    ----------
    view : ImageView
    channels : int
        That the model takes.

    Raises
    ------
    ModelError
        If the image has others.
    """
    axes = view.axes.leading + "YX"
    if view.sample_count:
        if channels != view.sample_count:
            raise ModelError(
                f"The model takes {_channels(channels)}, the image is RGB: choose a model for RGB, such as "
                "2D_versatile_he, or give one channel of the image as a grey image."
            )
        position = view.axes.leading
    elif channels == 1:
        position = view.axes.leading
    else:
        count = view.channel_count if "C" in view.axes.leading else 1
        if count != channels:
            what = f"{count} channels" if count > 1 else "one channel"
            raise ModelError(
                f"The model takes {_channels(channels)}, the image has {what}: choose a model for grey images, such as "
                f"2D_versatile_fluo, or give an image with {channels} channels."
            )
        position = view.axes.leading.replace("C", "")
        axes = position + "YX"
    groups: dict[tuple[int, ...], list[PlaneIndex]] = {}
    for plane in view.planes:
        index = tuple(i for i, letter in zip(plane.index, view.axes.leading, strict=True) if letter in position)
        groups.setdefault(index, []).append(plane)
    return {index: tuple(group) for index, group in groups.items()}, axes


def _channels(number: int) -> str:
    return {1: "grey images (one channel)", 3: "RGB images (three channels)"}.get(number, f"{number} channels")


def normalised(view: ImageView, group: PlaneGroup, percentiles: tuple[float, float]) -> np.ndarray | None:
    """(planes, Y, X) float32, by percentiles of all planes together as StarDist's `normalize` does; None if constant.

    Pixels that are not finite become 0, or 1 where they are infinite upwards.
    """
    pixels = np.stack([view.read_pixels(plane) for plane in group])
    flat = ImageView.of(pixels.reshape(-1, pixels.shape[-1]), "YX")
    normalization = measure_normalization(flat, percentiles, max_pixels=pixels.size)
    if normalization.is_flat(0):
        return None
    values = normalization.apply(pixels, 0)
    return np.nan_to_num(values, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
