"""PSNR and SSIM on what training does not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from napari_mpt_deblur.evaluation.metrics import psnr, ssim
from napari_mpt_deblur.networks.build import NetworkConfig
from napari_mpt_deblur.training.contrastive import to_channels
from napari_mpt_deblur.training.data import Patches
from napari_mpt_deblur.training.events import Scores

_BEST_DB = 100.0  # of images that are equal
_SAME = 1e-5  # figures of the same pairs differ by rounding alone: by processor, threads, versions of libraries


def validate(
    restore: Callable[[Tensor], Tensor], pairs: Sequence[Patches], network: NetworkConfig, iteration: int
) -> Scores:
    """Means over held-out pairs; peak 1.

    Parameters
    ----------
    restore : callable
        (1, C, H, W) with sides that the network accepts, to the same.
    pairs : sequence of (Tensor, Tensor)
        Blurred and sharp, (1, C, H, W) of any size: padded by reflection for the network, as the Deblurrer does.
    network : MPTConfig or SpandrelConfig
    iteration : int
        For the record.
    """
    rows = []
    for blurred, sharp in pairs:
        restored = padded(restore, blurred, network.size_multiple)
        before, truth = (to_channels(images, network.in_channels) for images in (blurred, sharp))
        rows.append([measure(image, truth) for measure in (_psnr, _ssim) for image in (restored, before)])
    scores = np.mean(rows, axis=0)
    return Scores(iteration, *map(float, scores))


def measured_on(scores: Sequence[Scores], pairs: Sequence[Patches], network: NetworkConfig) -> bool:
    """Whether figures that are known were measured on these pairs, by what they say of the blurred sides.

    Parameters
    ----------
    scores : sequence of Scores
        What they do not tell (NaN) counts as the same.
    pairs, network
        As `validate` has them.
    """
    if not scores:
        return True
    now = validate(lambda images: images, pairs, network, 0)
    return all(
        math.isnan(then) or math.isclose(then, here, rel_tol=_SAME)
        for each in scores
        for then, here in ((each.psnr_blurred, now.psnr_blurred), (each.ssim_blurred, now.ssim_blurred))
    )


def padded(restore: Callable[[Tensor], Tensor], images: Tensor, multiple: int) -> Tensor:
    """What `restore` makes of images whose sides it does not accept: continued by reflection, and cut again."""
    height, width = images.shape[2:]
    missing = [(0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)]
    padded = np.pad(images.numpy(), missing, mode="symmetric")
    return restore(torch.from_numpy(padded))[..., :height, :width]


def _psnr(images: Tensor, truth: Tensor) -> float:
    return min(psnr(images[0].numpy(), truth[0].numpy(), 1), _BEST_DB)


def _ssim(images: Tensor, truth: Tensor) -> float:
    return float(np.mean([ssim(a.numpy(), b.numpy(), 1) for a, b in zip(images[0], truth[0], strict=True)]))
