"""A controller with a real viewer model, a spec'd mock panel and an engine that runs when the test says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from unittest.mock import create_autospec

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mpt_deblur.widgets import model_news
from napari_mpt_deblur.widgets.deblur.controller import DeblurController
from napari_mpt_deblur.widgets.deblur.job import Machinery, estimate_steps, import_steps, survey_steps
from napari_mpt_deblur.widgets.deblur.panel import DeblurWidget
from napari_mpt_deblur.widgets.deblur.request import Settings
from napari_mpt_deblur.widgets.deblur.view import DeblurView
from napari_mpt_deblur.widgets.stages import Stage


@dataclass(frozen=True)
class Progress:
    done: int
    total: int
    plane: object = None
    measuring: bool = False


@dataclass(frozen=True)
class Restored:
    array: np.ndarray
    record: dict


class FakeJob:
    """A job that goes one yield further when told to, like napari's worker: `quit` takes effect at a yield."""

    def __init__(self, name, steps, *, yielded, returned, finished):
        self.name, self.steps, self.generator = name, steps, steps()
        self.yielded, self.returned, self.finished = yielded, returned, finished
        self.asked_to_quit = self.is_done = False

    def quit(self):
        self.asked_to_quit = True

    def step(self):
        if self.is_done:
            return
        try:
            if self.asked_to_quit:
                raise StopIteration
            self.yielded(next(self.generator))
        except StopIteration as stop:
            self.is_done = True
            if not self.asked_to_quit:
                self.returned(stop.value)
            self.finished()

    def run(self):
        while not self.is_done:
            self.step()


MACHINERY = Machinery({"auto": ("float32",), "cpu": ("float32",)}, "cpu", ())


class FakeRunner:
    """Keeps the runs; the survey of devices and models is answered at once."""

    def __init__(self, survey=survey_steps, machinery=MACHINERY):
        self.jobs = []
        self.surveys = 0
        self.survey, self.machinery = survey, machinery

    def __call__(self, name, steps, **callbacks):
        if steps is self.survey:
            self.surveys += 1
            callbacks["returned"](self.machinery)
            callbacks["finished"]()
            return FakeJob(name, lambda: iter(()), **callbacks)
        self.jobs.append(FakeJob(name, steps, **callbacks))
        return self.jobs[-1]

    def of(self, func):
        """The jobs that carry this generator function out."""
        return [job for job in self.jobs if getattr(job.steps, "func", None) is func]


def answer(job, outlook):
    """Let an estimate bring this."""
    job.is_done = True
    if not job.asked_to_quit:
        job.returned(outlook)
    job.finished()


def invert(request):
    """The engine of these tests: three tiles, and a result that is minus the input."""
    yield Stage("Reading the model...")
    yield Progress(0, 3, measuring=True)
    for done in (0, 1, 2, 3):
        yield Progress(done, 3)
    data = np.asarray(request.data)
    if request.plane_index is not None:
        data = data[tuple(slice(i, i + 1) for i in request.plane_index)]
    if request.region_px is not None:
        y0, x0, y1, x1 = request.region_px
        rows = (..., slice(y0, y1), slice(x0, x1))
        data = data[(*rows, slice(None)) if request.axes.has_samples else rows]
    record = {"device": "cpu", "precision": "float32", "notes": ["Smaller tiles."], "seconds": 1.25}
    return Restored(-data, record | {"model": {"name": "nuclei", "sha256": "0a1b2c3d" + 56 * "0"}})


class Bench:
    """Everything a controller test holds in its hands."""

    def __init__(self, steps=invert):
        self.viewer = ViewerModel()
        self.view = create_autospec(DeblurView, instance=True)
        self.settings = Settings(layer=None, model="nuclei")
        self.view.settings.side_effect = lambda: self.settings
        self.view.show_layers.side_effect = self._show_layers
        self.runner = FakeRunner()
        self.errors = []
        self.now = 0.0
        self.controller = DeblurController(
            self.viewer, self.view, self.runner, self.errors.append, steps=steps, clock=lambda: self.now
        )

    def _show_layers(self, layers, chosen):
        self.settings = replace(self.settings, layer=chosen)

    def choose(self, **settings):
        self.settings = replace(self.settings, **settings)
        self.controller.choose_layer()

    @property
    def runs(self):
        return [job for job in self.runner.jobs if job not in (*self.estimates, *self.runner.of(import_steps))]

    @property
    def job(self):
        return self.runs[-1]

    @property
    def estimates(self):
        return self.runner.of(estimate_steps)

    @property
    def state(self):
        return self.view.show_state.call_args.kwargs

    def names(self):
        return [layer.name for layer in self.viewer.layers]


class Listener:
    """Counts how often it hears of new models."""

    def __init__(self):
        self.heard = 0
        model_news.listen(self.hear)

    def hear(self):
        self.heard += 1


@pytest.fixture
def bench():
    bench = Bench()
    bench.controller.open()
    yield bench
    bench.controller.close()


@pytest.fixture
def make_bench():
    return Bench


assert all(hasattr(DeblurWidget, name) for name in DeblurView.__dict__ if name.startswith(("show_", "settings")))
