"""How far a training run is, as its events tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_mpt_deblur.training.events import Finished, Started, Step
from napari_mpt_deblur.widgets.run_controller import Run
from napari_mpt_deblur.widgets.train.curves import Curves
from napari_mpt_deblur.widgets.train.request import Control
from napari_mpt_deblur.words import describe_seconds

if TYPE_CHECKING:
    from napari.layers import Layer


@dataclass(eq=False)
class TrainRun(Run):
    """A training run that is on.

    Attributes
    ----------
    curves : Curves
    started, finished : event or None
        None before it was told.
    step : Step or None
        The newest.
    drawn_s : float
        When the curves were drawn last.
    before : Layer or None
        The plane as the base model restores it.
    previewed : bool
        Whether there was a preview; one that the user removed does not come back.
    """

    curves: Curves = field(default_factory=Curves)
    started: Started | None = None
    finished: Finished | None = None
    step: Step | None = None
    drawn_s: float = 0.0
    before: Layer | None = None
    previewed: bool = False

    @property
    def control(self) -> Control:
        control: Control = self.request.control
        return control

    @property
    def is_stopping(self) -> bool:
        """Whether the user wants it to end with what was learnt."""
        return self.control.stop.is_set()

    @property
    def is_training(self) -> bool:
        """Whether steps are to be expected."""
        return self.started is not None and self.finished is None and not self.is_stopping

    @property
    def fraction(self) -> float | None:
        """Of the iterations; None before they begin."""
        if self.started is None:
            return None
        return (self.step or self.started).iteration / self.started.iterations

    def describe(self) -> str:
        """Iteration and time left."""
        step, started = self.step, self.started
        if started is None:
            return ""
        if step is None:
            return f"Training, {describe_seconds(started.estimate.seconds)} left"
        left_s = step.seconds / max(1, step.iteration - started.iteration) * (started.iterations - step.iteration)
        if self.request.minutes is not None:
            left_s = min(left_s, max(0.0, 60 * self.request.minutes - step.seconds))
        return f"Iteration {step.iteration} of {started.iterations}, {describe_seconds(left_s)} left"
