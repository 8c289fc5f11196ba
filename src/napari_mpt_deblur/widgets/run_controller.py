"""The life of a run, alike in all panels: start, progress, cancel, stale results, and an end that is quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from napari_mpt_deblur.widgets.protocols import Job, Runner, RunView
from napari_mpt_deblur.widgets.stages import Failure, Stage, failure
from napari_mpt_deblur.words import describe_seconds

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

Steps = Callable[[Any], Generator[Any, None, Any]]
ViewT = TypeVar("ViewT", bound=RunView)


@dataclass(eq=False)
class Run:
    """The run that is on.

    Attributes
    ----------
    request : object
        What was asked for, with its `generation`.
    sources : tuple of Layer
        The run ends when one of them is removed.
    """

    request: Any
    sources: tuple[Layer, ...]
    job: Job | None = None
    steps_began_s: float = 0.0
    last_words: str = ""


class RunController(Generic[ViewT]):
    """Follows the viewer's layers and carries one run at a time; what a run is, its subclasses say.

    Parameters
    ----------
    viewer : ViewerModel
    view : RunView
    runner : Runner
    notify : callable
        Shows one error to the user.
    steps : callable
        The generator function of a run; it takes the request.
    clock : callable
        Seconds.
    """

    _name: ClassVar[str]
    _first_words: ClassVar[str]  # before the first step is done
    _ending_words: ClassVar[str] = "Stopping after this tile..."

    def __init__(
        self,
        viewer: ViewerModel,
        view: ViewT,
        runner: Runner,
        notify: Callable[[str], None],
        *,
        steps: Steps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._viewer, self._runner, self._notify = viewer, runner, notify
        self._view, self._steps, self._clock = view, steps, clock
        self._run: Run | None = None
        self._survey: Job | None = None
        self._survey_again = False  # it was asked for while one was on
        self._generation = 0  # of the run whose result is still wanted
        self._ready = False
        self._closed = True  # until it is opened

    # -- life ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin: follow the viewer's layers, and import the engine in the background."""
        if not self._closed:
            return
        self._closed = False
        events = self._viewer.layers.events
        events.inserted.connect(self._on_inserted)
        events.removed.connect(self._on_removed)
        events.reordered.connect(self._on_layers)
        events.renamed.connect(self._on_layers)
        self._on_layers()
        self.survey()

    def leave(self) -> None:
        """The panel is closed, not the viewer: leave that as it was, and end."""
        self.close()

    def close(self) -> None:
        """End quietly: drop what is running and follow the viewer no more."""
        if self._closed:
            return
        self._closed = True
        self._generation += 1
        for job in (self._survey, self._run.job if self._run is not None else None):
            if job is not None:
                job.quit()
        self._survey = None
        events = self._viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removed.disconnect(self._on_removed)
        events.reordered.disconnect(self._on_layers)
        events.renamed.disconnect(self._on_layers)

    def survey(self) -> None:
        """Look for devices and models in the background; shown when found."""
        self._survey_again = self._survey is not None
        if self._survey is None:
            self._survey = self._runner(
                f"{self._name}: start the engine",
                self._survey_steps(),
                yielded=lambda _: None,
                returned=self._on_surveyed,
                finished=self._on_survey_finished,
            )

    def cancel(self) -> None:
        """Stop within one tile and leave the viewer as it was."""
        if self._run is not None and self._is_wanted(self._run):
            self._abandon(self._run, "Cancelled.")

    @property
    def is_ready(self) -> bool:
        """Whether the engine is imported and the panel's lists are filled."""
        return self._ready

    @property
    def is_running(self) -> bool:
        """Whether a run is on, or one is still ending."""
        return self._run is not None

    # -- what a panel's own controller says --------------------------------------------------------------------------

    def _survey_steps(self) -> Callable[[], Generator[Any, None, Any]]:
        raise NotImplementedError

    def _can_start(self) -> bool:
        raise NotImplementedError

    def _failure(self, error: Exception) -> Failure:
        """What the user is told of an error."""
        return failure(error)

    def _describe_start(self, step: Any) -> str:
        """What is being done before the first step is done."""
        return self._first_words

    def _describe_step(self, step: Any) -> str:
        """How far it is, without the time."""
        raise NotImplementedError

    def _add(self, run: Run, outcome: Any) -> None:
        """Put the outcome into the viewer, and set the run's last words."""
        raise NotImplementedError

    def _on_layers(self, event: Any = None, *, newest: Layer | None = None) -> None:
        """Fill the lists of layers."""
        raise NotImplementedError

    def _on_gone(self, layer: Layer) -> None:
        """A layer was removed; the lists are filled afterwards."""

    # -- a run -----------------------------------------------------------------------------------------------------

    def _begin(self, run: Run, name: str) -> None:
        self._generation = run.request.generation
        self._run = run
        self._view.show_progress(None, "Starting...")
        self._show_state()
        run.job = self._runner(
            name,
            partial(self._steps, run.request),
            yielded=partial(self._on_yielded, run),
            returned=partial(self._on_returned, run),
            finished=partial(self._on_finished, run),
        )

    def _tell(self, error: Exception) -> str:
        """Whatever a layer of unknown making throws becomes one notification; its text, for the panel to show."""
        message = self._failure(error).message
        self._notify(message)
        return message

    def _is_wanted(self, run: Run) -> bool:
        return run.request.generation == self._generation and not self._closed

    def _abandon(self, run: Run, last_words: str) -> None:
        """Want the run's result no more; it ends at its next yield."""
        self._generation += 1
        run.last_words = last_words
        if run.job is not None:
            run.job.quit()
        self._view.show_progress(None, self._ending_words)
        self._show_state()

    def _on_yielded(self, run: Run, step: Any) -> None:
        if not self._is_wanted(run):
            return
        if isinstance(step, Stage):
            self._view.show_progress(None, step.text)
            return
        if step.done == 0:
            run.steps_began_s = self._clock()
            # not as busy: that animation has the whole window drawn anew, thirty times a second
            self._view.show_progress(0.0, self._describe_start(step))
            return
        left_s = (self._clock() - run.steps_began_s) / step.done * (step.total - step.done)
        text = f"{self._describe_step(step)}, {describe_seconds(left_s)} left"
        self._view.show_progress(step.done / step.total, text)

    def _on_returned(self, run: Run, outcome: Any) -> None:
        if not self._is_wanted(run):
            return
        if isinstance(outcome, Failure):
            run.last_words = outcome.message
            self._notify(outcome.message)
            return
        try:
            self._add(run, outcome)
        except Exception as error:
            run.last_words = self._tell(error)

    def _on_finished(self, run: Run) -> None:
        if self._run is run:
            self._run = None
            if not self._closed:
                self._view.show_progress(None, "")
                self._view.show_message(run.last_words)
                self._show_state()

    # -- what the viewer does --------------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        new = event.value
        self._on_layers(newest=new if new.visible else None)

    def _on_removed(self, event: Any) -> None:
        removed = event.value
        if self._run is not None and removed in self._run.sources and self._is_wanted(self._run):
            self._abandon(self._run, "Stopped: the image was removed.")
        self._on_gone(removed)
        self._on_layers()

    def _on_surveyed(self, outcome: Any) -> None:
        if self._closed:
            return
        if isinstance(outcome, Failure):
            self._notify(outcome.message)
        else:
            self._ready = True
            self._view.show_machinery(outcome)

    def _on_survey_finished(self) -> None:
        self._survey = None
        if self._survey_again and not self._closed:
            self.survey()

    def _show_state(self) -> None:
        running = self._run is not None
        self._view.show_state(
            running=running,
            cancelling=self._run is not None and not self._is_wanted(self._run),
            can_start=not running and self._can_start(),
        )
