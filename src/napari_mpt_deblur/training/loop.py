"""The training loop: resumable to the bit, a checkpoint every few minutes, the best and the last weights kept."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mpt_deblur.checkpoints import Model, ModelConfig, save_model
from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.evaluation.metrics import psnr, ssim
from napari_mpt_deblur.images.atomic import atomic_path, make_folder
from napari_mpt_deblur.networks.mpt import MPT
from napari_mpt_deblur.restoration.devices import pick_precision
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.simulation import DefocusPairs, SharpImage

_SMALLEST_MSE = 1e-6  # below, an image is restored: its root mean square has no slope to speak of


def _rmse(restored: Tensor, sharp: Tensor) -> Tensor:
    return ((restored - sharp).square().mean((1, 2, 3)) + _SMALLEST_MSE).sqrt().mean()


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "mse": F.mse_loss, "rmse": _rmse}
_STATE = "state.pt"
_LOG = "log.jsonl"
_VALIDATION_SIDE_PX = 256


@dataclass(frozen=True)
class Step:
    """What one iteration, or one validation, brought; loss and dB of PSNR, in units of the normalised intensities."""

    iteration: int
    loss: float
    learning_rate: float
    validation: dict[str, float] | None = None


class Trainer:
    """Train a network on synthetic defocus of sharp images.

    Parameters
    ----------
    config : TrainingConfig
    folder : Path
        Holds ``state.pt`` (all that resuming needs), ``log.jsonl`` and the weights.
    train, validation : list of SharpImage
    device : str
    start : Model, optional
        Whose weights to begin with; by default random ones. Its hash and history go into the new model's header.

    Raises
    ------
    TrainingError
        If there are no images, or `start` is another network than the configuration's.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        train: list[SharpImage],
        validation: list[SharpImage],
        device: str = "cpu",
        start: Model | None = None,
    ) -> None:
        if not train or not validation:
            raise TrainingError("Training needs at least one sharp image to train on and one to validate on.")
        self.config, self.folder, self.device = config, Path(folder), torch.device(device)
        torch.manual_seed(config.seed)
        self.network = MPT(config.network)
        # what came before this configuration: the model started from, and stages that were resumed otherwise
        self.history: list[dict[str, Any]] = []
        if start is not None:
            if start.network.config != config.network:
                raise TrainingError("The model to start from is another network than the configuration's.")
            self.network.load_state_dict(start.network.state_dict())
            self.history.append({"started_from": start.sha256, "training": dict(start.config.training)})
        self.network.to(self.device)
        self.average = copy.deepcopy(self.network) if config.ema else self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.iteration = 0
        self.best = -math.inf
        self.pairs = DefocusPairs(train, config.simulation, config.seed)
        self._validation = _validation_set(validation, config)

    def run(self) -> Iterator[Step]:
        """Iterate to the end; stop consuming at any time and call `save`."""
        # pairs cost a few per cent of a step: a loader thread gains nothing and disturbs torch's threads
        while self.iteration < self.config.iterations:
            blurred, sharp = self._batch(self.iteration)
            loss = self._step(blurred.to(self.device), sharp.to(self.device))
            self.iteration += 1
            last = self.iteration == self.config.iterations
            scores = self.validate() if last or self.iteration % self.config.validate_every == 0 else None
            if scores is not None and scores["psnr"] > self.best:
                self.best = scores["psnr"]
                self._export(self.best_path)
            yield Step(self.iteration, loss, self._learning_rate(self.iteration - 1), scores)

    def validate(self) -> dict[str, float]:
        """PSNR (dB) and SSIM of the averaged weights on the validation pairs, and PSNR of the blurred ones."""
        self.average.eval()
        results = []
        for blurred, sharp in self._validation:
            with torch.no_grad(), self._autocast():
                restored = self.average(blurred.to(self.device)).float().cpu()[0, 0].numpy()
            truth = sharp[0, 0].numpy()
            results.append((psnr(restored, truth, 1), psnr(blurred[0, 0].numpy(), truth, 1), ssim(restored, truth, 1)))
        restored, before, similarity = np.mean(results, axis=0)
        return {"psnr": float(restored), "psnr_blurred": float(before), "ssim": float(similarity)}

    @property
    def best_path(self) -> Path:
        """The averaged weights that validated best."""
        return self.folder / "best.safetensors"

    @property
    def last_path(self) -> Path:
        """The averaged weights of the last `save`."""
        return self.folder / "last.safetensors"

    def save(self) -> None:
        """Write the state that `resume` reads and the last weights, each whole or not at all.

        Raises
        ------
        FileError
            If a file cannot be written; what was there before stays.
        """
        state = {
            "iteration": self.iteration,
            "best": self.best,
            "config": json.dumps(self.config.to_dict()),
            "history": json.dumps(self.history),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        make_folder(self.folder)
        with atomic_path(self.folder / _STATE, overwrite=True) as temporary:
            torch.save(state, temporary)
        self._export(self.last_path)

    def resume(self) -> bool:
        """Take up the state in the folder, if there is one.

        All settings but the network may differ from the saved run's: a run can be prolonged, or its pairs drawn in
        another way. The best score counts only for the validation pairs it was measured on.

        Raises
        ------
        TrainingError
            If the state is damaged or of another network.
        """
        path = self.folder / _STATE
        if not path.exists():
            return False
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            saved = TrainingConfig.from_dict(json.loads(state["config"]))
        except Exception as error:  # pickle, zip and JSON each raise their own
            raise TrainingError(f"{path} is damaged: delete it to begin anew, or choose another folder.") from error
        if saved.network != self.config.network:
            raise TrainingError(f"{self.folder} holds a run of another network; choose another folder.")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        self.history = json.loads(state.get("history", "[]"))
        if saved != self.config:
            self.history.append({"iterations": self.iteration, "config": saved.to_dict()})
        if saved.simulation == self.config.simulation and saved.validation_pairs == self.config.validation_pairs:
            self.best = state["best"]  # elsewhere it was measured on other pairs
        return True

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to the log, with the time."""
        make_folder(self.folder)
        with (self.folder / _LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": round(time.time()), **entry}) + "\n")

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        config = self.config
        kind = int(np.random.default_rng([config.seed, 3, iteration]).integers(len(config.patch_px)))
        first = iteration * max(config.batch)
        return self.pairs.batch(first, config.batch[kind], config.patch_px[kind])

    def _step(self, blurred: Tensor, sharp: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.iteration)
        self.network.train()
        with self._autocast():
            restored = self.network(blurred)
        loss = _LOSSES[self.config.loss](restored.float(), sharp)
        self._check(loss, "loss")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self._check(norm, "gradient")
        self.optimizer.step()
        self._update_average()
        return float(loss.detach())

    def _check(self, value: Tensor, name: str) -> None:
        """Stops before the weights are touched."""
        if not torch.isfinite(value):
            raise TrainingError(
                f"The {name} is not finite at iteration {self.iteration}: go on with a lower learning rate."
            )

    def _export(self, path: Path) -> None:
        config = self.config
        make_folder(path.parent)
        recipe = {"iterations": self.iteration, "config": config.to_dict(), "history": self.history}
        described = ModelConfig(config.network, nucleus_diameter_px=config.simulation.nucleus_px, training=recipe)
        save_model(path, self.average, described)

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is self.network:
            return
        # young averages forget faster, so that they do not remember the random start
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        averages: list[Tensor] = list(self.average.parameters())
        weights: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def _learning_rate(self, iteration: int) -> float:
        config = self.config
        if iteration < config.warmup:
            return config.learning_rate * (iteration + 1) / config.warmup
        progress = (iteration - config.warmup) / max(1, config.iterations - config.warmup)
        swing = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * swing

    def _autocast(self) -> torch.autocast:
        enabled = pick_precision(self.config.precision, str(self.device)) == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def _validation_set(images: list[SharpImage], config: TrainingConfig) -> list[tuple[Tensor, Tensor]]:
    multiple = config.network.size_multiple
    side = max(multiple, _VALIDATION_SIDE_PX // multiple * multiple)
    # pairs that are sharp already have no PSNR to speak of
    pairs = DefocusPairs(images, replace(config.simulation, identity=0.0), seed=1_000_003)
    return [pairs.batch(number, 1, side) for number in range(config.validation_pairs)]
