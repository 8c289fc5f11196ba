"""What a detection run tells on its way, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.detection.config import Thresholds
from napari_mpt_deblur.detection.instances import Instances


@dataclass(frozen=True)
class DetectionProgress:
    """How far a run is: which tile of a plane is done, which plane of the image it belongs to, and how many there are.

    All count from 1.
    """

    tile: int
    tiles: int
    plane: int
    planes: int

    @property
    def done(self) -> int:
        """Tiles of the whole run that are done."""
        return (self.plane - 1) * self.tiles + self.tile

    @property
    def total(self) -> int:
        """Tiles of the whole run."""
        return self.planes * self.tiles


@dataclass(frozen=True, eq=False)
class Detected:
    """The nuclei of an image.

    Attributes
    ----------
    labels : ndarray
        int32, of the image's shape without colours (and without C where the model takes the channels together).
        Numbers begin anew in every plane, or in every volume where the model is one for volumes.
    axes : str
        Of the labels.
    planes : dict of tuple of int to Instances
        The nuclei of each plane, by its position along the leading axes of the labels.
    scale : float
        Pixels that the model saw for one of the image.
    thresholds : Thresholds
        Those used.
    count : int
        Nuclei of all planes; of a model for volumes one that several planes show is one.
    """

    labels: np.ndarray
    axes: str
    planes: dict[tuple[int, ...], Instances]
    scale: float
    thresholds: Thresholds
    count: int

    @property
    def probabilities(self) -> dict[tuple[int, int], float]:
        """The probability of every nucleus, by number of its plane (from 0) and label, as the ledger takes them."""
        return {
            (number, label): float(probability)
            for number, instances in enumerate(self.planes.values())
            for label, probability in enumerate(instances.prob, start=1)
        }
