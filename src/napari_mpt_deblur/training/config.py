"""What a training run is: one frozen, validated configuration that is saved with every checkpoint. No torch."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from napari_mpt_deblur.errors import DeblurError, TrainingError
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig
from napari_mpt_deblur.networks.variants import network_from_settings
from napari_mpt_deblur.training.checks import build, number, one_of, sequence, share, whole
from napari_mpt_deblur.training.contrast_config import ContrastConfig, Method
from napari_mpt_deblur.training.simulation_config import SimulationConfig

__all__ = ["ContrastConfig", "SimulationConfig", "TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Parameters
    ----------
    network : MPTConfig or SpandrelConfig
    simulation : SimulationConfig
        Used where pairs are made of sharp images.
    contrast : ContrastConfig
        The method: the pixel loss alone, EFCR, EFCRex, or an ablation of them.
    iterations : int
    patch_px, batch : tuple of int
        Patch sides and batch sizes that take turns at random, the same number of both.
    loss : {"l1", "mse", "rmse"}
        Pixel loss. ``"rmse"`` is the mean over the batch of each image's root mean square: it ends near the mean of
        what is possible (exactly: at its spatial median), which PSNR rewards, and hard images weigh less than in
        ``"mse"``.
    flips : bool
        Mirror and turn patches of images that are not simulated; simulated ones always are.
    scaled : float
        Share of these patches that are reduced by a random factor.
    scales : tuple of float
        Smallest and largest such factor.
    learning_rate, final_learning_rate : float
        AdamW with a linear warm-up, then cosine from the first to the second; where that is larger, the first stays.
    betas : tuple of float
        Of AdamW.
    warmup : int
        Iterations of the warm-up; a quarter of all at most.
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

    network: MPTConfig | SpandrelConfig = field(default_factory=MPTConfig.compact)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    iterations: int = 20000
    patch_px: tuple[int, ...] = (128, 256)
    batch: tuple[int, ...] = (4, 1)
    loss: Literal["l1", "mse", "rmse"] = "l1"
    flips: bool = True
    scaled: float = 0.5
    scales: tuple[float, float] = (0.7, 1.0)
    learning_rate: float = 6e-4
    final_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 300
    weight_decay: float = 1e-4
    clip: float = 0.5
    ema: float = 0.998
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    validate_every: int = 1000
    validation_pairs: int = 48

    def __post_init__(self) -> None:
        for name in ("patch_px", "batch", "scales", "betas"):
            object.__setattr__(self, name, sequence(getattr(self, name)))
        self._check_patches()
        for name in ("iterations", "validate_every", "validation_pairs"):
            whole(getattr(self, name), name, 1)
        for name in ("warmup", "seed"):
            whole(getattr(self, name), name, 0)
        for name in ("learning_rate", "clip"):
            if not number(getattr(self, name), name) > 0:
                raise TrainingError(f"{name} must be above 0; got {getattr(self, name)}.")
        for name in ("final_learning_rate", "weight_decay", "ema"):
            number(getattr(self, name), name, least=0)
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema must be at least 0 and below 1; got {self.ema}.")
        if len(self.betas) != 2 or not all(0 <= number(beta, "betas") < 1 for beta in self.betas):
            raise TrainingError(f"betas must be two numbers of at least 0 and below 1; got {list(self.betas)}.")
        share(self.scaled, "scaled")
        numbers = [number(scale, "scales") for scale in self.scales]
        if len(numbers) != 2 or not 0.1 <= numbers[0] <= numbers[1] <= 1:
            raise TrainingError(f"scales must be two rising numbers from 0.1 to 1; got {list(self.scales)}.")
        if not isinstance(self.flips, bool):
            raise TrainingError(f"flips must be true or false; got {self.flips!r}.")
        one_of(self.loss, "loss", ("l1", "mse", "rmse"))
        one_of(self.precision, "precision", ("auto", "float32", "bfloat16"))

    @classmethod
    def paper(cls, in_channels: int = 3, method: Method = "efcr") -> TrainingConfig:
        """The paper's recipe and network (section 4.2); days on a GPU."""
        return cls(
            network=MPTConfig.paper(in_channels),
            contrast=ContrastConfig(method),
            iterations=300_000,
            patch_px=(256,),
            batch=(8,),
            learning_rate=1e-4,
            warmup=0,
            ema=0.0,
        )

    @classmethod
    def fine_tuning(cls, network: MPTConfig | SpandrelConfig, method: Method = "pixel") -> TrainingConfig:
        """A model that exists brought to an image at hand, in minutes on a CPU."""
        side = network.size_multiple * max(1, 128 // network.size_multiple)
        return cls(
            network=network,
            simulation=SimulationConfig.for_one_image(),
            contrast=ContrastConfig(method),
            iterations=500,
            patch_px=(side,),
            batch=(2,),
            learning_rate=1e-4,
            warmup=20,
            ema=0.98,
            validate_every=50,
            validation_pairs=8,
        )

    def learning_rate_at(self, iteration: int) -> float:
        """Of an iteration, counted from 0."""
        warmup = min(self.warmup, self.iterations // 4)
        if iteration < warmup:
            return self.learning_rate * (iteration + 1) / warmup
        progress = (iteration - warmup) / max(1, self.iterations - warmup)
        swing = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        final = min(self.final_learning_rate, self.learning_rate)
        return final + (self.learning_rate - final) * swing

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and TOML; `from_dict` reads it back."""
        return asdict(self)

    def to_toml(self) -> str:
        """As text; `from_toml` reads it back from a file."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """A configuration from plain data; what is not named has its default.

        Raises
        ------
        TrainingError
            If a name is unknown or a value is not accepted.
        """
        values = dict(values)
        try:
            if "network" in values:
                values["network"] = network_from_settings(values["network"])
            for name, kind in (("simulation", SimulationConfig), ("contrast", ContrastConfig)):
                if name in values:
                    values[name] = build(kind, values[name])
            return build(cls, values)
        except TrainingError:
            raise
        except (TypeError, DeblurError) as error:
            raise TrainingError(f"The training configuration is not valid: {error}") from error

    @classmethod
    def from_toml(cls, path: str | Path, network: MPTConfig | SpandrelConfig | None = None) -> TrainingConfig:
        """A configuration from a TOML file; see `from_dict`. `network`, where given, is the one it is to have."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            if network is not None:
                if "network" in values:
                    _check_same(network_from_settings(values["network"]), network, path)
                values["network"] = network.to_dict()
            return cls.from_dict(values)
        except OSError as error:
            raise TrainingError(f"Cannot read the training configuration {path}: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path} is not a TOML file: {error}.") from error

    def _check_patches(self) -> None:
        if not self.patch_px or len(self.patch_px) != len(self.batch):
            raise TrainingError("patch_px and batch need the same number of entries, one batch size a patch side.")
        multiple = self.network.size_multiple
        for patch, batch in zip(self.patch_px, self.batch, strict=True):
            whole(batch, "batch", 1)
            if whole(patch, "patch_px", 1) % multiple:
                below = patch // multiple * multiple
                near = f"{below} or {below + multiple}" if below else str(multiple)
                raise TrainingError(f"patch_px must be multiples of {multiple} for this network: {near}, not {patch}.")


def _check_same(described: MPTConfig | SpandrelConfig, given: MPTConfig | SpandrelConfig, path: str | Path) -> None:
    if described.in_channels != given.in_channels:
        raise TrainingError(
            f"{path} describes a network of {described.in_channels} channels, the model to start from has "
            f"{given.in_channels}: leave the network out, or start from another model."
        )
    if described != given:
        raise TrainingError(f"{path} describes another network than the model to start from: leave it out.")
