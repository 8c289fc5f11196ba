"""What happens when: the Deblur panel's logic, with a viewer and a view it can be tested without."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari_mpt_deblur.widgets.deblur.job import Outlook, deblur_steps, estimate_steps, import_steps, survey_steps
from napari_mpt_deblur.widgets.deblur.request import DeblurRequest, ImportRequest, make_request
from napari_mpt_deblur.widgets.deblur.view import DeblurView
from napari_mpt_deblur.widgets.estimator import Estimator
from napari_mpt_deblur.widgets.image_controller import ImageController
from napari_mpt_deblur.widgets.protocols import Runner
from napari_mpt_deblur.widgets.result import result_layer
from napari_mpt_deblur.widgets.run_controller import Run
from napari_mpt_deblur.widgets.saver import Saver
from napari_mpt_deblur.widgets.words import summary

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mpt_deblur.restoration import Progress, Restored

PREVIEW = "Deblur preview"


@dataclass(eq=False)
class _Run(Run):
    """A run on one layer."""

    preview: bool = False


@dataclass(frozen=True)
class _Estimates:
    """What the panel shows of estimates."""

    view: DeblurView
    ask: Callable[[], DeblurRequest]

    def show_waiting(self, text: str) -> None:
        self.view.show_outlook(text)

    def show_estimate(self, _request: DeblurRequest, outlook: Outlook) -> None:
        self.view.show_outlook(f"Takes {outlook.text}.")

    def describe_error(self, _error: Exception) -> str:
        return ""  # told when the user starts


class DeblurController(ImageController[DeblurView]):
    """Turns clicks into runs and runs into layers.

    Parameters
    ----------
    viewer : ViewerModel
    view : DeblurView
    runner : Runner
    notify : callable
        Shows one error to the user.
    steps : callable
        The generator function of a run.
    clock : callable
        Seconds.
    """

    _name = "Deblur"
    _first_words = "Measuring intensities..."

    def __init__(
        self,
        viewer: ViewerModel,
        view: DeblurView,
        runner: Runner,
        notify: Callable[[str], None],
        *,
        steps: Callable[[DeblurRequest], Generator[Any, None, Any]] = deblur_steps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(viewer, view, runner, notify, steps=steps, clock=clock)
        self._saver = Saver(runner, notify, self._show_message)
        self._estimator = Estimator("Deblur", runner, estimate_steps, _Estimates(view, self._ask))

    def close(self) -> None:
        """End quietly: drop what is running."""
        self._estimator.drop()
        super().close()

    # -- what the user does ----------------------------------------------------------------------------------------

    def deblur(self) -> None:
        """Restore what the scope says into a new layer."""
        self._start(preview=False)

    def preview(self) -> None:
        """Restore what is in view now into the preview layer."""
        self._start(preview=True)

    def import_model(self, request: ImportRequest) -> None:
        """Put weights of others into the library; every panel lists them then."""
        done = f"Imported as {request.name!r}."
        self._saver.save(f"Import the model {request.name!r}", partial(import_steps, request), done)

    def estimate(self) -> None:
        """The settings have changed: estimate what a run would take."""
        if not self._closed and self._ready and self._run is None:
            self._estimator.refresh()

    @property
    def is_estimating(self) -> bool:
        """Whether the estimate that is shown is being made."""
        return self._estimator.is_on

    # -- a run -----------------------------------------------------------------------------------------------------

    def _survey_steps(self) -> Callable[[], Generator[Any, None, Any]]:
        return survey_steps

    def _describe_start(self, step: Progress) -> str:
        return self._first_words if step.measuring else f"Restoring tile 1 of {step.total}..."

    def _describe_step(self, step: Progress) -> str:
        return f"Tile {step.done} of {step.total}"

    def _start(self, *, preview: bool) -> None:
        if self._run is not None or self._closed:
            return
        settings = self._view.settings()
        try:
            request = self._ask(preview=preview)
        except Exception as error:
            self._view.show_message(self._tell(error))
            return
        assert settings.layer is not None  # make_request refuses that
        self._estimator.drop()
        self._chosen = settings.layer
        run = _Run(request, (settings.layer,), preview=preview)
        self._begin(run, f"{'Preview' if preview else 'Deblur'} of {request.source_name!r}")

    def _show_message(self, text: str) -> None:
        if not self._closed:
            self._view.show_message(text)

    def _ask(self, *, preview: bool = False) -> DeblurRequest:
        return make_request(self._viewer, self._view.settings(), self._generation + 1, preview=preview)

    def _on_surveyed(self, outcome: Any) -> None:
        super()._on_surveyed(outcome)
        self.estimate()

    def _on_finished(self, run: Run) -> None:
        super()._on_finished(run)
        self.estimate()

    def _show_layer(self) -> None:
        super()._show_layer()
        self.estimate()

    def _add(self, run: Run, outcome: Restored) -> None:
        assert isinstance(run, _Run)
        (source,), layers = run.sources, self._viewer.layers
        name = PREVIEW if run.preview else f"{run.request.source_name} deblurred"
        result = result_layer(source, outcome, run.request, name)
        side_by_side = self._side_by_side.is_on  # ends with the old preview, if that is shown
        self._drop_preview()
        self._results.setdefault(source, []).append(ref(result))
        if run.preview:
            self._preview = ref(result)
            layers.append(result)  # on top, where nothing covers it
        else:
            layers.insert(layers.index(source) + 1, result)
            layers.selection.active = result
        if side_by_side:
            self._side_by_side.show(source, result)
        run.last_words = summary(outcome.record)
        self._show_side_by_side()
