"""The training loop: resumable to the bit, a checkpoint every few minutes, the best and the last weights kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_mpt_deblur.checkpoints import Model, ModelConfig, save_model
from napari_mpt_deblur.errors import DivergedError, TrainingError
from napari_mpt_deblur.images.atomic import make_folder
from napari_mpt_deblur.networks.build import new_network
from napari_mpt_deblur.restoration.devices import pick_precision
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.contrastive import to_channels
from napari_mpt_deblur.training.data import TrainingData
from napari_mpt_deblur.training.events import Losses, Scores, Step
from napari_mpt_deblur.training.objective import Batch, draw_batch, objective
from napari_mpt_deblur.training.state import BEST, LAST, read_best, read_run, write_state
from napari_mpt_deblur.training.validation import measured_on, validate


class Trainer:
    """Trains a network; what it draws depends on the seed and the iteration alone.

    Parameters
    ----------
    config : TrainingConfig
    folder : Path
        Holds ``state.pt`` (all that resuming needs) and the weights.
    data : TrainingData
    device : str
    start : Model, optional
        Whose weights to begin with; by default random ones. Its hash and history go into the new model's header.

    Raises
    ------
    TrainingError
        If `start` is another network than the configuration's, or data that the method needs are missing.
    """

    def __init__(
        self, config: TrainingConfig, folder: Path, data: TrainingData, device: str = "cpu", start: Model | None = None
    ) -> None:
        contrast = config.contrast
        if (contrast.needs_unlabelled and data.unlabelled is None) or (
            contrast.needs_extra_pairs and data.extra is None
        ):
            raise TrainingError(f"The method {contrast.method} needs unlabelled images or extra pairs: there are none.")
        self.config, self.folder, self.data = config, Path(folder), data
        self.device, self.start = torch.device(device), start
        torch.manual_seed(config.seed)
        self.network = new_network(config.network)
        # what came before this configuration: the model started from, and stages that were resumed otherwise
        self.history: list[dict[str, Any]] = []
        if start is not None:
            if start.network.config != config.network:
                raise TrainingError("The model to start from is another network than the configuration's.")
            self.network.load_state_dict(start.network.state_dict())
            self.history.append(
                {"started_from": start.sha256, "name": start.name, "training": dict(start.config.training)}
            )
        self.network.to(self.device)
        self.average = copy.deepcopy(self.network) if config.ema else self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.iteration = 0
        self.torn = False  # whether a step was interrupted where weights, average and its number do not fit together
        self._good: dict[str, Any] | None = None  # what to go back to when the loss is no number any more
        self.before: Scores | None = None
        self.best: Scores | None = None
        self.last: Scores | None = None

    def run(self) -> Iterator[Step]:
        """Iterate to the end; stop consuming at any time and call `save`."""
        # pairs cost a few per cent of a step: a loader thread gains nothing and disturbs torch's threads
        self.begin()
        while self.iteration < self.config.iterations:
            losses = self.step()
            due = self.iteration == self.config.iterations or self.iteration % self.config.validate_every == 0
            scores = self.measure() if due else None
            yield Step(self.iteration, losses, self.config.learning_rate_at(self.iteration - 1), scores)

    def step(self) -> Losses:
        """One iteration, without validation.

        Raises
        ------
        DivergedError
            If the loss or its gradient is not finite. The weights that gave it are no good any more: the trainer goes
            back to those that were validated last, or to those that this run began with.
        """
        return self._step(self._batch(self.iteration))

    def begin(self) -> Scores:
        """The figures that the run begins with, measured where they are not known; raises as `validate`."""
        if self.before is None:
            self.before = self.validate()
        return self.before

    def measure(self) -> Scores:
        """Validate the averaged weights; the best so far go into their file.

        Raises
        ------
        DivergedError
            As `validate`.
        FileError
            If the file cannot be written; what was there before stays.
        """
        self.last = scores = self.validate()
        if self.best is None or scores.psnr > self.best.psnr:
            self._export(self.best_path)
            self.best = scores
        return scores

    def validate(self) -> Scores:
        """PSNR (dB) and SSIM of the averaged weights on the held-out pairs, and of the blurred ones.

        Raises
        ------
        DivergedError
            If what they compute is not finite; the trainer goes back as `step` has it.
        """
        return validate(self._forward_average, self.data.validation, self.config.network, self.iteration)

    @property
    def best_path(self) -> Path:
        """The averaged weights that validated best."""
        return self.folder / BEST

    @property
    def last_path(self) -> Path:
        """The averaged weights of the last `save`."""
        return self.folder / LAST

    @property
    def precision(self) -> str:
        """Of the network's passes."""
        # float16 would need its loss scaled
        picked = pick_precision(self.config.precision, str(self.device), self.config.network)
        return "bfloat16" if picked == "bfloat16" else "float32"

    def describe(self) -> ModelConfig:
        """What the weights are, for their file."""
        start = self.start.config if self.start else ModelConfig(self.config.network)
        measured = {"before": self.before, "after": self.last}
        recipe = {
            "iterations": self.iteration,
            "config": self.config.to_dict(),
            "data": self.data.record,
            "figures": {name: asdict(scores) for name, scores in measured.items() if scores is not None},
            "history": self.history,
        }
        known = self.data.nucleus_px or start.nucleus_diameter_px
        return ModelConfig(self.config.network, start.normalization, known, training=recipe)

    def save(self) -> None:
        """Write the state that `resume` reads and the last weights, each whole or not at all.

        Raises
        ------
        FileError
            If a file cannot be written; what was there before stays.
        """
        scores = {name: getattr(self, name) for name in ("before", "best", "last")}
        state = self._learnt() | {
            "scores": json.dumps({name: value and asdict(value) for name, value in scores.items()}),
            "config": json.dumps(self.config.to_dict()),
            "history": json.dumps(self.history),
            "pairs": self._pairs(),
        }
        write_state(self.folder, state)
        self._export(self.last_path)

    def resume(self) -> bool:
        """Take up the state in the folder, if there is one.

        All settings but the network may differ from the saved run's: a run can be prolonged, or its pairs drawn in
        another way. The scores count only for the validation pairs they were measured on.

        Raises
        ------
        TrainingError
            If the state is damaged or of another network.
        """
        saved = read_run(self.folder, self.device)
        if saved is None:
            return False
        config = saved.config
        if config.network != self.config.network:
            raise TrainingError(f"{self.folder} holds a run of another network; choose another folder.")
        self._take_up(saved.learnt)
        self.history = saved.history
        if config != self.config:
            self.history.append({"iterations": self.iteration, "config": config.to_dict()})
        known = [value for value in saved.scores.values() if value is not None]
        if self._validates_like(config, saved.pairs, known):
            for name, value in saved.scores.items():
                setattr(self, name, value)
            # of weights that were written after the state, by a process that was killed before the next
            written = read_best(self.folder)
            if written is not None and self._validates_like(written.config, written.pairs, [written.scores]):
                self.best = written.scores
        return True

    def _validates_like(self, config: TrainingConfig, pairs: str | None, scores: Sequence[Scores]) -> bool:
        """Whether figures of that run were measured on the pairs that are held out now."""
        names = ("network", "simulation", "validation_pairs", "patch_px")  # what is held out leaves room for a patch
        same_draw = all(getattr(config, name) == getattr(self.config, name) for name in names)
        same_names = pairs in (None, self._pairs())  # of what is trained on, of at most some images
        return same_draw and same_names and measured_on(scores, self.data.validation, self.config.network)

    def _pairs(self) -> str:
        return json.dumps(self.data.record.get("pairs"))

    def _batch(self, iteration: int) -> Batch:
        return draw_batch(self.data, self.config, iteration, self.device)

    def _step(self, batch: Batch) -> Losses:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.iteration)
        self.network.train()
        parts = objective(self._forward, batch, self.config.loss, self.config.contrast)
        self._check(parts.total, "The loss is not finite", batch.images)
        self.optimizer.zero_grad(set_to_none=True)
        parts.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self._check(norm, "The gradient is not finite", batch.images)
        if self._good is None or (self.last is not None and self.last.iteration == self.iteration):
            self._good = copy.deepcopy(self._learnt())
        self.torn = True
        self.optimizer.step()
        self._update_average()
        self.iteration += 1
        self.torn = False
        return parts.values()

    def _forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            restored: Tensor = self.network(images)
        return restored.float()

    @torch.no_grad()
    def _forward_average(self, images: Tensor) -> Tensor:
        self.average.eval()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            restored: Tensor = self.average(to_channels(images, self.config.network.in_channels).to(self.device))
        self._check(restored, "The network computes what is no number", (images,))
        return restored.float().cpu()

    def _check(self, value: Tensor, otherwise: str, images: Iterable[Tensor]) -> None:
        """Stops before the weights are touched, and goes back to good ones; says what is at fault."""
        if torch.isfinite(value).all():
            return
        at, has_stepped = self.iteration, self._good is not None
        self._go_back()
        if not all(torch.isfinite(each).all() for each in images):
            remedy = "the images hold what is no number there; leave those out"
        elif has_stepped:
            remedy = "go on with a lower learning rate"
        else:
            remedy = "the weights that it begins with are at fault, not the learning rate; begin anew from others"
        kept = f"; what was learnt until iteration {self.iteration} is kept" if self.iteration else ""
        since = kept if has_stepped else ", before its first step"
        raise DivergedError(f"{otherwise} at iteration {at}{since}: {remedy}.")

    def _learnt(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def _take_up(self, learnt: Mapping[str, Any]) -> None:
        self.network.load_state_dict(learnt["network"])
        if self.average is not self.network:
            self.average.load_state_dict(learnt["average"])
        self.optimizer.load_state_dict(learnt["optimizer"])
        for group in self.optimizer.param_groups:  # those that were saved are perhaps of another configuration
            group |= {"betas": self.config.betas, "weight_decay": self.config.weight_decay}
        self.iteration = learnt["iteration"]

    def _go_back(self) -> None:
        if self._good is not None:
            self._take_up(self._good)
            if self.last is not None and self.last.iteration != self.iteration:
                self.last = None  # of weights that are gone

    def _export(self, path: Path) -> None:
        make_folder(path.parent)
        save_model(path, self.average, self.describe())

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is self.network:
            return
        # young averages forget faster, so that they do not remember the random start
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        averages: list[Tensor] = list(self.average.parameters())
        weights: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
