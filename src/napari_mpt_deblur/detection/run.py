"""One detection run: all planes of an image, plane by plane and tile by tile, as a generator."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_mpt_deblur.detection.config import Thresholds
from napari_mpt_deblur.detection.folder import Detector
from napari_mpt_deblur.detection.instances import Instances, find_instances, join_candidates, tile_candidates
from napari_mpt_deblur.detection.prediction import grid_shape, predict_tiles
from napari_mpt_deblur.detection.settings import DetectionSettings
from napari_mpt_deblur.errors import ModelError, ParameterError
from napari_mpt_deblur.images import ImageView, PlaneIndex, measure_normalization

_MAX_SCALED_PIXELS = 2**28

PlaneGroup = tuple[PlaneIndex, ...]  # what the network sees at once: one grey plane, or the colours of one


@dataclass(frozen=True)
class DetectionProgress:
    """How far a run is: which tile of a plane is done, which plane of the image it belongs to, and how many there are.

    All count from 1.
    """

    tile: int
    tiles: int
    plane: int
    planes: int

    @property
    def done(self) -> int:
        """Tiles of the whole run that are done."""
        return (self.plane - 1) * self.tiles + self.tile

    @property
    def total(self) -> int:
        """Tiles of the whole run."""
        return self.planes * self.tiles


@dataclass(frozen=True, eq=False)
class Detected:
    """The nuclei of an image.

    Attributes
    ----------
    labels : ndarray
        int32, of the image's shape without colours (and without C where the model takes the channels together).
        Numbers begin anew in every plane.
    axes : str
        Of the labels.
    planes : dict of tuple of int to Instances
        The nuclei of each plane, by its position along the leading axes of the labels.
    scale : float
        Pixels that the model saw for one of the image.
    thresholds : Thresholds
        Those used.
    """

    labels: np.ndarray
    axes: str
    planes: dict[tuple[int, ...], Instances]
    scale: float
    thresholds: Thresholds

    @property
    def probabilities(self) -> dict[tuple[int, int], float]:
        """The probability of every nucleus, by number of its plane (from 0) and label, as the ledger takes them."""
        return {
            (number, label): float(probability)
            for number, instances in enumerate(self.planes.values())
            for label, probability in enumerate(instances.prob, start=1)
        }


def detection_steps(
    image: Any, detector: Detector, settings: DetectionSettings | None = None
) -> Generator[DetectionProgress, None, Detected]:
    """Detect the nuclei of all planes, step by step; stop asking to cancel.

    Parameters
    ----------
    image : ImageView or array_like
    detector : Detector
    settings : DetectionSettings, optional

    Yields
    ------
    DetectionProgress
        After every tile.

    Returns
    -------
    Detected

    Raises
    ------
    ModelError
        If the model takes other channels than the image has.
    ParameterError
        If the settings do not suit the model.
    OutOfMemoryError
        If not even the smallest tile fits the memory.
    """
    view = image if isinstance(image, ImageView) else ImageView.of(image)
    settings = settings or DetectionSettings()
    thresholds, scale = settings.thresholds(detector.thresholds), settings.scale(detector, view.pixel_size_um)
    groups, axes = _groups(view, detector.config.n_channel_in)
    leading = tuple(view.shape[view.axes.text.index(letter)] for letter in axes[:-2])
    labels = np.zeros((*leading, view.height, view.width), np.int32)
    planes = {}
    for number, (index, group) in enumerate(groups.items()):
        channels = _normalised(view, group, settings.percentiles)
        if channels is None:
            planes[index] = _nothing((view.height, view.width), detector.config.n_rays)
            yield DetectionProgress(1, 1, number + 1, len(groups))
            continue
        steps = _plane_steps(channels, detector, thresholds, scale, settings.tile_px)
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                planes[index] = end.value
                break
            yield DetectionProgress(done, total, number + 1, len(groups))
        labels[index] = planes[index].labels
        planes[index] = replace(planes[index], labels=labels[index])  # a view: each plane is held once
    return Detected(labels, axes, planes, scale, thresholds)


def _groups(view: ImageView, channels: int) -> tuple[dict[tuple[int, ...], PlaneGroup], str]:
    """What the network sees at once, by position along the leading axes of the labels, and the axes of these."""
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


def _normalised(view: ImageView, group: PlaneGroup, percentiles: tuple[float, float]) -> np.ndarray | None:
    """(C, Y, X) float32, by percentiles of all channels together as StarDist's `normalize` does; None if constant."""
    pixels = np.stack([view.read_pixels(plane) for plane in group])
    flat = ImageView.of(pixels.reshape(-1, pixels.shape[-1]), "YX")
    normalization = measure_normalization(flat, percentiles, max_pixels=pixels.size)
    if normalization.is_flat(0):
        return None
    values = normalization.apply(pixels, 0)
    return np.nan_to_num(values, copy=False, nan=0.0, posinf=1.0, neginf=0.0)


def _plane_steps(
    channels: np.ndarray, detector: Detector, thresholds: Thresholds, scale: float, tile_px: int | None
) -> Generator[tuple[int, int], None, Instances]:
    """The nuclei of one normalised plane; yields tiles done and in all."""
    shape = (channels.shape[1], channels.shape[2])
    seen = _rescaled(channels, scale)
    seen_shape = (seen.shape[1], seen.shape[2])
    grid, config = grid_shape(detector.network, seen_shape), detector.config
    candidates = []
    for tile in predict_tiles(detector.network, seen, tile_px=tile_px):
        candidates.append(tile_candidates(tile, config, seen_shape, grid, thresholds.prob))
        yield tile.done, tile.total
    per_seen = (shape[0] / seen_shape[0], shape[1] / seen_shape[1])
    return find_instances(join_candidates(candidates, config.n_rays), thresholds, shape, per_seen)


def _rescaled(channels: np.ndarray, scale: float) -> np.ndarray:
    """(C, Y, X) with `scale` pixels for one, smoothed where that is fewer."""
    if scale == 1:
        return channels
    size = [max(1, round(length * scale)) for length in channels.shape[1:]]
    if math.prod(size) > _MAX_SCALED_PIXELS:
        raise ParameterError(
            f"For the model the plane would be enlarged to {size[0]} x {size[1]} pixels: check the nucleus diameter "
            "or pixel size, or give a part of the image."
        )
    planes = torch.from_numpy(channels)[None]
    return F.interpolate(planes, size=size, mode="bilinear", antialias=True)[0].numpy()


def _nothing(shape: tuple[int, int], n_rays: int) -> Instances:
    candidates = join_candidates((), n_rays)
    return find_instances(candidates, Thresholds(), shape)
