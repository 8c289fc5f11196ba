"""What StarDist writes beside its weights: the network's shape and the thresholds. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any

from napari_mpt_deblur.errors import FileError, ModelError

ACTIVATIONS = ("relu", "elu", "selu", "tanh", "sigmoid", "softplus", "swish", "silu", "gelu", "linear")
_REMEDY = "StarDist itself runs it where TensorFlow is installed (pip install napari-mpt-deblur[tensorflow])"
_NO_EFFECT = ("unet_dropout", "unet_kernel_init")  # they matter to training only
_MAX_JSON_BYTES = 2**20
_PAIRS = ("grid", "unet_kernel_size", "unet_pool")
_WHOLE = {  # the least and the most that make sense; a hostile file can say anything
    "n_rays": (3, 1024),
    "n_channel_in": (1, 64),
    "unet_n_depth": (0, 10),
    "unet_n_filter_base": (1, 4096),
    "unet_n_conv_per_depth": (1, 16),
    "net_conv_after_unet": (0, 8192),
}
_LARGEST_PAIR = {"grid": 64, "unet_kernel_size": 31, "unet_pool": 8}
_LARGEST_EXPANSION = 8.0
_LARGEST_DIVISOR = 8192


class UnsupportedModelError(ModelError):
    """The model is whole, but only StarDist itself can run it, with TensorFlow."""


@dataclass(frozen=True)
class StarDistConfig:
    """The network of a StarDist2D model, by the names and defaults of its ``config.json``.

    Parameters
    ----------
    n_rays : int
        Directions in which the distance to the edge of the object is predicted.
    n_channel_in : int
    grid : tuple of int
        Pixels, in Y and X, for each of the output; powers of two.
    n_classes : int, optional
        Of a model that also tells classes apart; its class head is left out.
    unet_n_depth, unet_n_filter_base, unet_n_conv_per_depth : int
    unet_kernel_size, unet_pool : tuple of int
        In Y and X.
    unet_expansion : float
        How many times more filters each level has than the one above it.
    unet_activation, unet_last_activation : str
    unet_batch_norm : bool
    unet_prefix : str
        Of the names of the U-Net's layers in the weights' file.
    net_conv_after_unet : int
        Filters of the convolution between U-Net and heads; 0 for none.

    Raises
    ------
    ModelError
        If a value is damaged.
    UnsupportedModelError
        If it means something that only StarDist itself can run.
    """

    n_rays: int = 32
    n_channel_in: int = 1
    grid: tuple[int, int] = (1, 1)
    n_classes: int | None = None
    unet_n_depth: int = 3
    unet_kernel_size: tuple[int, int] = (3, 3)
    unet_n_filter_base: int = 32
    unet_n_conv_per_depth: int = 2
    unet_pool: tuple[int, int] = (2, 2)
    unet_activation: str = "relu"
    unet_last_activation: str = "relu"
    unet_batch_norm: bool = False
    unet_expansion: float = 2
    unet_prefix: str = ""
    net_conv_after_unet: int = 128

    def __post_init__(self) -> None:
        for name, (least, most) in _WHOLE.items():
            _check_whole(getattr(self, name), name, least, most)
        if self.n_classes is not None:
            _check_whole(self.n_classes, "n_classes", 1, 10_000)
        for name in _PAIRS:
            object.__setattr__(self, name, _pair(getattr(self, name), name))
        if any(step & (step - 1) for step in self.grid):
            raise ModelError(f"the grid {list(self.grid)} is no pair of powers of two, which StarDist asks for")
        for name in ("unet_activation", "unet_last_activation"):
            value = getattr(self, name)
            if value not in ACTIVATIONS:
                raise UnsupportedModelError(f"the activation {str(value)[:40]!r} is not supported here: {_REMEDY}")
        if type(self.unet_batch_norm) is not bool or not isinstance(self.unet_prefix, str):
            raise ModelError("unet_batch_norm must be true or false and unet_prefix text; the file is damaged")
        expansion = self.unet_expansion
        if type(expansion) not in (int, float) or not 0 < expansion <= _LARGEST_EXPANSION:
            raise ModelError(f"unet_expansion must be a number above 0; got {str(expansion)[:40]!r}")
        if max(self.size_divisor) > _LARGEST_DIVISOR or min(map(self.filters, range(self.unet_n_depth + 1))) < 1:
            raise ModelError("the U-Net of that depth has no sensible size; the file is damaged")

    def filters(self, level: int) -> int:
        """Filters of a level of the U-Net, 0 the uppermost."""
        return int(self.unet_n_filter_base * self.unet_expansion**level)

    @property
    def size_divisor(self) -> tuple[int, int]:
        """Height and width of what the network takes must be multiples of these."""
        y, x = (p**self.unet_n_depth * g for p, g in zip(self.unet_pool, self.grid, strict=True))
        return y, x

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; `from_dict` reads it back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"n_dim": 2, "backbone": "unet"} | values | {name: list(values[name]) for name in _PAIRS}

    @classmethod
    def from_dict(cls, values: Any) -> StarDistConfig:
        """A configuration from what StarDist writes; what concerns training only is passed over.

        Raises
        ------
        ModelError
            If a value is not accepted.
        UnsupportedModelError
            If the model is not 2D, has another backbone, or is otherwise one that only StarDist itself can run.
        """
        if not isinstance(values, Mapping):
            raise ModelError("the configuration is not a table of names and values; the file is damaged")
        if values.get("n_dim", 2) != 2:
            raise UnsupportedModelError(
                f"it is a model for {str(values['n_dim'])[:20]}D images, not supported here: {_REMEDY}"
            )
        backbone = values.get("backbone", "unet")
        if backbone != "unet":
            raise UnsupportedModelError(f"the backbone {str(backbone)[:40]!r} is not supported here: {_REMEDY}")
        axes = values.get("axes", "YXC")
        if axes not in ("YXC", "YX"):
            raise UnsupportedModelError(f"the axes {str(axes)[:20]!r} are not supported here, only YXC: {_REMEDY}")
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(filter(_shapes_network, map(str, values))) - known)
        if unknown:
            raise UnsupportedModelError(f"the setting {unknown[0][:40]!r} is not supported here: {_REMEDY}")
        kept = {name: value for name, value in values.items() if name in known}
        if "unet_last_activation" in kept and kept["unet_last_activation"] is None:  # the same as everywhere
            kept["unet_last_activation"] = kept.get("unet_activation", cls.unet_activation)
        return cls(**kept)


@dataclass(frozen=True)
class Thresholds:
    """From which probability on a pixel proposes an object, and how much objects may overlap.

    Parameters
    ----------
    prob, nms : float
        Above 0 and below 1; StarDist's own defaults otherwise.
    """

    prob: float = 0.5
    nms: float = 0.4

    def to_dict(self) -> dict[str, float]:
        return {"prob": self.prob, "nms": self.nms}

    @classmethod
    def from_dict(cls, values: Any) -> Thresholds:
        """Thresholds from plain data; as in StarDist, the default stands in for one that is missing or no fraction.

        Raises
        ------
        ModelError
            If it is no table.
        """
        if not isinstance(values, Mapping):
            raise ModelError("the thresholds are not a table of names and values; the file is damaged")
        return cls(**{name: float(values[name]) for name in ("prob", "nms") if is_fraction(values.get(name))})


def is_fraction(value: Any) -> bool:
    """Whether it is a number above 0 and below 1."""
    return not isinstance(value, bool) and isinstance(value, Real) and 0 < float(value) < 1


def read_config(folder: str | Path) -> tuple[StarDistConfig, Thresholds]:
    """The configuration and the thresholds of a StarDist model folder.

    Parameters
    ----------
    folder : str or Path
        With ``config.json``, and ``thresholds.json`` where they were optimised.

    Raises
    ------
    FileError
        If a file cannot be read.
    ModelError
        If a file is damaged.
    UnsupportedModelError
        If it describes a model that only StarDist itself can run.
    """
    config_path, thresholds_path = Path(folder) / "config.json", Path(folder) / "thresholds.json"
    config = _read(config_path, StarDistConfig.from_dict)
    thresholds = _read(thresholds_path, Thresholds.from_dict) if thresholds_path.exists() else Thresholds()
    return config, thresholds


def _read(path: Path, parse: Any) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError("it is too large for a table of settings")
        return parse(json.loads(path.read_bytes()))
    except OSError as error:
        reason = "no such file; choose the folder that StarDist saved the model to" if not path.exists() else error
        raise FileError(f"Cannot read the model {path}: {getattr(reason, 'strerror', None) or reason}.") from error
    except ModelError as error:
        raise type(error)(f"Cannot use the model {path}: {str(error).rstrip('.')}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"Cannot use the model {path}: it is not JSON; copy or download it anew.") from error


def _shapes_network(name: str) -> bool:
    return name.startswith("unet_") and name not in _NO_EFFECT


def _check_whole(value: Any, name: str, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ModelError(f"{name} must be a whole number from {least} to {most}; got {str(value)[:40]!r}")


def _pair(value: Any, name: str) -> tuple[int, int]:
    most = _LARGEST_PAIR[name]
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(type(n) is int for n in value):
        raise ModelError(f"{name} must be two whole numbers; got {str(value)[:40]!r}")
    if not all(1 <= n <= most for n in value):
        raise ModelError(f"{name} must be from 1 to {most}; got {list(value)}")
    return value[0], value[1]
