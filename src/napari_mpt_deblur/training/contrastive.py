"""The paper's contrastive regularisation in the frequency domain: EFCR and EFCRex (section B; equations 4 to 10).

Output and truth are pulled together in the bands of a one-level Haar wavelet, output and blurred input pushed apart in
its high bands, and the network is asked to change an image that was blurred once more by as much as the blur did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import pywt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mpt_deblur.errors import TrainingError

Reduction = Literal["mean", "sum"]
ExtraImages = tuple[Tensor, Tensor, Tensor]
"""Unlabelled images: blurred, blurred once more, and the network's output for the latter, each (N', C, H', W')."""

_FLOOR = 1e-4  # of denominators; of Lext's, in units of the images' range (times the number of values for sums)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Terms(NamedTuple):
    """The terms of one loss, each (N,), one value an image.

    Attributes
    ----------
    positive : Tensor
        L+, distance to the truth.
    negative : Tensor
        L-, distance to the blurred input.
    extra : Tensor
        Lext, the change by the network of an image blurred once more, in units of the change by the blur; (1,), the
        mean over their batch, where it is that of other images.
    """

    positive: Tensor
    negative: Tensor
    extra: Tensor


def haar_bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """One-level Haar wavelet bands, as `pywt.dwt2(x, "haar")` gives them.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W), floating. Odd sides are continued by one row or column, as PyWavelets' symmetric mode does.

    Returns
    -------
    low : Tensor
        (N, C, ceil(H / 2), ceil(W / 2)), the band cA.
    high : Tensor
        (N, 3 C, ceil(H / 2), ceil(W / 2)): cH of all channels, then cV, then cD.

    Raises
    ------
    TrainingError
        If `x` is not four-dimensional and floating.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise TrainingError(f"Wavelet bands need a floating (N, C, H, W) tensor; got {x.dtype} {tuple(x.shape)}.")
    height, width = x.shape[2:]
    x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    wavelet = pywt.Wavelet("haar")
    # the transform convolves: taps are reversed; no convolution of torch's, which autocast would do in half precision
    low, high = ((taps[1], taps[0]) for taps in (wavelet.dec_lo, wavelet.dec_hi))
    even, odd = x[:, :, ::2], x[:, :, 1::2]
    smooth, detail = (first * even + second * odd for first, second in (low, high))  # along the columns
    average, horizontal, vertical, diagonal = (
        first * rows[..., ::2] + second * rows[..., 1::2] for first, second in (low, high) for rows in (smooth, detail)
    )
    return average, torch.cat([horizontal, vertical, diagonal], 1)


def to_channels(x: Tensor, channels: int) -> Tensor:
    """Images of another number of channels, for a network that has `channels`: colour to grey, grey to equal colours.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    channels : int

    Returns
    -------
    Tensor
        (N, channels, H, W).

    Raises
    ------
    TrainingError
        If there is no such conversion.
    """
    have = x.shape[1]
    if have == channels:
        return x
    if (have, channels) == (3, 1):
        return torch.tensordot(x, x.new_tensor(_LUMA), dims=([1], [0]))[:, None]
    if have == 1:
        return x.expand(-1, channels, -1, -1)
    raise TrainingError(f"Images of {have} channels cannot serve a network of {channels}.")


def efcr_terms(
    output: Tensor,
    target: Tensor,
    blurred: Tensor,
    reblurred: Tensor,
    reblurred_output: Tensor,
    *,
    extra: ExtraImages | None = None,
    high_only: bool = False,
    reduction: Reduction = "mean",
) -> Terms:
    """L+, L- and Lext of equations 4 to 6; parameters as those of `efcr`.

    `high_only` leaves the low band out of L+ (equation 8).
    """
    _check(output=output, target=target, blurred=blurred, reblurred=reblurred, reblurred_output=reblurred_output)
    positive = positive_term(output, target, high_only=high_only, reduction=reduction)
    negative = negative_term(output, blurred, reduction=reduction)
    if extra is None:
        return Terms(positive, negative, extra_term(blurred, reblurred, reblurred_output, reduction=reduction))
    names = ("blurred'", "reblurred'", "reblurred_output'")
    if len(extra) != len(names):
        raise TrainingError(f"extra needs three tensors, {', '.join(names)}; got {len(extra)}.")
    _check(**dict(zip(names, extra, strict=True)))
    return Terms(positive, negative, extra_term(*extra, reduction=reduction).mean(0, keepdim=True))


def positive_term(output: Tensor, target: Tensor, *, high_only: bool = False, reduction: Reduction = "mean") -> Tensor:
    """L+, (N,): equation 4; without the low band, equation 8."""
    norm = _norm(reduction)
    (low, high), (target_low, target_high) = haar_bands(_exact(output)), haar_bands(_exact(target))
    positive = norm(high - target_high)
    return positive if high_only else positive + norm(low - target_low)


def negative_term(output: Tensor, blurred: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """L-, (N,): equations 5 and 9."""
    return _norm(reduction)(haar_bands(_exact(output))[1] - haar_bands(_exact(blurred))[1])


def extra_term(
    blurred: Tensor, reblurred: Tensor, reblurred_output: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Lext, (N,): equations 6 and 10."""
    norm = _norm(reduction)
    highs = (haar_bands(_exact(images))[1] for images in (blurred, reblurred, reblurred_output))
    blurred_high, reblurred_high, output_high = highs
    floor = _FLOOR if reduction == "mean" else _FLOOR * blurred_high[0].numel()
    return norm(output_high - reblurred_high) / norm(blurred_high - reblurred_high).clamp_min(floor)


def combine(terms: Terms, *, extra_weight: float = 1.0) -> Tensor:
    """The mean over the batch of L+ / (L- + `extra_weight` Lext): the contrastive part of equation 7, a scalar."""
    if not 0 <= extra_weight < math.inf:
        raise TrainingError(f"extra_weight must be a number of at least 0; got {extra_weight}.")
    denominator = (terms.negative + extra_weight * terms.extra).clamp_min(_FLOOR)
    return (terms.positive / denominator).mean()


def efcr(
    output: Tensor,
    target: Tensor,
    blurred: Tensor,
    reblurred: Tensor,
    reblurred_output: Tensor,
    *,
    extra: ExtraImages | None = None,
    reduction: Reduction = "mean",
    extra_weight: float = 1.0,
) -> Tensor:
    """Extended frequency contrastive regularisation, {L+, L-, Lext}; with unlabelled images {L+, L-, Lext'}.

    Gradients flow through all terms. Denominators are clamped from below, so that flat patches are safe.

    Parameters
    ----------
    output, target, blurred : Tensor
        (N, C, H, W): the network's output, its truth, and the network's input, values about 0 to 1. Half precision
        is computed in float32.
    reblurred, reblurred_output : Tensor
        (N, C, H, W): the input blurred once more, and the network's output for it.
    extra : tuple of three Tensor, optional
        Of unlabelled images, with a batch size of their own: blurred, blurred once more, and the network's output for
        the latter. The mean of their Lext' replaces Lext (EFCRex, second application).
    reduction : {"mean", "sum"}
        Of the L1 norms, over pixels and bands. The paper does not state it: with means the balance of the terms does
        not depend on the size of patches, and Lext dominates the denominator; with sums L- does.
    extra_weight : float
        Of Lext in the denominator.

    Returns
    -------
    Tensor
        Scalar, the mean over the batch of L+ / (L- + Lext).

    Raises
    ------
    TrainingError
        If shapes differ within a set of images, a tensor is not floating, or a parameter is not accepted.

    References
    ----------
    Equations 4 to 7; SPEC section B.
    """
    terms = efcr_terms(output, target, blurred, reblurred, reblurred_output, extra=extra, reduction=reduction)
    return combine(terms, extra_weight=extra_weight)


def efcr_extra(
    output: Tensor,
    target: Tensor,
    blurred: Tensor,
    reblurred: Tensor,
    reblurred_output: Tensor,
    *,
    reduction: Reduction = "mean",
    extra_weight: float = 1.0,
) -> Tensor:
    """EFCRex on labelled extra data, {L+', L-', Lext'}: high bands only, since the low ones are of another domain.

    Parameters, result and errors are those of `efcr`; all tensors are of the extra data, brought to the network's
    channels by `to_channels`. Equations 8 to 10.
    """
    terms = efcr_terms(output, target, blurred, reblurred, reblurred_output, high_only=True, reduction=reduction)
    return combine(terms, extra_weight=extra_weight)


class EFCR(nn.Module):
    """`efcr` as a module that keeps the terms of its last call, for the log.

    Parameters
    ----------
    reduction, extra_weight
        As for `efcr`.
    high_only : bool
        As `efcr_extra` has it.

    Attributes
    ----------
    terms : dict of str to float
        Batch means of L+, L- and Lext of the last call.
    """

    def __init__(self, reduction: Reduction = "mean", extra_weight: float = 1.0, high_only: bool = False) -> None:
        super().__init__()
        self.reduction, self.extra_weight, self.high_only = reduction, extra_weight, high_only
        self.terms: dict[str, float] = {}

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        blurred: Tensor,
        reblurred: Tensor,
        reblurred_output: Tensor,
        extra: ExtraImages | None = None,
    ) -> Tensor:
        terms = efcr_terms(
            output,
            target,
            blurred,
            reblurred,
            reblurred_output,
            extra=extra,
            high_only=self.high_only,
            reduction=self.reduction,
        )
        self.terms = {name: float(values.detach().mean()) for name, values in terms._asdict().items()}
        return combine(terms, extra_weight=self.extra_weight)


def _norm(reduction: Reduction) -> Callable[[Tensor], Tensor]:
    if reduction not in ("mean", "sum"):
        raise TrainingError(f"The reduction must be mean or sum; got {reduction!r}.")
    return lambda x: getattr(x.abs().flatten(1), reduction)(1)


def _exact(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check(**images: Tensor) -> None:
    (first, reference), *others = images.items()
    for name, image in others:
        if image.shape != reference.shape:
            raise TrainingError(
                f"{first} and {name} must be of one shape; got {tuple(reference.shape)} and {tuple(image.shape)}."
            )
