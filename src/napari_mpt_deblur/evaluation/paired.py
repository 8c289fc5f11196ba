"""Whether one way of training is better than another: differences paired by image and by seed, with standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import ParameterError

_ENOUGH = 2.0  # standard errors


@dataclass(frozen=True)
class PairedDifference:
    """The mean of the differences of two ways, measured on the same images with the same seeds.

    Attributes
    ----------
    mean : float
    se_seeds : float
        Standard error over the seeds, of their means over the images: another training. NaN for one seed.
    se_images : float
        Standard error over the images, of their means over the seeds: another sample of images. NaN for one image.
    se_all : float
        Standard error as if all differences, image by seed, were independent; they are not, so it is for comparison.
    seeds, images : int
    """

    mean: float
    se_seeds: float
    se_images: float
    se_all: float
    seeds: int
    images: int

    @classmethod
    def of(cls, treated: Any, baseline: Any) -> PairedDifference:
        """The difference of two tables.

        Parameters
        ----------
        treated, baseline : array_like
            (seeds, images) of any figure; the baseline's rows may be one, for what no training changes.

        Raises
        ------
        ParameterError
            If the tables do not belong together, or hold what is no number.
        """
        treated, baseline = np.asarray(treated, np.float64), np.asarray(baseline, np.float64)
        fits = treated.ndim == baseline.ndim == 2 and treated.shape[1] == baseline.shape[1]
        if not fits or not treated.size or len(baseline) not in (1, len(treated)):
            raise ParameterError(
                f"Paired figures are tables of seeds by images; got {treated.shape} and {baseline.shape}."
            )
        differences = treated - baseline
        if not np.isfinite(differences).all():
            raise ParameterError("A difference is no number: one of the figures is missing or infinite.")
        return cls(
            float(differences.mean()),
            _standard_error(differences.mean(1)),
            _standard_error(differences.mean(0)),
            _standard_error(differences.ravel()),
            *differences.shape,
        )

    @property
    def se(self) -> float:
        """Both ways at once, sqrt(se_seeds^2 + se_images^2), never less than either; NaN where one is not known."""
        return math.hypot(self.se_seeds, self.se_images)

    @property
    def works(self) -> bool | None:
        """Whether the mean is over two standard errors (`se`) above 0; None where that is not known."""
        return None if math.isnan(self.se) else self.mean > _ENOUGH * self.se

    @property
    def harms(self) -> bool | None:
        """Whether it is over two standard errors below 0; None where that is not known."""
        return None if math.isnan(self.se) else self.mean < -_ENOUGH * self.se


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else math.nan
