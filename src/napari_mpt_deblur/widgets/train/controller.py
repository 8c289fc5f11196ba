"""What happens when: the Train panel's logic, with a viewer and a view it can be tested without."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari_mpt_deblur.training.events import Finished, Preview, Started, Step
from napari_mpt_deblur.widgets.estimator import Estimator
from napari_mpt_deblur.widgets.image_controller import ImageController
from napari_mpt_deblur.widgets.protocols import Runner
from napari_mpt_deblur.widgets.run_controller import Run
from napari_mpt_deblur.widgets.saver import Saver
from napari_mpt_deblur.widgets.stages import Failure, Stage
from napari_mpt_deblur.widgets.train.curves import Curves
from napari_mpt_deblur.widgets.train.job import (
    Before,
    Comparing,
    Paused,
    estimate_steps,
    save_steps,
    survey_steps,
    train_steps,
    training_failure,
)
from napari_mpt_deblur.widgets.train.request import TrainRequest, make_train_request
from napari_mpt_deblur.widgets.train.result import (
    Estimates,
    compared_layer,
    describe_end,
    describe_finish,
    describe_start,
    preview_layer,
    preview_pixels,
)
from napari_mpt_deblur.widgets.train.run import TrainRun
from napari_mpt_deblur.widgets.train.view import TrainView

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mpt_deblur.restoration import Restored

_REDRAW_S = 0.3  # between two pictures of the curves
_STOPPING = "Stopping after this step..."


class TrainController(ImageController[TrainView]):
    """Turns clicks into training runs, and runs into curves, layers and models.

    Parameters
    ----------
    viewer : ViewerModel
    view : TrainView
    runner : Runner
    notify : callable
        Shows one error to the user.
    steps : callable
        The generator function of a run.
    clock : callable
        Seconds.
    """

    _name = "Train"
    _ending_words = _STOPPING

    def __init__(
        self,
        viewer: ViewerModel,
        view: TrainView,
        runner: Runner,
        notify: Callable[[str], None],
        *,
        steps: Callable[[TrainRequest], Generator[Any, None, Any]] = train_steps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(viewer, view, runner, notify, steps=steps, clock=clock)
        self._finished: Finished | None = None  # the newest run that can be saved
        self._suggested_name = ""  # for it
        self._saver = Saver(runner, notify, self._show_message)
        self._estimator = Estimator("Train", runner, estimate_steps, Estimates(view, self._ask))
        self._compared: WeakKeyDictionary[Layer, tuple[ref[Layer], ref[Layer]]] = WeakKeyDictionary()  # by source

    def leave(self) -> None:
        """The panel is closed: its preview goes, too."""
        self._drop_preview()
        super().leave()

    def close(self) -> None:
        """End quietly; a run's state is saved, to be gone on with."""
        self._estimator.drop()
        super().close()

    # -- what the user does ----------------------------------------------------------------------------------------

    def train(self) -> None:
        """Start what the panel says."""
        if self._run is not None or self._closed:
            return
        settings = self._view.settings()
        try:
            request = self._ask()
        except Exception as error:
            self._tell(error)
            return
        assert settings.layer is not None  # make_train_request refuses that
        self._estimator.drop()
        self._chosen = settings.layer
        self._drop_preview()
        self._begin(TrainRun(request, (settings.layer,)), f"Training for {settings.layer.name!r}")

    def toggle_pause(self) -> None:
        """Pause after this step, or go on."""
        run = self._run
        if not isinstance(run, TrainRun) or not self._is_wanted(run) or not run.is_training:
            return
        if run.control.is_paused:
            run.control.resume()
            self._view.show_progress(run.fraction, run.describe())
        else:
            run.control.pause()
            self._view.show_progress(run.fraction, "Pausing after this step...")
        self._show_state()

    def stop(self) -> None:
        """Stop after this step and keep what was learnt; before the first step, and after the last, just stop."""
        run = self._run
        if not isinstance(run, TrainRun) or not self._is_wanted(run):
            return
        if run.finished is not None:
            self._abandon(run, run.last_words)
        elif run.started is None:
            self._abandon(run, "Stopped before training began.")
        elif not run.is_stopping:
            run.control.stop.set()
            self._view.show_progress(run.fraction, _STOPPING)
            self._show_state()

    @property
    def suggested_name(self) -> str:
        """For the newest trained model."""
        return self._suggested_name

    def save(self, name: str) -> None:
        """Put the newest trained model into the library, under a name."""
        if self._finished is not None:
            steps = partial(save_steps, self._finished.weights, name)
            self._saver.save(f"Save the model {name!r}", steps, f"Saved as {name!r}; the Deblur panel lists it now.")

    @property
    def is_estimating(self) -> bool:
        """Whether the estimate that is shown is being made."""
        return self._estimator.is_on

    def estimate(self) -> None:
        """The settings have changed: estimate what a run would take."""
        if not self._closed and self._ready and self._run is None:
            self._estimator.refresh()

    def _ask(self) -> TrainRequest:
        return make_train_request(self._viewer, self._view.settings(), self._generation + 1)

    # -- a run -----------------------------------------------------------------------------------------------------

    def _survey_steps(self) -> Callable[[], Generator[Any, None, Any]]:
        return survey_steps

    def _failure(self, error: Exception) -> Failure:
        return training_failure(error)

    def _on_yielded(self, run: Run, step: Any) -> None:
        assert isinstance(run, TrainRun)
        if not self._is_wanted(run):
            return
        show = self._view.show_progress
        match step:
            case Stage():
                show(run.fraction, step.text)
            case Started():
                run.started, run.curves = step, Curves.of(step)
                self._finished = None  # the folder that its weights lie in may be this run's now
                self._view.show_curves(run.curves)
                self._view.show_report(describe_start(step), warning="")
                show(run.fraction, run.describe())
                self._show_state()
            case Step():
                run.step = step
                run.curves.add(step)
                if not run.is_stopping and not run.control.is_paused:
                    show(run.fraction, run.describe())
                if step.validation is not None or self._clock() - run.drawn_s >= _REDRAW_S:
                    self._draw(run)
            case Preview():
                self._show_preview(run, step)
            case Paused():
                if run.control.is_paused:
                    show(run.fraction, "Paused.")
            case Comparing():
                show(step.done / max(1, step.total), step.text)
            case Finished():
                self._on_learnt(run, step)
            case Before():
                run.before = self._insert(run, step.restored, "before")

    def _on_learnt(self, run: TrainRun, finished: Finished) -> None:
        """Training is over; the comparison follows."""
        self._drop_preview()
        run.finished = self._finished = finished
        self._suggested_name = f"{run.request.base or 'scratch'}-{run.request.slug}"
        self._draw(run)
        text, warning = describe_finish(finished)
        self._view.show_report(text, warning=warning)
        run.last_words = describe_end(finished)
        self._show_state()

    def _add(self, run: Run, outcome: Restored) -> None:
        assert isinstance(run, TrainRun)
        (source,), after = run.sources, self._insert(run, outcome, "after")
        if after is None:
            return
        before = run.before if run.before in self._viewer.layers else source
        self._compared[source] = ref(before), ref(after)
        self._viewer.layers.selection.active = after
        self._show_side_by_side()

    def _insert(self, run: TrainRun, restored: Restored, when: str) -> Layer | None:
        """A layer above the source and what is there of this run already, one in a turn of the event loop."""
        (source,), layers = run.sources, self._viewer.layers
        if source not in layers:
            return None
        layer = compared_layer(source, restored, run.request, when)
        layers.insert(layers.index(run.before if run.before in layers else source) + 1, layer)
        return layer

    def _on_finished(self, run: Run) -> None:
        if self._run is run and not self._closed:
            self._drop_preview()
        super()._on_finished(run)
        self.estimate()

    def _show_message(self, text: str) -> None:
        if not self._closed:
            self._view.show_message(text)

    def _draw(self, run: TrainRun) -> None:
        run.drawn_s = self._clock()
        self._view.show_curves(run.curves)

    def _show_preview(self, run: TrainRun, preview: Preview) -> None:
        (source,), layer = run.sources, self._preview_layer()
        if layer is not None:
            layer.data = preview_pixels(preview, run.request)
        elif not run.previewed and source in self._viewer.layers:
            run.previewed = True
            layer = preview_layer(source, preview, run.request)
            self._preview = ref(layer)
            self._viewer.layers.append(layer)  # on top, where nothing covers it

    # -- what other jobs bring ---------------------------------------------------------------------------------------

    def _on_surveyed(self, outcome: Any) -> None:
        super()._on_surveyed(outcome)
        self.estimate()

    # -- what the viewer does --------------------------------------------------------------------------------------

    def _on_removed(self, event: Any) -> None:
        run = self._run
        if run is not None and event.value in run.sources:
            self.stop()  # what was learnt is kept
        self._on_gone(event.value)
        self._on_layers()

    # -- what the panel shows --------------------------------------------------------------------------------------

    def _pair(self) -> tuple[Layer, Layer] | None:
        source = self._view.settings().layer
        pair = self._compared.get(source) if source is not None else None
        layers = [layer() for layer in pair or ()]
        left, right = layers if pair else (None, None)
        if left is None or right is None or left not in self._viewer.layers or right not in self._viewer.layers:
            return None
        return left, right

    def _show_layer(self) -> None:
        super()._show_layer()
        self.estimate()

    def _show_state(self) -> None:
        super()._show_state()
        run = self._run if isinstance(self._run, TrainRun) and self._is_wanted(self._run) else None
        self._view.show_controls(
            can_pause=run is not None and run.is_training,
            paused=run is not None and run.control.is_paused,
            can_stop=run is not None and (run.is_training or run.started is None or run.finished is not None),
            can_save=self._finished is not None and (run is None or run.finished is not None),
        )
