"""A Train controller with a real viewer model, a mock panel, and a training that goes on when the test says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
from napari.components import ViewerModel

from napari_mpt_deblur.checkpoints import ModelConfig, ModelInfo
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.training.events import Estimate, Finished, Losses, Preview, Scores, Started, Step
from napari_mpt_deblur.widgets.stages import Stage
from napari_mpt_deblur.widgets.train.controller import TrainController
from napari_mpt_deblur.widgets.train.job import (
    Before,
    Comparing,
    Paused,
    TrainMachinery,
    estimate_steps,
    survey_steps,
)
from napari_mpt_deblur.widgets.train.settings import TrainSettings
from napari_mpt_deblur.widgets.train.view import TrainView

from .conftest import FakeRunner

NETWORK = MPTConfig.tiny()
NUCLEI = ModelInfo("nuclei", Path("nuclei.safetensors"), True, ModelConfig(NETWORK))
MACHINERY = TrainMachinery(("cpu",), "cpu", (NUCLEI,))
ITERATIONS = 4


def scores(iteration, psnr):
    return Scores(iteration, psnr, 20.0, 0.8, 0.7)


@dataclass(frozen=True)
class Restored:
    array: np.ndarray
    record: dict


def restored(request, value):
    return Restored(np.full(request.whole_plane.shape, value, request.whole_plane.data.dtype), {"device": "cpu"})


def learn(request, *, gain_db=1.0, ends="done"):
    """The engine of these tests: four iterations, a preview in the first, a validation in the last."""
    control = request.control
    yield Stage("Looking at the images...")
    yield Started(0, ITERATIONS, scores(0, 24.0), Estimate(2.0, 8.0, 10**9), ("Nothing is sharp.",), "cpu", "float32")
    reason, done = ends, 0
    for iteration in range(1, ITERATIONS + 1):
        while control.is_paused and not control.stop.is_set():
            yield Paused()
        if control.stop.is_set():
            reason = "stopped"
            break
        last = iteration == ITERATIONS
        losses = Losses(0.1 / iteration, 0.1 / iteration, 0.5, 0.01, 0.1, 0.2)
        yield Step(iteration, losses, 1e-4, scores(iteration, 24.0 + gain_db) if last else None, 2.0 * iteration)
        done = iteration
        shape = request.preview_plane.shape
        yield Preview(iteration, np.full(shape[-2:] if len(shape) == 2 else (1, *shape[-2:]), 100.6 + iteration))
    yield Finished(
        done, reason, Path("best.safetensors"), Path("last.safetensors"), scores(0, 24.0), scores(done, 24.0 + gain_db)
    )
    yield Comparing(1, 4, "Restoring the plane after: tile 1 of 4")
    if request.base is not None:
        yield Before(restored(request, 7))
    return restored(request, 9)


class Runner(FakeRunner):
    """Keeps training runs and other jobs apart."""

    def __init__(self):
        super().__init__(survey_steps, MACHINERY)


class Bench:
    """Everything a controller test holds in its hands."""

    def __init__(self, steps=learn):
        self.viewer = ViewerModel()
        self.view = create_autospec(TrainView, instance=True)
        self.settings = TrainSettings(layer=None, base=NUCLEI, patch_px=NETWORK.size_multiple)
        self.view.settings.side_effect = lambda: self.settings
        self.view.show_layers.side_effect = self._show_layers
        self.runner = Runner()
        self.errors = []
        self.now = 0.0
        self.controller = TrainController(
            self.viewer, self.view, self.runner, self.errors.append, steps=steps, clock=lambda: self.now
        )

    def _show_layers(self, layers, chosen):
        self.settings = replace(self.settings, layer=chosen)

    def choose(self, **settings):
        self.settings = replace(self.settings, **settings)
        self.controller.choose_layer()

    def train(self):
        self.controller.train()
        return self.job

    @property
    def job(self):
        """The training run."""
        return [job for job in self.runner.jobs if job.name.startswith("Training")][-1]

    @property
    def estimates(self):
        return self.runner.of(estimate_steps)

    @property
    def state(self):
        return self.view.show_state.call_args.kwargs

    @property
    def controls(self):
        return self.view.show_controls.call_args.kwargs

    @property
    def progress(self):
        return self.view.show_progress.call_args.args

    @property
    def message(self):
        return self.view.show_message.call_args.args[0]

    def names(self):
        return [layer.name for layer in self.viewer.layers]
