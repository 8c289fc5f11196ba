"""The scale of an image: the diameter of its nuclei."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

_SMALLEST_PX = 4.0


def estimate_nucleus_diameter(plane: np.ndarray) -> float | None:
    """Typical diameter of the bright objects of a plane.

    Otsu's threshold of the slightly smoothed plane, then the diameter of the circle of each object's area; the median
    weighted by area, so that debris does not count.

    Parameters
    ----------
    plane : ndarray
        (Y, X), any real dtype.

    Returns
    -------
    float or None
        In pixels; None where nothing stands out.
    """
    plane = np.asarray(plane, np.float32)
    finite = np.isfinite(plane)
    if not finite.any():
        return None
    plane = np.where(finite, plane, np.median(plane[finite]))
    smooth = ndimage.gaussian_filter(plane, 1)
    if smooth.max() <= smooth.min():
        return None
    labels, count = ndimage.label(ndimage.binary_opening(smooth > threshold_otsu(smooth)))
    if count == 0:
        return None
    areas = np.sort(np.bincount(labels.ravel())[1:])
    half = np.searchsorted(np.cumsum(areas), areas.sum() / 2)
    diameter = 2 * math.sqrt(areas[half] / math.pi)
    return diameter if diameter >= _SMALLEST_PX else None
