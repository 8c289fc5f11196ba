"""Training as a generator that any runner can drive: it yields at every step, never raises and knows no Qt."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mpt_deblur.errors import DivergedError
from napari_mpt_deblur.training import events
from napari_mpt_deblur.training.events import Estimate, Finished, Preview, Started, Step
from napari_mpt_deblur.widgets.deblur.job import deblur_steps
from napari_mpt_deblur.widgets.deblur.request import DeblurRequest
from napari_mpt_deblur.widgets.estimator import quiet_steps
from napari_mpt_deblur.widgets.stages import Failure, Stage, failure
from napari_mpt_deblur.widgets.train.folder import EarlierRun, earlier_run, run_folder
from napari_mpt_deblur.widgets.train.request import Control, TrainRequest

if TYPE_CHECKING:
    from napari_mpt_deblur.checkpoints import ModelInfo
    from napari_mpt_deblur.restoration import Restored

_LOOK_S = 0.05  # between two looks at whether to go on

training_failure = partial(
    failure, doing="Training", less="choose a smaller patch or batch", otherwise="with a smaller patch or on the CPU"
)


@dataclass(frozen=True)
class Paused:
    """Nothing is done until the user says so."""


@dataclass(frozen=True)
class Comparing:
    """How far the restoration before and after is.

    Attributes
    ----------
    done, total : int
        Tiles of one of the two.
    text : str
    """

    done: int
    total: int
    text: str


@dataclass(frozen=True, eq=False)
class Before:
    """The current plane as the base model restores it.

    Attributes
    ----------
    restored : Restored
    """

    restored: Restored


@dataclass(frozen=True)
class Outlook:
    """What a run will take, and whether there is one to go on with.

    Attributes
    ----------
    estimate : Estimate
    earlier : EarlierRun or None
    """

    estimate: Estimate
    earlier: EarlierRun | None


@dataclass(frozen=True)
class TrainMachinery:
    """What this computer and this installation offer.

    Attributes
    ----------
    devices : tuple of str
    default_device : str
        What "auto" stands for.
    models : tuple of ModelInfo
        Broken ones are among them and say why.
    """

    devices: tuple[str, ...]
    default_device: str
    models: tuple[ModelInfo, ...]


TrainEvent = Stage | Started | Step | Preview | Paused | Finished | Comparing | Before


def train_steps(request: TrainRequest) -> Generator[TrainEvent, None, Restored | Failure]:
    """Train as a request asks, and restore its plane before and after.

    Parameters
    ----------
    request : TrainRequest

    Yields
    ------
    TrainEvent
        `Finished` among them, after which what was learnt can be used. Closing the generator at a yield saves the run's
        state, to be gone on with.

    Returns
    -------
    Restored or Failure
        The current plane as the trained model restores it. No exception leaves this.
    """
    try:
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.training.session import train

        yield Stage("Looking at the images...")
        steps = train(request.resolve(run_folder(request)), request.control.stop)
        try:
            finished = yield from _controlled(steps, request)
        except DivergedError as error:
            if not isinstance(error.kept, Finished):
                raise
            finished = error.kept  # it can be used
        yield finished
        if request.base is not None:
            before = yield from _restore(request.whole_plane, "before")
            if isinstance(before, Failure):
                return before
            yield Before(before)
        return (yield from _restore(replace(request.whole_plane, model=str(finished.weights)), "after"))
    except Exception as error:
        return training_failure(error)


def estimate_steps(request: TrainRequest) -> Generator[Stage, None, Outlook | Failure]:
    """Estimate what a run will take, unless the settings change again within a moment.

    Parameters
    ----------
    request : TrainRequest

    Yields
    ------
    Stage
        Where it can be cancelled.

    Returns
    -------
    Outlook or Failure
    """
    try:
        yield from quiet_steps()
        from napari_mpt_deblur.training.estimate import estimate

        yield Stage("Estimating...")
        earlier = earlier_run(run_folder(request))
        yield Stage("Estimating...")
        return Outlook(estimate(request.config, device=request.device), earlier)
    except Exception as error:
        return training_failure(error)


def save_steps(weights: Path, name: str) -> Generator[Stage, None, Path | Failure]:
    """Put a trained model into the library.

    Parameters
    ----------
    weights : Path
    name : str

    Yields
    ------
    Stage

    Returns
    -------
    Path or Failure
        Of the model, beside which its card lies.
    """
    try:
        yield Stage(f"Saving the model {name!r}...")
        from napari_mpt_deblur.training.publish import publish

        return publish(weights, name)
    except Exception as error:
        return training_failure(error)


def survey_steps() -> Generator[Stage, None, TrainMachinery | Failure]:
    """Find out which devices and models there are; imports torch, which takes seconds the first time.

    Yields
    ------
    Stage

    Returns
    -------
    TrainMachinery or Failure
    """
    try:
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.checkpoints import available_models

        models = tuple(available_models())
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.restoration import available_devices, pick_device

        devices, default = tuple(available_devices()), pick_device("auto")
        yield Stage("Starting the engine...")
        import napari_mpt_deblur.training.session  # noqa: F401  else the first run would wait for it

        return TrainMachinery(devices, default, models)
    except Exception as error:
        return training_failure(error)


def _controlled(
    steps: Generator[events.Event, None, Finished], request: TrainRequest
) -> Generator[TrainEvent, None, Finished]:
    """The engine's events, and pauses between them; the engine ends when this does."""
    control: Control = request.control
    try:
        while True:
            while control.is_paused and not control.stop.is_set():
                yield Paused()
                control.wait(_LOOK_S)
            try:
                event = next(steps)
            except StopIteration as end:
                finished: Finished = end.value
                return finished
            yield Stage(event.text) if isinstance(event, events.Stage) else event
    finally:
        steps.close()


def _restore(plane: DeblurRequest, when: str) -> Generator[Comparing, None, Restored | Failure]:
    steps = deblur_steps(plane)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            restored: Restored | Failure = end.value
            return restored
        if not isinstance(event, Stage):
            yield Comparing(event.done, event.total, f"Restoring the plane {when}: tile {event.done} of {event.total}")
