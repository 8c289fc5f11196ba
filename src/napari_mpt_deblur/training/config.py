"""What a training run is: one frozen, validated configuration that is saved with every checkpoint."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.variants import network_from_settings


@dataclass(frozen=True)
class SimulationConfig:
    """Range of microscopes, samples and cameras that synthetic defocus draws from.

    Parameters
    ----------
    nucleus_px : tuple of float
        Smallest and largest diameter of nuclei, in pixels, that zooming brings the images to.
    native_scale : float
        Share, of the pairs that are not `drawn`, that keep the image's own scale, untouched by interpolation.
    disc_radius_px : tuple of float
        Smallest and largest radius of the geometric defocus disc.
    in_focus : float
        Share, of the pairs that are not `identity`, that are in focus, seen through a microscope.
    identity : float
        Share of pairs that are sharp already: nothing but the camera, or not even that, lies between the two.
    thick : float
        Share, of the pairs that are not `identity`, of which a part, in depth or across the field, is at another
        defocus.
    broadened : float
        Share of point-spread functions that are the mean over a range of depths: of a sample that has some thickness,
        or of light of many colours. They have no rings.
    numerical_aperture : tuple of float
    photons : tuple of float
        Fewest and most photo-electrons at the brightest; drawn log-uniformly.
    read_noise : tuple of float
        In photo-electrons.
    inverted : float
        Share of pairs that are dark on bright, as in brightfield.
    textured : float
        Share of pairs to which random texture is added, so that detail which the input holds is kept; at least half
        of the images that are enlarged, since enlarging makes nuclei smooth.
    crisp : float
        Share of the enlarged images whose soft edges are made sharp.
    drawn : float
        Share of pairs whose scenes are drawn, not photographed: shapes of all sizes with sharp edges.
    grain : float
        Share of pairs with faint, fine structure all over the field, as smears and tissue have: it is not noise.
    empty : float
        Share of pairs that hold nothing but noise.
    psf_count : int
        Point-spread functions drawn once and shared by all pairs.
    """

    nucleus_px: tuple[float, float] = (8.0, 150.0)
    native_scale: float = 0.55
    disc_radius_px: tuple[float, float] = (0.7, 25.0)
    in_focus: float = 0.12
    identity: float = 0.05
    thick: float = 0.12
    broadened: float = 0.3
    numerical_aperture: tuple[float, float] = (0.25, 1.4)
    photons: tuple[float, float] = (40.0, 20000.0)
    read_noise: tuple[float, float] = (0.5, 6.0)
    inverted: float = 0.08
    textured: float = 0.08
    crisp: float = 0.4
    drawn: float = 0.1
    grain: float = 0.15
    empty: float = 0.03
    psf_count: int = 3000

    def __post_init__(self) -> None:
        for name in ("nucleus_px", "disc_radius_px", "numerical_aperture", "photons", "read_noise"):
            low, high = pair = tuple(_number(value, name) for value in getattr(self, name))
            object.__setattr__(self, name, pair)
            if not 0 < low <= high < math.inf:
                raise TrainingError(f"{name} must be a low and a high number above 0; got {list(pair)}.")
        for name in (item.name for item in fields(self) if item.type == "float"):  # every single number is a share
            if not 0 <= _number(getattr(self, name), name) <= 1:
                raise TrainingError(f"{name} is a share between 0 and 1; got {getattr(self, name)}.")
        _whole(self.psf_count, "psf_count", 1)


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Parameters
    ----------
    network : MPTConfig
    simulation : SimulationConfig
    iterations : int
    patch_px, batch : tuple of int
        Patch sides and batch sizes that take turns at random, the same number of both.
    loss : {"l1", "mse", "rmse"}
        Pixel loss. ``"rmse"`` is the mean over the batch of each image's root mean square: it ends near the mean of
        what is possible (exactly: at its spatial median), which PSNR rewards, and hard images weigh less than in
        ``"mse"``.
    learning_rate, final_learning_rate : float
        AdamW with a linear warm-up, then cosine from the first to the second.
    warmup : int
        Iterations of the warm-up.
    weight_decay : float
    clip : float
        Largest norm of the gradient.
    ema : float
        Decay of the exponential moving average of the weights; 0 keeps none.
    precision : {"auto", "float32", "bfloat16"}
        Of the network's forward pass; weights and optimiser stay in float32.
    seed : int
    validate_every : int
        Iterations between validations.
    validation_pairs : int

    Raises
    ------
    TrainingError
        If a value is not accepted.
    """

    network: MPTConfig = field(default_factory=MPTConfig.compact)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    iterations: int = 20000
    patch_px: tuple[int, ...] = (128, 256)
    batch: tuple[int, ...] = (4, 1)
    loss: Literal["l1", "mse", "rmse"] = "l1"
    learning_rate: float = 6e-4
    final_learning_rate: float = 1e-6
    warmup: int = 300
    weight_decay: float = 1e-4
    clip: float = 0.5
    ema: float = 0.998
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    validate_every: int = 1000
    validation_pairs: int = 48

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_px", tuple(self.patch_px))
        object.__setattr__(self, "batch", tuple(self.batch))
        if not self.patch_px or len(self.patch_px) != len(self.batch):
            raise TrainingError("patch_px and batch need the same number of entries, one batch size a patch side.")
        multiple = self.network.size_multiple
        for patch, batch in zip(self.patch_px, self.batch, strict=True):
            _whole(batch, "batch", 1)
            if _whole(patch, "patch_px", 1) % multiple:
                raise TrainingError(f"patch_px must be multiples of {multiple} for this network; got {patch}.")
        for name, least in (
            ("iterations", 1),
            ("validate_every", 1),
            ("validation_pairs", 1),
            ("warmup", 0),
            ("seed", 0),
        ):
            _whole(getattr(self, name), name, least)
        for name in ("learning_rate", "clip"):
            if not _number(getattr(self, name), name) > 0:
                raise TrainingError(f"{name} must be above 0; got {getattr(self, name)}.")
        for name in ("final_learning_rate", "weight_decay", "ema"):
            if _number(getattr(self, name), name) < 0:
                raise TrainingError(f"{name} must be at least 0; got {getattr(self, name)}.")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema must be at least 0 and below 1; got {self.ema}.")
        if self.loss not in ("l1", "mse", "rmse"):
            raise TrainingError(f"loss must be l1, mse or rmse; got {self.loss!r}.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise TrainingError(f"precision must be auto, float32 or bfloat16; got {self.precision!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and TOML; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """A configuration from plain data.

        Raises
        ------
        TrainingError
            If a name is unknown or a value is not accepted.
        """
        values = dict(values)
        try:
            if "network" in values:
                values["network"] = network_from_settings(values["network"])
            if "simulation" in values:
                values["simulation"] = _build(SimulationConfig, values["simulation"])
            return _build(cls, values)
        except TrainingError:
            raise
        except (TypeError, DeblurError) as error:
            raise TrainingError(f"The training configuration is not valid: {error}") from error

    @classmethod
    def from_toml(cls, path: str | Path, network: MPTConfig | None = None) -> TrainingConfig:
        """A configuration from a TOML file; see `from_dict`. `network`, where given, is the one it is to have."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            if network is not None:
                if "network" in values and network_from_settings(values["network"]) != network:
                    raise TrainingError(f"{path} describes another network than the model to start from: leave it out.")
                values["network"] = network.to_dict()
            return cls.from_dict(values)
        except OSError as error:
            raise TrainingError(f"Cannot read the training configuration {path}: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path} is not a TOML file: {error}.") from error


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TrainingError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TrainingError(f"{name} must be a finite number; got {value!r}.")
    return float(value)


def _build(kind: type, values: dict[str, Any]) -> Any:
    known = [item.name for item in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise TrainingError(f"Unknown setting {unknown[0]!r} in the training configuration; known: {', '.join(known)}.")
    return kind(**values)
