"""`train`: a request in, events out; the one way to run a training, for the widget, the command line and Python.

A run lives in its folder: whatever ends it, the same request goes on from there, to the bit.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Literal

from napari_mpt_deblur.checkpoints import Model, find_model, load_model, read_header
from napari_mpt_deblur.checkpoints.shapes import parameter_count
from napari_mpt_deblur.errors import DivergedError, ParameterError, TrainingError
from napari_mpt_deblur.images import Normalization
from napari_mpt_deblur.images.atomic import remove_partial
from napari_mpt_deblur.networks.guard import free_memory
from napari_mpt_deblur.networks.host_memory import kept_memory
from napari_mpt_deblur.restoration import Deblurrer, Restored, pick_device
from napari_mpt_deblur.restoration.devices import pick_precision
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.estimate import estimate
from napari_mpt_deblur.training.events import Estimate, Event, Finished, Preview, Stage, Started
from napari_mpt_deblur.training.guard import no_runtime_errors
from napari_mpt_deblur.training.lock import check_sole, sole_run
from napari_mpt_deblur.training.logs import Log
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.opening import open_data
from napari_mpt_deblur.training.request import TrainingRequest
from napari_mpt_deblur.training.state import check_folder, check_start, forget_run, saved_iterations

_SAVE_EVERY_S = 120.0
Reason = Literal["done", "time", "stopped", "diverged"]
Run = Generator[Event, None, Finished]


def train(request: TrainingRequest, stop: threading.Event | None = None) -> Run:
    """Train as a request says, step by step.

    Parameters
    ----------
    request : TrainingRequest
    stop : threading.Event, optional
        Set it, from any thread, to end the run after the present step and keep what was learnt.

    Returns
    -------
    generator
        Yields `Stage` while it reads and measures, `Started` once, then a `Step` for each iteration and a `Preview`
        every so often; returns `Finished`. Not asking for the next event is a pause: nothing is computed, and the
        time budget does not run. Closing the generator saves the state, and nothing more.

    Raises
    ------
    DeblurError
        One of its kinds, and no RuntimeError. What makes no sense is refused before any time is spent; what was
        learnt before a failure is kept, and a `DivergedError` tells its figures.
    """
    return _guarded(_steps(request, stop or threading.Event()))


def check(request: TrainingRequest) -> None:
    """Find out without reading an image whether a request can be carried out.

    Raises
    ------
    DeblurError
        If the device or the base model is not there or does not fit, or the folder cannot take the checkpoints, or
        another run is on there.
    """
    pick_precision(request.config.precision, pick_device(request.device))
    network = request.config.network
    if request.base is not None:
        base = read_header(find_model(request.base)).config.network
        if base.in_channels != network.in_channels:
            raise TrainingError(
                f"The model {request.base} takes {base.in_channels} channels, the configuration's network "
                f"{network.in_channels}: choose a model of as many."
            )
        if base != network:
            raise TrainingError(f"The model {request.base} is another network than the configuration's.")
    if request.preview is not None and not request.preview.planes:
        raise ParameterError("The plane to preview is not in its image.")
    check_folder(request.folder, parameter_count(network))
    check_sole(request.folder)


class _Clock:
    """Seconds of work; stands still while nothing is asked for."""

    def __init__(self) -> None:
        self._worked, self._since = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._worked + time.monotonic() - self._since

    def pause(self) -> None:
        self._worked = self.seconds

    def go_on(self) -> None:
        self._since = time.monotonic()


def _steps(request: TrainingRequest, stop: threading.Event) -> Run:
    check(request)
    if request.tensorboard:
        Log.check_tensorboard()
    device = pick_device(request.device)
    start = None
    if request.base is not None:
        yield Stage(f"Reading the model {request.base}...")
        start = load_model(request.base, "cpu")
    if not request.restart:
        check_start(request.folder, None if start is None else (str(request.base), start.sha256))
    yield Stage("Reading the images...")
    data = open_data(request, request.config, start)
    yield Stage("Measuring the time of a step...")
    config, expected = _fitted(request, device)
    trainer = Trainer(config, request.folder, data, device, start)
    with sole_run(request.folder):
        remove_partial(request.folder)
        if request.restart or not trainer.resume():
            forget_run(request.folder)  # without a state, too: weights that lie there are another run's
        elif trainer.iteration:
            yield Stage(f"Going on at iteration {trainer.iteration}...")
        yield Stage("Measuring the figures to begin with...")
        before = trainer.begin()
        left_s = max(0.0, 1 - trainer.iteration / config.iterations) * expected.seconds
        expected = replace(expected, seconds=min(left_s, 60 * (request.minutes or math.inf)))
        yield Started(trainer.iteration, config.iterations, before, expected, data.notes, device, trainer.precision)
        with kept_memory():
            return (yield from _Drive(request, trainer, stop).run())


def _fitted(request: TrainingRequest, device: str) -> tuple[TrainingConfig, Estimate]:
    """The configuration, with as many iterations as the time is enough for where that is asked; and what it takes."""
    expected = estimate(request.config, device)
    config = request.config
    if not request.fill_minutes or request.minutes is None:
        return config, expected
    known = None if request.restart else saved_iterations(request.folder)
    fitting = int(60 * request.minutes / (expected.seconds / config.iterations))
    iterations = max(1, fitting) if known is None else known  # a run that is gone on with keeps its schedule
    config = replace(config, iterations=iterations, warmup=min(config.warmup, iterations // 10))
    return config, replace(expected, seconds=expected.seconds * iterations / request.config.iterations)


class _Drive:
    """The steps of one run, with all that goes along with them."""

    def __init__(self, request: TrainingRequest, trainer: Trainer, stop: threading.Event) -> None:
        self.request, self.trainer, self.stop = request, trainer, stop
        self.clock = _Clock()
        self.log = Log(request.folder, tensorboard=request.tensorboard, iteration=trainer.iteration)
        self._begun = False  # whether a step was taken: however short the time, there is one
        self._settled = False  # whether what was learnt is on disk
        self._normalization: Normalization | None = None  # of the image that is previewed

    def run(self) -> Run:
        try:
            yield from self._iterate()
            self._save()
            finished = self._finish(self._reason() or "time")
            yield from self._preview()
            return finished
        except DivergedError as error:
            self._save()
            if self.trainer.iteration:
                error.kept = self._finish("diverged")
            raise
        finally:
            # closed at a yield, or failed before weights were touched; a step that was torn in the middle is not saved
            try:
                if not self._settled and not self.trainer.torn:
                    self.trainer.save()
            finally:
                self.log.close()
                free_memory(str(self.trainer.device))

    def _iterate(self) -> Generator[Event, None, None]:
        trainer, clock, preview = self.trainer, self.clock, self.request.preview
        saved = previewed = 0.0
        if trainer.iteration == 0:
            self.log.begin(trainer.begin())
        yield from self._preview()
        steps = trainer.run()
        while self._reason() is None:
            self._settled = False  # a step that fails may go back behind what is on disk
            step = replace(next(steps), seconds=clock.seconds)
            self._begun = True
            self.log.add(step)
            yield from self._emit(step)
            if clock.seconds - saved > _SAVE_EVERY_S:
                self._save()
                saved = clock.seconds
            if preview is not None and clock.seconds - previewed > preview.every_s:
                yield from self._preview()
                previewed = clock.seconds

    def _emit(self, event: Event) -> Generator[Event, None, None]:
        self.clock.pause()
        yield event
        self.clock.go_on()

    def _save(self) -> None:
        self.trainer.save()
        self._settled = True

    def _reason(self) -> Reason | None:
        """Why the run is over; None where it is not."""
        minutes = self.request.minutes
        if self.trainer.iteration >= self.trainer.config.iterations:
            return "done"
        if self.stop.is_set():
            return "stopped"
        return "time" if self._begun and minutes is not None and self.clock.seconds > 60 * minutes else None

    def _finish(self, reason: Reason) -> Finished:
        """The figures of the weights that the run comes to, measured where they are not known."""
        trainer = self.trainer
        if trainer.last is None or trainer.last.iteration != trainer.iteration:
            trainer.measure()
            trainer.save()
        weights, after = trainer.best_path, trainer.best
        if after is None or not weights.exists():
            weights, after = trainer.last_path, trainer.last
        assert after is not None  # it was measured
        notes = trainer.data.notes
        return Finished(trainer.iteration, reason, weights, trainer.last_path, trainer.begin(), after, notes)

    def _preview(self) -> Generator[Event, None, None]:
        """The plane as the Deblurrer restores it with the weights so far; dropped where the run is told to stop."""
        wanted, trainer = self.request.preview, self.trainer
        if wanted is None:
            return
        model = Model("training", trainer.average.eval(), trainer.describe(), "", trainer.device)
        steps = Deblurrer(model, precision=trainer.precision).run(
            wanted.view, planes=wanted.planes, region=wanted.region, normalization=self._normalization, dtype="float32"
        )
        with closing(steps):
            while not self.stop.is_set():
                try:
                    next(steps)
                except StopIteration as end:
                    restored: Restored = end.value
                    self._normalization = Normalization.from_dict(restored.record["normalization"])
                    samples = wanted.view.axes.has_samples
                    plane = restored.array.reshape(1, *restored.array.shape[-2 - samples :])
                    yield from self._emit(Preview(trainer.iteration, plane))
                    return


def _guarded(steps: Run) -> Run:
    with no_runtime_errors():
        return (yield from steps)
