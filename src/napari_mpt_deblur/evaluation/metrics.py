"""Image quality: PSNR and SSIM with the peak stated, and the affine fit that compares planes of a real stack."""

from __future__ import annotations

import math

import numpy as np
from skimage.metrics import structural_similarity

from napari_mpt_deblur.errors import ImageError


def peak_of(truth: np.ndarray) -> float:
    """The peak of PSNR and SSIM: the 99.8th minus the 1st percentile of the sharp image, in its grey levels."""
    low, high = np.percentile(np.asarray(truth, np.float64), (1, 99.8))
    return float(high - low)


def psnr(image: np.ndarray, truth: np.ndarray, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB.

    Parameters
    ----------
    image, truth : ndarray
        Same shape, any real dtype.
    peak : float, optional
        `peak_of` the truth by default.

    Returns
    -------
    float
        Infinite for equal images.

    Raises
    ------
    ImageError
        If the shapes differ or the peak is 0.
    """
    image, truth, peak = _comparable(image, truth, peak)
    error = float(np.mean((image - truth) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(image: np.ndarray, truth: np.ndarray, peak: float | None = None) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5) of two (Y, X) images; see `psnr`."""
    image, truth, peak = _comparable(image, truth, peak)
    return float(
        structural_similarity(image, truth, data_range=peak, gaussian_weights=True, use_sample_covariance=False)
    )


def affine_fit(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`image` scaled and shifted in intensity to be nearest to `truth` in the least-squares sense; float64."""
    image, truth = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    if image.shape != truth.shape:
        raise ImageError(f"Images to compare must have one shape; got {image.shape} and {truth.shape}.")
    centred = image - image.mean()
    variance = float(np.mean(centred**2))
    slope = float(np.mean(centred * truth)) / variance if variance > 0 else 0.0
    return slope * centred + truth.mean()


def _comparable(image: np.ndarray, truth: np.ndarray, peak: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    image, truth = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    if image.shape != truth.shape:
        raise ImageError(f"Images to compare must have one shape; got {image.shape} and {truth.shape}.")
    peak = peak_of(truth) if peak is None else float(peak)
    if not peak > 0:
        raise ImageError("The sharp image is constant: PSNR and SSIM have no peak to refer to; give one.")
    return image, truth, peak
