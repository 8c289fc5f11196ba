"""What happens when: the logic of the panel "Detect nuclei", with a viewer and a view it can be tested without."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.atomic import atomic_path
from napari_mpt_deblur.widgets.detect.export import figures_json, table_csv
from napari_mpt_deblur.widgets.detect.job import detect_steps, detection_failure, survey_steps
from napari_mpt_deblur.widgets.detect.outcome import DetectStep, Outcome
from napari_mpt_deblur.widgets.detect.request import DetectRequest, TruthChoice, TruthKind, make_detect_request
from napari_mpt_deblur.widgets.detect.result import FoundLayer, labels_layer
from napari_mpt_deblur.widgets.detect.view import DetectView
from napari_mpt_deblur.widgets.protocols import Runner
from napari_mpt_deblur.widgets.reading import full_resolution
from napari_mpt_deblur.widgets.result import METADATA_KEY
from napari_mpt_deblur.widgets.run_controller import Run, RunController
from napari_mpt_deblur.widgets.stages import Failure

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_mpt_deblur.detection.ledger import Nucleus


class Export(StrEnum):
    """What can be saved; the values are the file names that are offered."""

    TABLE = "average precision.csv"
    PLOT = "average precision.png"
    FIGURES = "nuclei.json"
    LEDGER = "nuclei.csv"


class DetectController(RunController[DetectView]):
    """Turns clicks into runs, and runs into labels, tables and files.

    Parameters
    ----------
    viewer : ViewerModel
    view : DetectView
    runner : Runner
    notify : callable
        Shows one error to the user.
    steps : callable
        The generator function of a run.
    clock : callable
        Seconds.
    """

    _name = "Detect nuclei"
    _first_words = "Detecting nuclei..."

    def __init__(
        self,
        viewer: ViewerModel,
        view: DetectView,
        runner: Runner,
        notify: Callable[[str], None],
        *,
        steps: Callable[[DetectRequest], Generator[Any, None, Any]] = detect_steps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(viewer, view, runner, notify, steps=steps, clock=clock)
        self._chosen: Image | None = None  # the image before, by the user or for a run
        self._outcome: Outcome | None = None  # of the newest run
        self._found: dict[str, FoundLayer] = {}  # its layers that are still there, by side
        self._by_fate = True

    # -- what the user does ----------------------------------------------------------------------------------------

    def choose_layers(self) -> None:
        """Another layer was chosen in the panel; it stays chosen."""
        self._chosen = self._view.settings().before
        self._show_state()

    def detect(self) -> None:
        """Detect and compare what the panel says."""
        if self._run is not None or self._closed:
            return
        settings = self._view.settings()
        try:
            request = make_detect_request(self._viewer, settings, self._generation + 1)
        except Exception as error:
            self._view.show_message(self._tell(error))
            return
        self._chosen = settings.before
        truth = settings.truth.layer if request.truth is not None else None
        sources = tuple(layer for layer in (settings.before, settings.after, truth) if layer is not None)
        self._begin(Run(request, sources), f"Detection in {request.before.name!r}")

    def colour_by_fate(self, on: bool) -> None:
        """Colour the labels by what became of the nuclei, or as napari does."""
        self._by_fate = on
        self._colour()

    def go_to(self, nucleus: Nucleus) -> None:
        """Show a nucleus of the ledger in the viewer, with its image and not the other, which may cover it."""
        found = self._found.get(nucleus.image)
        if found is None:
            self._view.show_message(f"The labels {nucleus.image} were removed: detect again.")
            return
        try:
            if not self._viewer.canvas.grid.enabled:  # else they lie beside each other
                for side, other in self._found.items():  # the image after would cover the nuclei before
                    other.show(self._viewer, side == nucleus.image)
            found.go_to(self._viewer, nucleus)
        except Exception as error:  # the layer may have been given other data since
            self._tell(error)

    def save(self, what: Export, path: str | Path) -> None:
        """Write a part of the newest outcome to a file, which appears whole or not at all; one that exists goes."""
        try:
            content = self._content(what)
            with atomic_path(path, overwrite=True) as temporary:
                temporary.write_bytes(content)
        except Exception as error:
            self._tell(error)
            return
        self._view.show_message(f"Saved {path}.")

    def _content(self, what: Export) -> bytes:
        outcome = self._outcome
        if outcome is None:
            raise ParameterError("There is nothing to save yet: detect nuclei first.")
        if what is Export.FIGURES:
            return figures_json(outcome).encode()
        if outcome.comparison is None:
            raise ParameterError("One image alone has no comparison to save: choose an image after, and detect again.")
        if what is Export.LEDGER:
            return outcome.comparison.ledger.to_csv().encode()
        if not outcome.comparison.curve:
            raise ParameterError("Without truth there is no average precision to save: choose one, and detect again.")
        return self._view.plot_png() if what is Export.PLOT else table_csv(outcome.comparison).encode()

    # -- a run -----------------------------------------------------------------------------------------------------

    def _survey_steps(self) -> Callable[[], Generator[Any, None, Any]]:
        return survey_steps

    def _can_start(self) -> bool:
        return self._view.settings().before is not None

    def _failure(self, error: Exception) -> Failure:
        return detection_failure(error)

    def _describe_step(self, step: DetectStep) -> str:
        return step.text

    def _add(self, run: Run, outcome: Outcome) -> None:
        request: DetectRequest = run.request
        made: dict[str, tuple[Image, FoundLayer]] = {}
        for side, found, picture in (
            ("before", outcome.before, request.before),
            ("after", outcome.after, request.after),
        ):
            if found is not None and picture is not None:
                source = run.sources[len(made)]
                made[side] = source, labels_layer(source, picture, found, request.plane_index, outcome.record)
        earlier, self._outcome = self._found, outcome
        self._found = {side: above for side, (_, above) in made.items()}
        self._colour()  # before napari draws them
        layers = self._viewer.layers
        for old in earlier.values():
            old.layer.visible = False  # it would shine through
        for side, (source, above) in made.items():
            below = [source, *(old.layer for old_side, old in earlier.items() if old_side == side)]
            layers.insert(max(map(layers.index, below)) + 1, above.layer)
            layers.selection.active = above.layer
        self._view.show_outcome(outcome)
        counts = [f"{outcome.before.count} nuclei"]
        if outcome.after is not None:
            counts = [f"{outcome.before.count} nuclei before", f"{outcome.after.count} after"]
        record = outcome.record
        run.last_words = f"Done in {record['seconds']:.1f} s on {record['device']}: {', '.join(counts)}."

    def _colour(self) -> None:
        comparison = self._outcome and self._outcome.comparison
        if not comparison:
            return
        for side, found in self._found.items():
            found.colour(getattr(comparison.ledger, side) if self._by_fate else None)

    # -- what the viewer does --------------------------------------------------------------------------------------

    def _on_layers(self, event: Any = None, *, newest: Layer | None = None) -> None:
        from napari.layers import Image, Labels

        settings = self._view.settings()
        before, after = settings.before, settings.after
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        if self._chosen not in images:
            self._chosen = None
        # what the user chose or used; else what was opened last, with its source; else what the panel shows; else the
        # topmost visible
        candidates = [newest] if isinstance(newest, Image) else []
        if before not in images:
            candidates += sorted(reversed(images), key=lambda layer: not layer.visible)
        if candidates:
            source = _source_of(candidates[0], images)
            if self._chosen is None or (source is self._chosen and after is None):
                before, after = (candidates[0], None) if source is None else (source, candidates[0])
        if after not in images:
            after = None
        truths = [
            (layer.name, TruthChoice(TruthKind.LABELS, layer))
            for layer in self._viewer.layers
            if isinstance(layer, Labels)
        ]
        truths += [(layer.name, TruthChoice(TruthKind.SHARP_IMAGE, layer)) for layer in images]
        self._view.show_layers([(layer.name, layer) for layer in images], truths, before, after)
        self._show_state()

    def _on_gone(self, layer: Layer) -> None:
        self._found = {side: found for side, found in self._found.items() if found.layer is not layer}


def _source_of(result: Image, images: list[Image]) -> Image | None:
    """The layer that a deblurred one was made from: that of the name in its record, if it has its shape."""
    record = result.metadata.get(METADATA_KEY)
    name = record.get("source") if isinstance(record, dict) else None
    shape = full_resolution(result).shape
    sources = (layer for layer in images if layer.name == name and full_resolution(layer).shape == shape)
    return next(sources, None)
