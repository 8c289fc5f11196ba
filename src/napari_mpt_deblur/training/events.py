"""What a training run tells whoever drives it, step by step. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Losses:
    """The terms of one step's loss, each the mean over its batch.

    Attributes
    ----------
    total : float
        pixel + beta * contrast; what is minimised.
    pixel : float
    contrast : float or None
        L+ / (L- + extra_weight * Lext), without beta. None, like the terms below, where the method has no such term.
    positive, negative, extra : float or None
        L+, L- and Lext; those of the extra data where the method takes them from there.
    """

    total: float
    pixel: float
    contrast: float | None = None
    positive: float | None = None
    negative: float | None = None
    extra: float | None = None

    def to_dict(self) -> dict[str, float]:
        """By name, without those that the method does not have."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Scores:
    """Means over the held-out patches, in units of the normalised intensities (peak 1).

    Attributes
    ----------
    iteration : int
        After which they were measured; 0 before training.
    psnr, ssim : float
        Of the restored patches; PSNR in dB.
    psnr_blurred, ssim_blurred : float
        Of the network's input.
    """

    iteration: int
    psnr: float
    psnr_blurred: float
    ssim: float
    ssim_blurred: float


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    seconds_per_step : float
    seconds : float
        In all, validations among it.
    memory_bytes : int
        Peak memory of a step, weights, optimiser and average included, beyond the images.
    """

    seconds_per_step: float
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Stage:
    """What is being done, in words, where it takes a while and is no step."""

    text: str


@dataclass(frozen=True)
class Started:
    """All is read and checked; the steps follow.

    Attributes
    ----------
    iteration, iterations : int
        Where the run begins or goes on, and where it ends.
    before : Scores
        Of the weights before the first step (of a run that is resumed: before its very first).
    estimate : Estimate
        Of what is left.
    notes : tuple of str
        What the user should know about the data, a sentence each: nothing sharp was found, images were registered.
    device, precision : str
        Resolved, not "auto".
    """

    iteration: int
    iterations: int
    before: Scores
    estimate: Estimate
    notes: tuple[str, ...]
    device: str
    precision: str


@dataclass(frozen=True)
class Step:
    """One iteration.

    Attributes
    ----------
    iteration : int
        Counted from 1.
    losses : Losses
    learning_rate : float
    validation : Scores or None
        Where this iteration was followed by one.
    seconds : float
        That the run has worked so far, pauses and earlier parts of a resumed run left out.
    """

    iteration: int
    losses: Losses
    learning_rate: float
    validation: Scores | None = None
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The total."""
        return self.losses.total


@dataclass(frozen=True, eq=False)
class Preview:
    """A plane, or a part of it, as the weights of this iteration restore it.

    Attributes
    ----------
    iteration : int
    array : ndarray
        (1, Y, X) or (1, Y, X, S) float32 in the image's grey levels, cut to the region that was asked for.
    """

    iteration: int
    array: np.ndarray


@dataclass(frozen=True)
class Finished:
    """How a run ended. What was learnt is in its folder in each case.

    Attributes
    ----------
    iteration : int
    reason : {"done", "time", "stopped", "diverged"}
        All iterations are done; the time is up; it was told to stop; the loss was no number any more, and this is what
        was learnt before (`DivergedError.kept`).
    weights : Path
        The weights to use: the best that were validated; the last ones where none were.
    last : Path
        The last weights.
    before, after : Scores
        Before the first step, and of `weights`.
    notes : tuple of str
        As `Started` has them.
    """

    iteration: int
    reason: Literal["done", "time", "stopped", "diverged"]
    weights: Path
    last: Path
    before: Scores
    after: Scores
    notes: tuple[str, ...] = ()

    @property
    def got_worse(self) -> bool:
        """Whether even the best weights restore the held-out patches worse than the run began."""
        return self.after.psnr < self.before.psnr


Event = Stage | Started | Step | Preview

TERMS: Mapping[str, str] = {
    "total": "total",
    "pixel": "pixel loss",
    "contrast": "contrast",
    "positive": "L+",
    "negative": "L-",
    "extra": "Lext",
}
"""Names of the terms of `Losses`, for people."""
