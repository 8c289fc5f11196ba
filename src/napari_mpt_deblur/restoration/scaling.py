"""Restoring at the scale that the model was trained for, without losing detail that the image has.

Where nuclei are larger than any the model has seen, the network works on a reduced plane; what it changed there is
enlarged and added to the plane at full size, whose own detail stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from napari_mpt_deblur.tiling import Region

_MARGIN = 4  # reduced pixels; bicubic interpolation looks two pixels far


@dataclass(frozen=True)
class PlaneScaling:
    """Reduction of a plane by a whole factor, by the mean of each square of pixels, and enlargement of a change.

    Attributes
    ----------
    factor : int
        Side of the squares in pixels; 1 leaves everything as it is.
    """

    factor: int = 1

    @classmethod
    def of(cls, nucleus_diameter_px: float | None, trained_px: tuple[float, float] | None) -> PlaneScaling:
        """The smallest factor that brings nuclei of this diameter to at most the largest that the model knows.

        1 where either is not known, and where nuclei are small enough.
        """
        if nucleus_diameter_px is None or trained_px is None:
            return cls()
        return cls(max(1, math.ceil(nucleus_diameter_px / trained_px[1])))

    def size(self, pixels: int) -> int:
        """Length of a reduced axis; a last, incomplete square counts."""
        return -(-pixels // self.factor)

    def reduce(self, plane: np.ndarray) -> np.ndarray:
        """(C, Y, X) float32 to (C, Y / factor, X / factor); incomplete squares are filled up with the edge."""
        f = self.factor
        _, height, width = plane.shape
        missing = ((0, 0), (0, -height % f), (0, -width % f))
        plane = np.pad(plane, missing, mode="edge")
        channels, height, width = plane.shape
        return plane.reshape(channels, height // f, f, width // f, f).mean((2, 4), dtype=np.float32)

    def reduced_region(self, region: Region, height: int, width: int) -> Region:
        """The reduced pixels that enlarging to a region of a (height, width) plane needs."""
        y0, x0, y1, x1 = region
        return (
            max(0, y0 // self.factor - _MARGIN),
            max(0, x0 // self.factor - _MARGIN),
            min(self.size(height), self.size(y1) + _MARGIN),
            min(self.size(width), self.size(x1) + _MARGIN),
        )

    def enlarge(self, change: np.ndarray, source: Region, region: Region) -> np.ndarray:
        """A change of reduced pixels as a change of pixels, by bicubic interpolation.

        Parameters
        ----------
        change : ndarray
            (C, rows, columns) float32 of `source`.
        source : tuple of int
            The `reduced_region` of `region`.
        region : tuple of int
            Of the plane at full size.

        Returns
        -------
        ndarray
            (C, height, width of the region) float32.
        """
        y0, x0, y1, x1 = region
        top, left = y0 - source[0] * self.factor, x0 - source[1] * self.factor
        large = F.interpolate(torch.from_numpy(change)[None], scale_factor=self.factor, mode="bicubic")[0].numpy()
        return large[:, top : top + y1 - y0, left : left + x1 - x0]
