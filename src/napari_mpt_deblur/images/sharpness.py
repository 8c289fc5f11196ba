"""How sharp a plane is, to find the one in focus."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_SIGMA_PX = 1.5  # smooths the camera's noise, which focus does not change


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
