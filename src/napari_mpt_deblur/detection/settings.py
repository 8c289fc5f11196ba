"""`DetectionSettings`: what the user can choose about detection. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_mpt_deblur.detection.config import Thresholds, is_fraction
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.statistics import check_percentiles

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.folder import AnyDetector

_SCALES = (1 / 16, 16.0)  # beyond it a diameter is a slip of the pen
_AS_IT_IS = (0.5, 2.0)  # detectors are trained on a range of sizes: within it, interpolation costs more than it gains


@dataclass(frozen=True)
class DetectionSettings:
    """How to detect.

    Parameters
    ----------
    prob, nms : float, optional
        From which probability on a pixel proposes a nucleus, and how much nuclei may overlap, above 0 and below 1;
        None takes the model's own.
    percentiles : tuple of float
        Of each plane, its colours together: the grey levels that become 0 and 1.
    nucleus_diameter_px : float, optional
        Diameter of typical nuclei in the image. The plane is brought to the scale of those that the model knows.
    pixel_size_um : float, optional
        Width of a pixel of the image, to the same end; the diameter comes first. With neither, an image that states
        the size of its pixels is brought to the model's scale where the two are far apart; see `scale`.
    tile_px : int, optional
        Side of the tiles; as memory allows by default. Results do not depend on it.

    Raises
    ------
    ParameterError
        If a value is not accepted.
    """

    prob: float | None = None
    nms: float | None = None
    percentiles: tuple[float, float] = (1.0, 99.8)
    nucleus_diameter_px: float | None = None
    pixel_size_um: float | None = None
    tile_px: int | None = None

    def __post_init__(self) -> None:
        for name in ("prob", "nms"):
            value = getattr(self, name)
            if value is not None and not is_fraction(value):
                raise ParameterError(f"The threshold {name} must be above 0 and below 1; got {value!r}.")
        for name in ("nucleus_diameter_px", "pixel_size_um"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"{name} must be a number above 0; got {value!r}.")
        object.__setattr__(self, "percentiles", check_percentiles(self.percentiles))
        if self.tile_px is not None and self.tile_px < 1:
            raise ParameterError(f"tile_px must be at least 1; got {self.tile_px!r}.")

    def thresholds(self, own: Thresholds) -> Thresholds:
        """Those to use with a model."""
        return Thresholds(self.prob or own.prob, self.nms or own.nms)

    def scale(self, detector: AnyDetector, calibrated_um: float | None = None) -> float:
        """Pixels that the model is to see for one of the image.

        Parameters
        ----------
        detector : Detector or TensorFlowDetector
        calibrated_um : float, optional
            Width of a pixel as the image itself states it: where nobody said otherwise, it counts if the model's
            pixels are less than half as wide, or more than twice.

        Raises
        ------
        ParameterError
            If the model does not say which diameter or pixel size it knows, or the scales are far apart.
        """
        for name, mine_first in (("nucleus_diameter_px", False), ("pixel_size_um", True)):
            mine, known = getattr(self, name), getattr(detector, name)
            if mine is None:
                continue
            if known is None:
                what = name.rpartition("_")[0].replace("_", " ")
                raise ParameterError(
                    f"The model {detector.name} does not say for which {what} it was trained: leave the {what} out, "
                    "or resize the image yourself."
                )
            scale = mine / known if mine_first else known / mine
            if not _SCALES[0] <= scale <= _SCALES[1]:
                raise ParameterError(f"The image would be scaled by {scale:.3g} for the model: check its {name}.")
            return float(scale)
        known = detector.pixel_size_um
        if calibrated_um and known:
            scale, (least, most), (low, high) = calibrated_um / known, _SCALES, _AS_IT_IS
            if least <= scale < low or high < scale <= most:
                return float(scale)
        return 1.0
