"""What happens when: the Deblur panel's logic, with a viewer and a view it can be tested without."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari_mpt_deblur.widgets.job import deblur_steps, survey_steps
from napari_mpt_deblur.widgets.protocols import Runner, View
from napari_mpt_deblur.widgets.reading import layer_axes, readings
from napari_mpt_deblur.widgets.request import DeblurRequest, make_request
from napari_mpt_deblur.widgets.result import result_layer
from napari_mpt_deblur.widgets.run_controller import Run, RunController
from napari_mpt_deblur.widgets.side_by_side import SideBySide
from napari_mpt_deblur.widgets.words import summary

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_mpt_deblur.restoration import Progress, Restored

PREVIEW = "Deblur preview"


@dataclass(eq=False)
class _Run(Run):
    """A run on one layer."""

    preview: bool = False


class DeblurController(RunController[View]):
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

    _name = "Deblur"
    _first_words = "Measuring intensities..."

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
        super().__init__(viewer, view, runner, notify, steps=steps, clock=clock)
        self._side_by_side = SideBySide(viewer)
        self._chosen: Image | None = None  # by the user, or for a run
        self._results: WeakKeyDictionary[Layer, list[ref[Layer]]] = WeakKeyDictionary()  # by source, the newest last
        self._preview: ref[Image] | None = None
        self._read: ref[Image] | None = None  # the layer whose axes the panel shows

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

    def _survey_steps(self) -> Callable[[], Generator[Any, None, Any]]:
        return survey_steps

    def _can_start(self) -> bool:
        return self._view.settings().layer is not None

    def _describe_start(self, step: Progress) -> str:
        return self._first_words if step.measuring else f"Restoring tile 1 of {step.total}..."

    def _describe_step(self, step: Progress) -> str:
        return f"Tile {step.done} of {step.total}"

    def _start(self, *, preview: bool) -> None:
        if self._run is not None or self._closed:
            return
        settings = self._view.settings()
        try:
            request = make_request(self._viewer, settings, self._generation + 1, preview=preview)
        except Exception as error:
            self._view.show_message(self._tell(error))
            return
        assert settings.layer is not None  # make_request refuses that
        self._chosen = settings.layer
        run = _Run(request, (settings.layer,), preview=preview)
        self._begin(run, f"{'Preview' if preview else 'Deblur'} of {request.source_name!r}")

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

    def _drop_preview(self) -> None:
        preview = self._preview and self._preview()
        self._preview = None
        if preview is not None and preview in self._viewer.layers:
            self._viewer.layers.remove(preview)

    # -- what the viewer does --------------------------------------------------------------------------------------

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

    def _on_gone(self, layer: Layer) -> None:
        if layer in self._side_by_side.layers:
            self._side_by_side.restore()

    # -- what the panel shows --------------------------------------------------------------------------------------

    def _result_of(self, source: Layer | None) -> Layer | None:
        if source is None:
            return None
        results = (result() for result in reversed(self._results.get(source, [])))
        return next((result for result in results if result is not None and result in self._viewer.layers), None)

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
