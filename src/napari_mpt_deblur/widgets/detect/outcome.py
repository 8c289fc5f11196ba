"""What a run of "Detect nuclei" tells on its way and brings back; nothing of napari or Qt is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_mpt_deblur.detection import DetectorInfo
    from napari_mpt_deblur.detection.comparison import Comparison


@dataclass(frozen=True)
class DetectStep:
    """How far a run is.

    Attributes
    ----------
    done : float
        Planes of all images; a tile is a part of one.
    total : int
    text : str
        Where it is, for people.
    """

    done: float
    total: int
    text: str = ""


@dataclass(frozen=True)
class DetectMachinery:
    """What this computer and this installation offer.

    Attributes
    ----------
    devices : tuple of str
    default_device : str
        What "auto" stands for.
    models : tuple of DetectorInfo
        Broken ones are among them and say why.
    """

    devices: tuple[str, ...]
    default_device: str
    models: tuple[DetectorInfo, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """The nuclei of one image.

    Attributes
    ----------
    labels : ndarray
        int32; every nucleus of the image has a number of its own.
    axes : str
        Of the labels: those of the image without colours, and without C where the model takes the channels together.
    features : dict of str to ndarray
        For the features table of a labels layer.
    """

    labels: np.ndarray
    axes: str
    features: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        return len(self.features["index"])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found.

    Attributes
    ----------
    before : Found
    after : Found or None
    comparison : Comparison or None
        None without an image after.
    record : dict
        What reproduces it, for JSON.
    """

    before: Found
    after: Found | None
    comparison: Comparison | None
    record: dict[str, Any]
