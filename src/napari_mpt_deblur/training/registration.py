"""How a sharp plane lies on the blurred plane of the same field, and what its grey levels are there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from napari_mpt_deblur.errors import TrainingError

_LARGEST_SHIFT = 0.1  # of the shorter side
_LEAST_CORRELATION = 0.5  # of the same field blurred by a disc of 25 pixels over nuclei of 20: 0.6; of another: 0.3
_BETTER = 0.005  # in correlation; a shift that gains less is noise
_MOST_PX = 1024  # side of what is looked at, in the middle of a plane
_SMOOTHING_PX = 2.0  # noise correlates with nothing
_UPSAMPLING = 20  # shifts to a twentieth of a pixel
_MOST_ROUNDS = 4
_LARGE_SCALE = 1 / 8  # of the side: structure that no defocus changes
_SENSIBLE_FIT = 0.95  # correlation of that structure from which grey levels are compared
_SAME_UNITS = 0.1  # two images whose levels differ by less were recorded alike


class Alignment(NamedTuple):
    """What brings a sharp plane onto a blurred one.

    Attributes
    ----------
    dy, dx : float
        The blurred plane's (y, x) shows what the sharp plane shows at (y + dy, x + dx).
    correlation : float
        Of the two, once aligned.
    """

    dy: float
    dx: float
    correlation: float


class Levels(NamedTuple):
    """A linear map of grey levels."""

    gain: float = 1.0
    offset: float = 0.0


def align(blurred: np.ndarray, sharp: np.ndarray, names: tuple[str, str]) -> Alignment:
    """Register a sharp plane to a blurred one by their cross-correlation.

    Parameters
    ----------
    blurred, sharp : ndarray
        (Y, X), of one shape.
    names : tuple of str
        Of the two, for the message.

    Raises
    ------
    TrainingError
        If they do not show the same field, or lie too far apart.
    """
    blurred, sharp = (ndimage.gaussian_filter(_middle(plane), _SMOOTHING_PX) for plane in (blurred, sharp))
    still = moved = _correlation(blurred, sharp)
    dy = dx = 0.0
    if min(float(np.ptp(blurred)), float(np.ptp(sharp))) > 0:  # else there is nothing to register
        dy, dx = _shift(blurred, sharp)
        moved = _correlation_moved(blurred, sharp, dy, dx)
        if not moved > still + _BETTER:
            dy, dx, moved = 0.0, 0.0, still
    if moved < _LEAST_CORRELATION:
        raise TrainingError(
            f"{names[0]} and {names[1]} do not show the same field (correlation {max(moved, still):.2f}): "
            "pair other images, or leave them out."
        )
    if max(abs(dy), abs(dx)) > _LARGEST_SHIFT * min(blurred.shape):
        raise TrainingError(
            f"{names[0]} and {names[1]} lie {round(dy)}, {round(dx)} pixels apart: "
            "register them first, or leave them out."
        )
    return Alignment(dy, dx, moved)


def fit_levels(blurred: np.ndarray, sharp: np.ndarray) -> Levels | None:
    """The map that brings the sharp plane's levels to the blurred plane's, from structure too large to be blurred.

    Parameters
    ----------
    blurred, sharp : ndarray
        (Y, X), aligned to a few pixels.

    Returns
    -------
    Levels or None
        Gain 1 and offset 0 where both were recorded alike; None where the two cannot be compared.
    """
    sigma = _LARGE_SCALE * min(blurred.shape)
    blurred, sharp = (ndimage.gaussian_filter(np.asarray(plane, np.float64), sigma) for plane in (blurred, sharp))
    spread = float(sharp.std())
    if spread == 0 or _correlation(blurred, sharp) < _SENSIBLE_FIT:
        return None
    gain = float(blurred.std()) / spread
    offset = float(blurred.mean()) - gain * float(sharp.mean())
    reach = float(np.abs(sharp).max()) or 1.0
    if abs(gain - 1) < _SAME_UNITS and abs(offset) < _SAME_UNITS * reach:
        return Levels()
    return Levels(gain, offset)


def _shift(blurred: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """Where their cross-correlation is highest; measured anew on what both show, until that does not change."""
    whole = (0, 0)
    for _ in range(_MOST_ROUNDS):
        first, second = _overlap(blurred, sharp, *whole)
        window = np.outer(*(np.hanning(size + 2)[1:-1] for size in first.shape))
        first, second = ((plane - plane.mean()) * window for plane in (first, second))
        # without the phase's whitening, which would weigh what defocus has wiped out like what it left
        rest, _, _ = phase_cross_correlation(first, second, upsample_factor=_UPSAMPLING, normalization=None)
        dy, dx = (before - float(each) for before, each in zip(whole, rest, strict=True))
        before, whole = whole, (round(dy), round(dx))
        if whole == before or max(map(abs, whole)) > min(blurred.shape) // 2:
            break
    return dy, dx


def _overlap(blurred: np.ndarray, sharp: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """What both show where the sharp plane lies (dy, dx) further on."""
    mine = tuple(slice(max(0, -d), size - max(0, d)) for d, size in zip((dy, dx), blurred.shape, strict=True))
    theirs = tuple(slice(max(0, d), size - max(0, -d)) for d, size in zip((dy, dx), blurred.shape, strict=True))
    return blurred[mine], sharp[theirs]


def _middle(plane: np.ndarray) -> np.ndarray:
    cut = tuple(
        slice(max(0, (size - _MOST_PX) // 2), max(0, (size - _MOST_PX) // 2) + _MOST_PX) for size in plane.shape
    )
    return np.asarray(plane[cut], np.float64)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(np.mean(a**2)) * float(np.mean(b**2)))
    return float(np.mean(a * b)) / scale if scale > 0 else 0.0


def _correlation_moved(blurred: np.ndarray, sharp: np.ndarray, dy: float, dx: float) -> float:
    """Of what both show, once the sharp plane is moved."""
    margin = math.ceil(max(abs(dy), abs(dx))) + 1
    if 2 * margin >= min(sharp.shape):
        return 0.0
    moved = ndimage.shift(sharp, (-dy, -dx), order=1, mode="nearest")
    inside = np.s_[margin:-margin, margin:-margin]
    return _correlation(blurred[inside], moved[inside])
