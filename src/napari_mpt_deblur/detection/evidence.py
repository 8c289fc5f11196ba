"""What the raw image says about each object: its intensity, and how clearly it stands out from its surroundings.

Deblurred intensities are for finding nuclei, not for measuring them; all here is measured on the raw image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.detection.fates import Objects
from napari_mpt_deblur.images import ImageView

RING_PX = (2.0, 8.0)  # the surroundings begin beyond the blurred rim, and end before most neighbours
UNSUPPORTED_BELOW = 3.0  # standard errors, the usual limit of detection
_SECTORS = 8
_LEAST_PX = 3  # of a sector that counts
_MAD_TO_SIGMA = 1.4826  # of normally distributed values
_HIGH_PASS_GAIN = 6.0  # root of the sum of the squares of (1, -2, 1) by (1, -2, 1)


@dataclass(frozen=True, eq=False)
class RawMeasures:
    """Measurements of objects on the raw image, (objects,) float64 each; NaN where there is nothing to measure.

    Attributes
    ----------
    mean, total : ndarray
        Mean and sum of the raw grey levels in the object, background not subtracted; pixels that are not finite are
        left out.
    contrast : ndarray
        (mean in the object - mean in its surroundings) / noise of a pixel.
    evidence : ndarray
        The same difference of means in units of its own standard error: how sure it is that anything is there at all.
        Where nothing is, it scatters around 0 with a standard deviation of about 1, so values near 0 are no evidence.
    """

    mean: np.ndarray
    total: np.ndarray
    contrast: np.ndarray
    evidence: np.ndarray


def grey_levels(view: ImageView, label_axes: str) -> np.ndarray:
    """An image's pixels on the grid of its labels: the mean of colours, and of channels that a model takes together.

    Parameters
    ----------
    view : ImageView
    label_axes : str
        Of the labels.

    Returns
    -------
    ndarray
        All planes, in memory.
    """
    leading = view.axes.leading
    planes = [np.asarray(view.data[index]) for index in np.ndindex(*view.shape[: len(leading)])]
    pixels = np.stack(planes).reshape(view.shape)
    if view.sample_count:
        pixels = pixels[..., : view.sample_count].mean(axis=-1)
    if "C" in leading and "C" not in label_axes:
        pixels = pixels.mean(axis=leading.index("C"))
    return pixels


def measure_on_raw(objects: Objects, raw: np.ndarray) -> RawMeasures:
    """Measure objects on the raw image.

    The surroundings are the background more than 2 and up to 8 pixels away from the object. Where those of neighbours
    would overlap, each pixel belongs to the nearest; other objects belong to none.

    The standard error of the object's mean is the noise of a pixel (`pixel_noise`, one for the plane) over the root of
    the number of its pixels. That of the surroundings' mean is the same or, if that is more, the standard deviation of
    the means of eight sectors around the object over the root of their number: an uneven background and the halos of
    blurred neighbours are no noise of pixels, but make differences of means all the same. (On the sample's defocused
    planes, a sixth of the discs drawn into the background would exceed 3 standard errors of the pixels' noise alone.)

    Parameters
    ----------
    objects : Objects
    raw : ndarray
        (planes, Y, X), integers or floats, in grey levels as recorded.

    Returns
    -------
    RawMeasures
    """
    measures = RawMeasures(*(np.full(objects.count, np.nan) for _ in range(4)))
    for number, plane in enumerate(raw):
        part = objects.of_plane(number)
        if part.start == part.stop:
            continue
        local = np.maximum(objects.ids[number] - part.start, 0)
        count = part.stop - part.start
        pixels, valid = plane.astype(np.float64), np.isfinite(plane)
        inside, inside_sum = _sums(local, pixels, valid, count)
        surroundings = _surroundings(local)
        around, around_sum = _sums(surroundings, pixels, valid, count)
        noise = pixel_noise(plane)
        with np.errstate(invalid="ignore", divide="ignore"):  # no pixel: NaN
            mean = inside_sum / inside
            difference = mean - around_sum / around
            uneven = _variance_around(local, surroundings, pixels, valid, count)
            variance = noise**2 / inside + np.fmax(noise**2 / around, uneven)
            measures.evidence[part] = difference / np.sqrt(variance)
            measures.contrast[part] = difference / noise
        measures.mean[part] = mean
        measures.total[part] = np.where(inside > 0, inside_sum, np.nan)
    return measures


def pixel_noise(plane: np.ndarray) -> float:
    """Standard deviation of the noise of single pixels, in grey levels.

    From the median absolute value of the plane after a high-pass filter, (1, -2, 1) along both axes, that smooth
    intensities do not pass (Immerkær 1996); edges are too few to move the median. Responses of exactly 0, as clipped
    background gives, are left out. Never below what rounding to the pixel type alone makes.

    Parameters
    ----------
    plane : ndarray
        (Y, X), integers or floats.

    Returns
    -------
    float
        Above 0; NaN for planes of fewer than 3 x 3 finite pixels.
    """
    pixels = plane.astype(np.float64)
    pixels[~np.isfinite(pixels)] = np.nan
    largest = float(np.nanmax(np.abs(pixels), initial=0))
    for _ in range(2):  # along Y, then X
        pixels = (pixels[:-2] - 2 * pixels[1:-1] + pixels[2:]).T if len(pixels) > 2 else np.empty((0, 0))
    response = np.abs(pixels[np.isfinite(pixels)])
    if not response.size:
        return math.nan
    response = response[response > 0]
    sigma = _MAD_TO_SIGMA * float(np.median(response)) / _HIGH_PASS_GAIN if response.size else 0.0
    step = float(np.spacing(np.float32(largest))) if plane.dtype.kind == "f" else 1.0
    return max(sigma, step / math.sqrt(12))


def _surroundings(ids: np.ndarray) -> np.ndarray:
    """(Y, X): the object to whose surroundings each pixel belongs, 0 for none."""
    from scipy.ndimage import distance_transform_edt

    distance, (y, x) = distance_transform_edt(ids == 0, return_indices=True)
    return np.where((distance > RING_PX[0]) & (distance <= RING_PX[1]), ids[y, x], 0)


def _variance_around(
    ids: np.ndarray, surroundings: np.ndarray, pixels: np.ndarray, valid: np.ndarray, count: int
) -> np.ndarray:
    """(count,) Square of the standard error of the surroundings' mean, from the means of their sectors; NaN of one."""
    grid = np.indices(ids.shape)
    y, x = grid[0], grid[1]
    everywhere = np.ones(ids.shape, bool)
    area, sum_y = _sums(ids, y, everywhere, count)
    centre_y, centre_x = sum_y / area, _sums(ids, x, everywhere, count)[1] / area
    used = valid & (surroundings > 0)
    which = surroundings[used] - 1
    turn = np.arctan2(y[used] - centre_y[which], x[used] - centre_x[which]) / (2 * np.pi)  # -1/2 to 1/2
    sector = np.floor(turn * _SECTORS).astype(np.int64) % _SECTORS
    number, total = _sums(which * _SECTORS + sector + 1, pixels[used], np.ones(which.shape, bool), count * _SECTORS)
    number, total = number.reshape(count, _SECTORS), total.reshape(count, _SECTORS)
    counts = number >= _LEAST_PX
    sectors = counts.sum(axis=1)
    means = np.where(counts, total / number, 0.0)
    deviations = np.where(counts, means - (means.sum(axis=1) / sectors)[:, None], 0.0)
    return (deviations**2).sum(axis=1) / (sectors - 1) / sectors


def _sums(ids: np.ndarray, pixels: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Number and sum of the valid pixels of objects 1 to `count`."""
    counted = ids[valid]
    number = np.bincount(counted, minlength=count + 1)[1:]
    return number.astype(np.float64), np.bincount(counted, weights=pixels[valid], minlength=count + 1)[1:]
