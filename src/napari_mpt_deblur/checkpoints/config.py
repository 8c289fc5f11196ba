"""What travels with the weights: the network's shape, how its inputs are normalised, where it came from. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.images.statistics import IntensityRule
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig, network_from_dict

FORMAT = 1
_LARGEST = 1e9  # of pixels, and far beyond percentiles; a file may hold whole numbers that no float can
_DEFAULT_NORMALIZATION = {"percentiles": [1.0, 99.8]}


@dataclass(frozen=True)
class ModelConfig:
    """A model's description, saved in the header of its file.

    Parameters
    ----------
    network : MPTConfig or SpandrelConfig
    normalization : dict
        Which grey levels become 0 and 1: ``{"percentiles": [low, high]}``, or ``{"range": "full"}`` for 0 and the
        largest value of the image's type (see `images.measure_normalization`). With ``"clip": true``, what the network
        makes of them is clipped to 0..1.
    nucleus_diameter_px : tuple of float, optional
        Smallest and largest diameter of nuclei, in pixels, that the model was trained for.
    name, description, licence : str
        For people; each becomes one line without control characters.
    training : dict
        How the weights came about: recipe, data, seed, commit. Plain JSON data.

    Raises
    ------
    ModelError
        If a value is not accepted.
    """

    network: MPTConfig | SpandrelConfig
    normalization: dict[str, Any] = field(default_factory=lambda: dict(_DEFAULT_NORMALIZATION))
    nucleus_diameter_px: tuple[float, float] | None = None
    name: str = ""
    description: str = ""
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.network, (MPTConfig, SpandrelConfig)):
            raise ModelError("The model's network must be an MPTConfig or a SpandrelConfig.")
        for name in ("name", "description", "licence"):
            if not isinstance(getattr(self, name), str):
                raise ModelError(f"The model's {name} must be text; the file is damaged.")
            object.__setattr__(self, name, _one_line(getattr(self, name)))
        if not isinstance(self.training, dict):
            raise ModelError("The model's training record must be a table; the file is damaged.")
        object.__setattr__(self, "normalization", _normalization(self.normalization))
        if self.nucleus_diameter_px is not None:
            object.__setattr__(self, "nucleus_diameter_px", _rising(self.nucleus_diameter_px, "nucleus_diameter_px"))

    @property
    def intensity_rule(self) -> IntensityRule:
        """Which grey levels become 0 and 1."""
        if "range" in self.normalization:
            return "full"
        low, high = self.normalization["percentiles"]
        return low, high

    @property
    def clips(self) -> bool:
        """Whether the network's output is clipped to 0..1."""
        return bool(self.normalization.get("clip", False))

    def describe_intensities(self) -> str:
        """What `normalization` says, in words."""
        rule = self.intensity_rule
        full = "0 and the largest value of the image's type"
        words = full if rule == "full" else f"percentiles {rule[0]:g} and {rule[1]:g}"
        return f"{words} become 0 and 1{', the output is clipped to them' if self.clips else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; `from_dict` reads it back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        diameter = self.nucleus_diameter_px
        return values | {
            "format": FORMAT,
            "network": self.network.to_dict(),
            "nucleus_diameter_px": list(diameter) if diameter else None,
        }

    @classmethod
    def from_dict(cls, values: Any) -> ModelConfig:
        """A configuration from plain data.

        Raises
        ------
        ModelError
            If a name is unknown or missing, or a value is not accepted.
        """
        if not isinstance(values, dict):
            raise ModelError("The model's configuration is not a table of names and values; the file is damaged.")
        values = dict(values)
        version = values.pop("format", FORMAT)
        if version != FORMAT:
            raise ModelError(
                f"The model's format is {version!r}, this version reads {FORMAT}: update napari-mpt-deblur."
            )
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(map(str, values)) - set(known))
        if unknown:
            raise ModelError(f"Unknown model setting {unknown[0]!r}; known are {', '.join(known)}.")
        if "network" not in values:
            raise ModelError("The model's configuration says nothing about its network; the file is damaged.")
        return cls(**values | {"network": network_from_dict(values["network"])})

    def to_json(self) -> str:
        """`to_dict` as text.

        Raises
        ------
        ModelError
            If the training record holds something that JSON cannot.
        """
        try:
            return json.dumps(self.to_dict(), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelError(f"The model's training record is not plain data: {error}.") from error


def _one_line(text: str) -> str:
    """Files come from anywhere: what they say of themselves is shown in lists and terminals."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _normalization(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict) or set(values) - {"clip"} not in ({"percentiles"}, {"range"}):
        raise ModelError("The model's normalization must be a table with percentiles or a range; the file is damaged.")
    clip = {"clip": True} if values.get("clip", False) else {}
    if not isinstance(values.get("clip", False), bool):
        raise ModelError(f"The model's clip must be true or false; got {str(values['clip'])[:80]!r}.")
    if "range" in values:
        if values["range"] != "full":
            raise ModelError(f"The model's range of intensities must be 'full'; got {str(values['range'])[:80]!r}.")
        return {"range": "full"} | clip
    low, high = _rising(values["percentiles"], "percentiles")
    if high > 100:
        raise ModelError(f"The model's percentiles must be at most 100; got {high:g}.")
    return {"percentiles": [low, high]} | clip


def _rising(values: Any, name: str) -> tuple[float, float]:
    """Two rising numbers not below 0; NaN is refused by the comparison."""
    numbers = isinstance(values, (list, tuple)) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 2 or not 0 <= values[0] < values[1] <= _LARGEST:
        raise ModelError(f"The model's {name} must be two rising numbers; got {str(values)[:80]}.")
    return float(values[0]), float(values[1])
