"""One detection run: all planes of an image, plane by plane and tile by tile, as a generator."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_mpt_deblur.detection.config import Thresholds
from napari_mpt_deblur.detection.detected import Detected, DetectionProgress
from napari_mpt_deblur.detection.folder import AnyDetector, Detector
from napari_mpt_deblur.detection.instances import Instances, find_instances, join_candidates, tile_candidates
from napari_mpt_deblur.detection.planes import normalised, plane_groups
from napari_mpt_deblur.detection.prediction import grid_shape, predict_tiles
from napari_mpt_deblur.detection.settings import DetectionSettings
from napari_mpt_deblur.detection.through_tensorflow import TensorFlowDetector, tensorflow_steps
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images import ImageView

_MAX_SCALED_PIXELS = 2**28


def detection_steps(
    image: Any, detector: AnyDetector, settings: DetectionSettings | None = None
) -> Generator[DetectionProgress, None, Detected]:
    """Detect the nuclei of all planes, step by step; stop asking to cancel.

    Parameters
    ----------
    image : ImageView or array_like
    detector : Detector or TensorFlowDetector
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
    if isinstance(detector, TensorFlowDetector):
        return (yield from tensorflow_steps(view, detector, settings))
    thresholds, scale = settings.thresholds(detector.thresholds), settings.scale(detector, view.pixel_size_um)
    groups, axes = plane_groups(view, detector.config.n_channel_in)
    leading = tuple(view.shape[view.axes.text.index(letter)] for letter in axes[:-2])
    labels = np.zeros((*leading, view.height, view.width), np.int32)
    planes = {}
    for number, (index, group) in enumerate(groups.items()):
        channels = normalised(view, group, settings.percentiles)
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
    count = sum(len(found.prob) for found in planes.values())
    return Detected(labels, axes, planes, scale, thresholds, count)


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
