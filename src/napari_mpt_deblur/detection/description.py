"""What travels with a detector's weights in the header of our own file. No torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_mpt_deblur.checkpoints.safetensors_layout import DETECTOR_KEY, read_layout
from napari_mpt_deblur.detection.config import StarDistConfig, Thresholds
from napari_mpt_deblur.errors import ModelError

FORMAT = 1


@dataclass(frozen=True)
class DetectorDescription:
    """A detection model but for its weights.

    Parameters
    ----------
    config : StarDistConfig
    thresholds : Thresholds
    nucleus_diameter_px : float, optional
        Typical diameter of the nuclei that it was trained on; None where that is not known.
    pixel_size_um : float, optional
        Width of a pixel of the images that it was trained on; None where that is not known.
    description, licence : str
        For people.
    training : dict
        How the weights came about. Plain JSON data.

    Raises
    ------
    ModelError
        If a value is not accepted.
    """

    config: StarDistConfig
    thresholds: Thresholds = field(default_factory=Thresholds)
    nucleus_diameter_px: float | None = None
    pixel_size_um: float | None = None
    description: str = ""
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("nucleus_diameter_px", "pixel_size_um"):
            value = getattr(self, name)
            if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
                raise ModelError(f"the detector's {name} must be a number above 0; got {str(value)[:40]!r}")
        if not isinstance(self.description, str) or not isinstance(self.licence, str):
            raise ModelError("the detector's description and licence must be text; the file is damaged")
        if not isinstance(self.training, dict):
            raise ModelError("the detector's training record must be a table; the file is damaged")

    def to_json(self) -> str:
        """As text; `from_dict` takes what it holds.

        Raises
        ------
        ModelError
            If the training record holds something that JSON cannot.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"format": FORMAT, "config": self.config.to_dict(), "thresholds": self.thresholds.to_dict()}
        try:
            return json.dumps(values, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelError(f"The detector's training record is not plain data: {error}.") from error

    @classmethod
    def from_dict(cls, values: Any) -> DetectorDescription:
        """A description from plain data.

        Raises
        ------
        ModelError
            If a name is unknown or missing, or a value is not accepted.
        """
        if not isinstance(values, dict):
            raise ModelError("its description is not a table of names and values; it is damaged")
        values = dict(values)
        version = values.pop("format", FORMAT)
        if version != FORMAT:
            raise ModelError(f"its format is {str(version)[:20]!r}, this version reads {FORMAT}: update the package")
        unknown = sorted(set(map(str, values)) - {item.name for item in fields(cls)})
        if unknown or "config" not in values or "thresholds" not in values:
            raise ModelError(
                f"its description {'has an unknown ' + repr(unknown[0][:40]) if unknown else 'is not whole'}"
            )
        config = StarDistConfig.from_dict(values.pop("config"))
        return cls(config, Thresholds.from_dict(values.pop("thresholds")), **values)


def read_description(path: str | Path) -> DetectorDescription:
    """The description in a detector's file; the weights are not read and torch is not loaded.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it is no detector's file, or is damaged.
    """
    return read_layout(path, DETECTOR_KEY, DetectorDescription.from_dict).description
