"""The configuration of a network of others', which the library spandrel builds: plain data, no torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks.config import MPTConfig

MAX_MULTIPLE_PX = 2048
_MAX_BYTES_PER_PX = 1e9
_MAX_PARAMETERS = 20_000  # letters of JSON
_MAX_NUMBER = 100_000
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]{1,40}")


@dataclass(frozen=True)
class SpandrelConfig:
    """Which network of spandrel's, and what the engine needs to know of it.

    Parameters
    ----------
    architecture : str
        As spandrel calls it, ``"Restormer"`` for example.
    in_channels : int
        Of the image, in and out: 1 or 3.
    size_multiple : int
        Height and width that the network accepts are multiples of this many pixels.
    square : bool
        Whether it accepts squares only.
    bytes_per_px : float
        Peak memory of a forward pass for each pixel of its input, in float32.
    parameters : dict
        Of the architecture's constructor, plain data.

    Raises
    ------
    ModelError
        If a value is not accepted.
    """

    architecture: str
    in_channels: int = 1
    size_multiple: int = 64
    square: bool = False
    bytes_per_px: float = 10_000.0
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, str) or not _IDENTIFIER.fullmatch(self.architecture):
            raise ModelError(f"architecture must be a name that spandrel knows; got {str(self.architecture)[:80]!r}.")
        if type(self.in_channels) is not int or self.in_channels not in (1, 3):
            raise ModelError(f"in_channels must be 1 or 3; got {str(self.in_channels)[:80]!r}.")
        if type(self.size_multiple) is not int or not 1 <= self.size_multiple <= MAX_MULTIPLE_PX:
            raise ModelError(
                f"size_multiple must be from 1 to {MAX_MULTIPLE_PX}; got {str(self.size_multiple)[:80]!r}."
            )
        if not isinstance(self.square, bool):
            raise ModelError(f"square must be true or false; got {str(self.square)[:80]!r}.")
        if type(self.bytes_per_px) not in (int, float) or not 1 <= self.bytes_per_px <= _MAX_BYTES_PER_PX:
            raise ModelError(f"bytes_per_px must be a number above 1; got {str(self.bytes_per_px)[:80]!r}.")
        try:
            text = json.dumps(self.parameters, allow_nan=False) if isinstance(self.parameters, dict) else ""
        except (TypeError, ValueError, RecursionError):
            text = ""
        if not text or len(text) > _MAX_PARAMETERS:
            raise ModelError("The parameters of the architecture must be a table of plain data.")
        # as they come back from a file: no tuples, and names that are text
        read = json.loads(
            text, parse_int=lambda number: _bounded(int(number)), parse_float=lambda n: _bounded(float(n))
        )
        object.__setattr__(self, "parameters", read)

    @property
    def pools_channels(self) -> bool:
        """Whether tiles share statistics of their plane: such networks know no way."""
        return False

    @property
    def tiles_agree(self) -> bool:
        """Whether tiles can be restored as their whole plane would be: of such networks it is not known."""
        return False

    def describe(self) -> str:
        """In a line, for people."""
        return f"{self.architecture} (through spandrel), {self.in_channels} channels"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON and TOML; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SpandrelConfig:
        """A configuration from plain data.

        Raises
        ------
        ModelError
            If a name is unknown or a value is not accepted.
        """
        unknown = sorted(map(str, set(values) - {item.name for item in fields(cls)}))
        if unknown:
            known = ", ".join(item.name for item in fields(cls))
            raise ModelError(f"Unknown setting {unknown[0][:80]!r} of a network of spandrel's; known are {known}.")
        return cls(**values)


def network_from_dict(values: Any) -> MPTConfig | SpandrelConfig:
    """The network that plain data describe: one of others', where they name an architecture.

    Raises
    ------
    ModelError
        If a name is unknown or a value is not accepted.
    """
    if isinstance(values, dict) and "architecture" in values:
        return SpandrelConfig.from_dict(values)
    return MPTConfig.from_dict(values)


def _bounded(number: float) -> float:
    if abs(number) > _MAX_NUMBER:
        raise ModelError(f"The parameters of the architecture hold numbers beyond {_MAX_NUMBER}, which none has.")
    return number
