"""What one step sees and minimises: the pixel loss of the pairs, and the contrastive part that the method adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mpt_deblur.training.config import ContrastConfig, TrainingConfig
from napari_mpt_deblur.training.contrastive import (
    Terms,
    combine,
    extra_term,
    negative_term,
    positive_term,
    to_channels,
)
from napari_mpt_deblur.training.data import Patches, TrainingData
from napari_mpt_deblur.training.events import Losses

_KINDS, _KERNELS = 3, 5  # streams of random numbers
_SMALLEST_MSE = 1e-6  # below, an image is restored: its root mean square has no slope to speak of

Network = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """What one step sees.

    Attributes
    ----------
    pairs : tuple of Tensor
        Blurred and sharp, (N, C, H, W).
    unlabelled : Tensor or None
    extra : tuple of Tensor or None
        Extra pairs, brought to the network's channels.
    kernels_px : tuple of int
        Sides of the kernels that blur images once more, one an image.
    """

    pairs: Patches
    unlabelled: Tensor | None = None
    extra: Patches | None = None
    kernels_px: tuple[int, ...] = ()

    @property
    def images(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (*self.pairs, *(() if self.unlabelled is None else (self.unlabelled,)), *(self.extra or ()))


class Parts(NamedTuple):
    """A loss with its graph, and the terms that it is made of, scalars; None where the method has no such term."""

    total: Tensor
    pixel: Tensor
    contrast: Tensor | None = None
    positive: Tensor | None = None
    negative: Tensor | None = None
    extra: Tensor | None = None

    def values(self) -> Losses:
        """As numbers."""
        return Losses(*(None if part is None else float(part.detach()) for part in self))  # type: ignore[arg-type]


def rmse(restored: Tensor, sharp: Tensor) -> Tensor:
    """The mean over the batch of each image's root mean square."""
    return ((restored - sharp).square().mean((1, 2, 3)) + _SMALLEST_MSE).sqrt().mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "mse": F.mse_loss, "rmse": rmse}


def objective(network: Network, batch: Batch, loss: str, contrast: ContrastConfig) -> Parts:
    """The loss of one batch; gradients flow through every pass through the network.

    Parameters
    ----------
    network : callable
        (N, C, H, W) to (N, C, H, W) float32.
    batch : Batch
    loss : {"l1", "mse", "rmse"}
    contrast : ContrastConfig
    """
    blurred, sharp = batch.pairs
    restored = network(blurred)
    pixel = PIXEL_LOSSES[loss](restored, sharp)
    if contrast.method == "pixel":
        return Parts(pixel, pixel)
    if contrast.needs_extra_pairs:
        assert batch.extra is not None  # the request was checked
        blurred, sharp = batch.extra
        restored = network(blurred)
    reduction, high_only = contrast.reduction, contrast.needs_extra_pairs
    positive = positive_term(restored, sharp, high_only=high_only, reduction=reduction)
    negative = negative_term(restored, blurred, reduction=reduction)
    extra = _extra(network, blurred if batch.unlabelled is None else batch.unlabelled, batch, contrast)
    if batch.unlabelled is not None and extra is not None:
        extra = extra.mean(0, keepdim=True)  # of other images: their mean serves all
    terms = Terms(positive, negative, positive.new_zeros(1) if extra is None else extra)
    part = combine(terms, extra_weight=contrast.extra_weight)
    total = pixel + contrast.beta * part
    return Parts(total, pixel, part, positive.mean(), negative.mean(), None if extra is None else extra.mean())


def draw_batch(data: TrainingData, config: TrainingConfig, iteration: int, device: torch.device) -> Batch:
    """What the step of an iteration, counted from 0, sees: on the device, with the network's channels."""

    def given(patches: Sequence[Tensor]) -> Any:
        channels = config.network.in_channels
        return tuple(to_channels(images, channels).contiguous().to(device) for images in patches)

    contrast = config.contrast
    kind = int(np.random.default_rng([config.seed, _KINDS, iteration]).integers(len(config.patch_px)))
    drawn = (iteration * max(config.batch), config.batch[kind], config.patch_px[kind])
    unlabelled = data.unlabelled if contrast.needs_unlabelled else None
    extra = data.extra if contrast.needs_extra_pairs else None
    return Batch(
        given(data.train.batch(*drawn)),
        given((unlabelled.batch(*drawn),))[0] if unlabelled else None,
        given(extra.batch(*drawn)) if extra else None,
        draw_kernels(contrast, config.batch[kind], np.random.default_rng([config.seed, _KERNELS, iteration])),
    )


def draw_kernels(contrast: ContrastConfig, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Sides of the kernels for `count` images."""
    if not contrast.has_extra_term:
        return ()
    return tuple(int(side) for side in rng.choice(contrast.kernels_px, count))


def reblur(images: Tensor, kernels_px: Sequence[int], sigma_px: float) -> Tensor:
    """Images blurred once more, each by a Gaussian kernel of its own side; continued by reflection at the edges.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W) float32.
    kernels_px : sequence of int
        N odd sides.
    sigma_px : float

    Returns
    -------
    Tensor
        (N, C, H, W).
    """
    count, channels, height, width = images.shape
    widest = max(kernels_px)
    kernels = torch.stack([_gaussian(side, sigma_px, widest) for side in kernels_px]).to(images)  # (N, widest)
    kernels = kernels.repeat_interleave(channels, 0)[:, None]  # (N C, 1, widest)
    pad = widest // 2
    maps = F.pad(images, (pad,) * 4, mode="reflect" if min(height, width) > pad else "replicate")
    maps = maps.reshape(1, count * channels, height + 2 * pad, width + 2 * pad)
    maps = F.conv2d(maps, kernels[..., None], groups=count * channels)
    maps = F.conv2d(maps, kernels[:, :, None], groups=count * channels)
    return maps.reshape(images.shape)


def _extra(network: Network, images: Tensor, batch: Batch, contrast: ContrastConfig) -> Tensor | None:
    """Lext of each image, (N,)."""
    if not contrast.has_extra_term:
        return None
    again = reblur(images, batch.kernels_px, contrast.sigma_px)
    return extra_term(images, again, network(again), reduction=contrast.reduction)


def _gaussian(side: int, sigma_px: float, width: int) -> Tensor:
    """(width,) float32, sum 1, 0 beyond `side`."""
    offsets = torch.arange(width, dtype=torch.float64) - width // 2
    values = torch.exp(-0.5 * (offsets / sigma_px) ** 2) * (offsets.abs() <= side // 2)
    return (values / values.sum()).float()
