"""Classical deconvolution told the true point-spread function: the yardstick that a blind model is held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from skimage.restoration import richardson_lucy, wiener

from napari_mpt_deblur.evaluation.metrics import psnr

RICHARDSON_LUCY_ITERATIONS = (10, 20, 50)
WIENER_BALANCES = (0.01, 0.1)


def best_deconvolution(
    blurred: np.ndarray, psf: np.ndarray, truth: np.ndarray, *, padded: bool = True
) -> tuple[str, np.ndarray]:
    """The best of Richardson-Lucy (10, 20, 50 iterations) and Wiener (balance 0.01, 0.1) by PSNR.

    The choice is made with the truth in hand, which flatters deconvolution.

    Parameters
    ----------
    blurred, truth : ndarray
        (Y, X) grey levels.
    psf : ndarray
        (side, side), the true one.
    padded : bool
        Continue the image by reflection first, so that deconvolution does not suffer at its edges; without, it is what
        scikit-image alone makes of it.

    Returns
    -------
    name : str
    image : ndarray
        (Y, X) float64 grey levels.
    """
    runs: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for count in RICHARDSON_LUCY_ITERATIONS:
        runs[f"Richardson-Lucy {count}"] = partial(richardson_lucy, psf=psf, num_iter=count, clip=False)
    for balance in WIENER_BALANCES:
        runs[f"Wiener {balance}"] = partial(wiener, psf=psf, balance=balance, clip=False)
    images = {name: _deconvolve(blurred, psf.shape[0] // 2 if padded else 0, run) for name, run in runs.items()}
    best = max(images, key=lambda name: psnr(images[name], truth))
    return best, images[best]


def _deconvolve(blurred: np.ndarray, pad: int, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Both want positive numbers about 0..1."""
    low, high = float(np.min(blurred)), float(np.max(blurred))
    scaled = np.pad((blurred.astype(np.float64) - low) / (high - low) + 1e-3, pad, mode="symmetric")
    restored = run(scaled)[pad:-pad, pad:-pad] if pad else run(scaled)
    return (restored - 1e-3) * (high - low) + low
