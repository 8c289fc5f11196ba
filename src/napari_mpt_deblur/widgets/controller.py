"""What happens when: the panel's logic, with a viewer and a view it can be tested without."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari_mpt_deblur.widgets.job import Failure, Machinery, Stage, deblur_steps, failure, survey_steps
from napari_mpt_deblur.widgets.protocols import Job, Runner, View
from napari_mpt_deblur.widgets.reading import layer_axes, readings
from napari_mpt_deblur.widgets.request import DeblurRequest, make_request
from napari_mpt_deblur.widgets.result import result_layer
from napari_mpt_deblur.widgets.side_by_side import SideBySide
from napari_mpt_deblur.widgets.words import describe_seconds, summary

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_mpt_deblur.restoration import Progress, Restored

PREVIEW = "Deblur preview"


@dataclass(eq=False)
class _Run:
    """The run that is on."""

    request: DeblurRequest
    source: Image
    preview: bool
    job: Job | None = None
    tiles_began_s: float = 0.0
    last_words: str = ""


class DeblurController:
    """Turns clicks into runs and runs into layers.

    Parameters
    ----------
    viewer : ViewerModel
    view : View
    runner : Runner
    notify : callable
        Shows one error to the user.
    steps : callable
        The generator function of a run.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        view: View,
        runner: Runner,
        notify: Callable[[str], None],
        *,
        steps: Callable[[DeblurRequest], Generator[Any, None, Any]] = deblur_steps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._viewer, self._view, self._runner, self._notify = viewer, view, runner, notify
        self._steps, self._clock = steps, clock
        self._side_by_side = SideBySide(viewer)
        self._run: _Run | None = None
        self._survey: Job | None = None
        self._chosen: Image | None = None  # by the user, or for a run
        self._generation = 0  # of the run whose result is still wanted
        self._results: WeakKeyDictionary[Layer, list[ref[Layer]]] = WeakKeyDictionary()  # by source, the newest last
        self._preview: ref[Image] | None = None
        self._read: ref[Image] | None = None  # the layer whose axes the panel shows
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
        if self._survey is None:
            self._survey = self._runner(
                "Deblur: start the engine",
                survey_steps,
                yielded=lambda _: None,
                returned=self._on_surveyed,
                finished=self._on_survey_finished,
            )

    # -- what the user does ----------------------------------------------------------------------------------------

    def choose_layer(self) -> None:
        """Another layer was chosen in the panel; it stays chosen."""
        self._chosen = self._view.settings().layer
        self._show_layer()

    def _show_layer(self) -> None:
        self._show_axes()
        self._show_state()
        self._show_side_by_side()

    def deblur(self) -> None:
        """Restore what the scope says into a new layer."""
        self._start(preview=False)

    def preview(self) -> None:
        """Restore what is in view now into the preview layer."""
        self._start(preview=True)

    def cancel(self) -> None:
        """Stop within one tile and leave the viewer as it was."""
        if self._run is not None and self._is_wanted(self._run):
            self._abandon(self._run, "Cancelled.")

    def toggle_side_by_side(self, on: bool) -> None:
        """Show source and newest result beside each other, or put the view back."""
        source = self._view.settings().layer
        result = self._result_of(source)
        if on and source is not None and result is not None:
            self._side_by_side.show(source, result)
        else:
            self._side_by_side.restore()
        self._show_side_by_side()

    # -- a run -----------------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the engine is imported and the panel's lists are filled."""
        return self._ready

    @property
    def is_running(self) -> bool:
        """Whether a run is on, or one is still ending."""
        return self._run is not None

    def _start(self, *, preview: bool) -> None:
        if self._run is not None or self._closed:
            return
        settings = self._view.settings()
        try:
            request = make_request(self._viewer, settings, self._generation + 1, preview=preview)
        except Exception as error:  # whatever a layer of unknown making throws becomes one notification
            self._notify(failure(error).message)
            return
        assert settings.layer is not None  # make_request refuses that
        self._generation = request.generation
        self._chosen = settings.layer
        run = self._run = _Run(request, settings.layer, preview)
        self._view.show_progress(None, "Starting...")
        self._show_state()
        run.job = self._runner(
            f"{'Preview' if preview else 'Deblur'} of {request.source_name!r}",
            partial(self._steps, request),
            yielded=partial(self._on_yielded, run),
            returned=partial(self._on_returned, run),
            finished=partial(self._on_finished, run),
        )

    def _is_wanted(self, run: _Run) -> bool:
        return run.request.generation == self._generation and not self._closed

    def _abandon(self, run: _Run, last_words: str) -> None:
        """Want the run's result no more; it ends at its next yield."""
        self._generation += 1
        run.last_words = last_words
        if run.job is not None:
            run.job.quit()
        self._view.show_progress(None, "Stopping after this tile...")
        self._show_state()

    def _on_yielded(self, run: _Run, step: Stage | Progress) -> None:
        if not self._is_wanted(run):
            return
        if isinstance(step, Stage):
            self._view.show_progress(None, step.text)
            return
        if step.done == 0:
            run.tiles_began_s = self._clock()
            self._view.show_progress(None, "Measuring intensities...")
            return
        left_s = (self._clock() - run.tiles_began_s) / step.done * (step.total - step.done)
        text = f"Tile {step.done} of {step.total}, {describe_seconds(left_s)} left"
        self._view.show_progress(step.done / step.total, text)

    def _on_returned(self, run: _Run, outcome: Restored | Failure) -> None:
        if not self._is_wanted(run):
            return
        if isinstance(outcome, Failure):
            run.last_words = outcome.message
            self._notify(outcome.message)
            return
        try:
            self._add(run, outcome)
        except Exception as error:
            self._notify(failure(error).message)

    def _on_finished(self, run: _Run) -> None:
        if self._run is run:
            self._run = None
            if not self._closed:
                self._view.show_progress(None, "")
                self._view.show_message(run.last_words)
                self._show_state()

    def _add(self, run: _Run, restored: Restored) -> None:
        layers = self._viewer.layers
        name = PREVIEW if run.preview else f"{run.request.source_name} deblurred"
        result = result_layer(run.source, restored, run.request, name)
        side_by_side = self._side_by_side.is_on  # ends with the old preview, if that is shown
        self._drop_preview()
        self._results.setdefault(run.source, []).append(ref(result))
        if run.preview:
            self._preview = ref(result)
            layers.append(result)  # on top, where nothing covers it
        else:
            layers.insert(layers.index(run.source) + 1, result)
            layers.selection.active = result
        if side_by_side:
            self._side_by_side.show(run.source, result)
        run.last_words = summary(restored.record)
        self._show_side_by_side()

    def _drop_preview(self) -> None:
        preview = self._preview and self._preview()
        self._preview = None
        if preview is not None and preview in self._viewer.layers:
            self._viewer.layers.remove(preview)

    # -- what the viewer does --------------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        new = event.value
        self._on_layers(newest=new if new.visible else None)

    def _on_layers(self, event: Any = None, *, newest: Layer | None = None) -> None:
        from napari.layers import Image

        preview = self._preview and self._preview()
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image) and layer is not preview]
        if self._chosen not in images:
            self._chosen = None
        # what the user chose or used; else what was opened last; else what the panel shows; else the topmost visible
        topmost = sorted(reversed(images), key=lambda layer: not layer.visible)
        wishes = (self._chosen, newest, self._view.settings().layer, *topmost)
        chosen = next((layer for layer in wishes if layer in images), None)
        self._view.show_layers([(layer.name, layer) for layer in images], chosen)
        self._show_layer()

    def _on_removed(self, event: Any) -> None:
        removed = event.value
        if self._run is not None and removed is self._run.source and self._is_wanted(self._run):
            self._abandon(self._run, "Stopped: the image was removed.")
        if removed in self._side_by_side.layers:
            self._side_by_side.restore()
        self._on_layers()

    def _on_surveyed(self, outcome: Machinery | Failure) -> None:
        if self._closed:
            return
        if isinstance(outcome, Failure):
            self._notify(outcome.message)
        else:
            self._ready = True
            self._view.show_machinery(outcome)

    def _on_survey_finished(self) -> None:
        self._survey = None

    # -- what the panel shows --------------------------------------------------------------------------------------

    def _result_of(self, source: Layer | None) -> Layer | None:
        if source is None:
            return None
        results = (result() for result in reversed(self._results.get(source, [])))
        return next((result for result in results if result is not None and result in self._viewer.layers), None)

    def _show_state(self) -> None:
        running = self._run is not None
        self._view.show_state(
            running=running,
            cancelling=self._run is not None and not self._is_wanted(self._run),
            can_start=not running and self._view.settings().layer is not None,
        )

    def _show_side_by_side(self) -> None:
        on = self._side_by_side.is_on
        self._view.show_side_by_side(available=on or self._result_of(self._view.settings().layer) is not None, on=on)

    def _show_axes(self) -> None:
        layer = self._view.settings().layer
        keep = layer is not None and self._read is not None and self._read() is layer  # what the user chose for it
        self._read = ref(layer) if layer is not None else None
        if layer is None:
            self._view.show_axes("", (), keep=False)
            return
        try:
            automatic = layer_axes(layer).describe()
        except Exception:  # told when the user starts a run
            automatic = "not an image this can read"
        self._view.show_axes(automatic, [(axes.describe(), axes.text) for axes in readings(layer)], keep=keep)
