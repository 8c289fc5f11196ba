"""How sharp a plane is, to find the one in focus, and whether it is sharp at all."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from skimage.restoration import estimate_sigma

_SIGMA_PX = 1.5  # smooths the camera's noise, which focus does not change
_WIDER_PX = 2 * _SIGMA_PX


def sharpness(plane: np.ndarray) -> float:
    """The mean squared gradient of the slightly smoothed plane (Tenengrad); planes of one stack can be compared.

    Parameters
    ----------
    plane : ndarray
        (Y, X), any real dtype; pixels that are not finite count as the others' median.

    Returns
    -------
    float
        0 or more, in squared grey levels for a pixel.
    """
    plane = np.asarray(plane, np.float32)
    finite = np.isfinite(plane)
    if not finite.any():
        return 0.0
    plane = np.where(finite, plane, np.median(plane[finite]))
    gradient = ndimage.gaussian_gradient_magnitude(plane.astype(np.float64), _SIGMA_PX)
    return float(np.mean(gradient**2))


def edge_width(plane: np.ndarray) -> float | None:
    """By how wide a Gaussian the edges of a plane look blurred.

    The mean squared gradient of a step that a Gaussian of width w blurred, smoothed by one of width s more, goes with
    1 / sqrt(w^2 + s^2): two such smoothings tell w. What white noise adds to them is taken off.

    Parameters
    ----------
    plane : ndarray
        (Y, X), any real dtype, finite.

    Returns
    -------
    float or None
        Standard deviation in pixels; infinite where there are slopes only. None where nothing stands out of the noise.
    """
    plane = np.asarray(plane, np.float64)
    noise = float(np.nan_to_num(estimate_sigma(plane)))
    energies = []
    for sigma in (_SIGMA_PX, _WIDER_PX):
        of_noise = noise**2 / (4 * math.pi * sigma**4)
        energies.append(float(np.mean(ndimage.gaussian_gradient_magnitude(plane, sigma) ** 2)) - of_noise)
    near, far = energies
    if near <= max(noise**2 / (4 * math.pi * _SIGMA_PX**4), 1e-12 * float(np.mean(plane**2))):
        return None
    ratio = min(far / near, 1.0) ** 2 if far > 0 else 0.0
    if ratio >= 1:
        return math.inf
    return math.sqrt(max(0.0, (_WIDER_PX**2 * ratio - _SIGMA_PX**2) / (1 - ratio)))
