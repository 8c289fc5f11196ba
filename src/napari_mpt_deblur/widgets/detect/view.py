"""What the controller needs of the Detect panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from napari_mpt_deblur.widgets.detect.outcome import DetectMachinery, Outcome
from napari_mpt_deblur.widgets.detect.request import DetectSettings, TruthChoice
from napari_mpt_deblur.widgets.protocols import RunView

if TYPE_CHECKING:
    from napari.layers import Image


class DetectView(RunView, Protocol):
    """What the controller needs of the Detect panel."""

    def settings(self) -> DetectSettings: ...

    def show_layers(
        self,
        images: Sequence[tuple[str, Image]],
        truths: Sequence[tuple[str, TruthChoice]],
        before: Image | None,
        after: Image | None,
    ) -> None: ...

    def show_machinery(self, machinery: DetectMachinery) -> None: ...

    def show_outcome(self, outcome: Outcome) -> None: ...

    def plot_png(self) -> bytes: ...
