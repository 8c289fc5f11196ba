"""What the controller needs of the Deblur panel."""

from __future__ import annotations

from typing import Protocol

from napari_mpt_deblur.widgets.deblur.job import Machinery
from napari_mpt_deblur.widgets.deblur.request import Settings
from napari_mpt_deblur.widgets.protocols import ImagePanel


class DeblurView(ImagePanel, Protocol):
    """What the controller needs of the Deblur panel."""

    def settings(self) -> Settings: ...

    def show_machinery(self, machinery: Machinery) -> None: ...

    def show_outlook(self, text: str) -> None: ...
