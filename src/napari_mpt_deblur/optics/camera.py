"""Camera noise: photon (Poisson) and read-out (Gaussian)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.errors import ParameterError


@dataclass(frozen=True)
class Camera:
    """A camera that counts photo-electrons.

    Parameters
    ----------
    gain : float
        Grey levels per photo-electron.
    read_noise : float
        Standard deviation of the read-out noise, in photo-electrons.
    offset : float
        Grey level of a dark pixel.
    """

    gain: float = 1.0
    read_noise: float = 2.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not self.gain > 0 or not self.read_noise >= 0:
            raise ParameterError("A camera needs a gain above 0 and a read noise of at least 0.")

    def record(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A noisy recording of a noise-free image.

        Parameters
        ----------
        image : ndarray
            Expected grey levels, any shape, offset included.
        rng : numpy.random.Generator

        Returns
        -------
        ndarray
            float32 grey levels, neither rounded nor clipped.
        """
        electrons = np.maximum(np.asarray(image, np.float64) - self.offset, 0) / self.gain
        recorded = rng.poisson(electrons) + self.read_noise * rng.standard_normal(electrons.shape)
        return (recorded * self.gain + self.offset).astype(np.float32)
