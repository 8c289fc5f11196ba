"""What the controller needs of the Train panel."""

from __future__ import annotations

from typing import Protocol

from napari_mpt_deblur.widgets.protocols import ImagePanel
from napari_mpt_deblur.widgets.train.curves import Curves
from napari_mpt_deblur.widgets.train.job import TrainMachinery
from napari_mpt_deblur.widgets.train.settings import TrainSettings


class TrainView(ImagePanel, Protocol):
    """What the controller needs of the Train panel."""

    def settings(self) -> TrainSettings: ...

    def show_machinery(self, machinery: TrainMachinery) -> None: ...

    def show_outlook(self, text: str, earlier: str | None) -> None: ...

    def show_controls(self, *, can_pause: bool, paused: bool, can_stop: bool, can_save: bool) -> None: ...

    def show_curves(self, curves: Curves) -> None: ...

    def show_report(self, text: str, *, warning: str) -> None: ...
