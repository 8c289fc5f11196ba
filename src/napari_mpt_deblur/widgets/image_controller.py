"""What panels of one image share: the image that is chosen, how it is read, its preview, its results side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, ref

from napari_mpt_deblur.widgets import model_news
from napari_mpt_deblur.widgets.protocols import ImagePanel
from napari_mpt_deblur.widgets.reading import layer_axes, readings
from napari_mpt_deblur.widgets.result import METADATA_KEY
from napari_mpt_deblur.widgets.run_controller import RunController
from napari_mpt_deblur.widgets.side_by_side import SideBySide

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

ImagePanelT = TypeVar("ImagePanelT", bound=ImagePanel)


class ImageController(RunController[ImagePanelT]):
    """Follows one chosen image; the parameters are those of `RunController`."""

    def __init__(self, viewer: ViewerModel, *args: Any, **kwargs: Any) -> None:
        super().__init__(viewer, *args, **kwargs)
        self._side_by_side = SideBySide(viewer)
        self._chosen: Image | None = None  # by the user, or for a run
        self._results: WeakKeyDictionary[Layer, list[ref[Layer]]] = WeakKeyDictionary()  # by source, the newest last
        self._preview: ref[Image] | None = None
        self._read: ref[Image] | None = None  # the layer whose axes the panel shows

    # -- life ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin; and look for models again whenever some were added."""
        super().open()
        model_news.listen(self.survey)

    def leave(self) -> None:
        """The panel is closed: put the view back, and end."""
        self.toggle_side_by_side(False)
        super().leave()

    def close(self) -> None:
        """End quietly."""
        model_news.leave(self.survey)
        super().close()

    # -- what the user does ----------------------------------------------------------------------------------------

    def choose_layer(self) -> None:
        """Another layer was chosen in the panel; it stays chosen."""
        self._chosen = self._view.settings().layer
        self._show_layer()

    def toggle_side_by_side(self, on: bool) -> None:
        """Show what there is to compare beside each other, or put the view back."""
        pair = self._pair()
        if on and pair is not None:
            self._side_by_side.show(*pair)
        else:
            self._side_by_side.restore()
        self._show_side_by_side()

    # -- what a panel's own controller says --------------------------------------------------------------------------

    def _can_start(self) -> bool:
        return self._view.settings().layer is not None

    def _pair(self) -> tuple[Layer, Layer] | None:
        """What is shown side by side: source and newest result."""
        source = self._view.settings().layer
        result = self._result_of(source)
        return None if source is None or result is None else (source, result)

    # -- preview and results -----------------------------------------------------------------------------------------

    def _result_of(self, source: Layer | None) -> Layer | None:
        if source is None:
            return None
        results = (result() for result in reversed(self._results.get(source, [])))
        return next((result for result in results if result is not None and result in self._viewer.layers), None)

    def _preview_layer(self) -> Image | None:
        """The preview, if it is still there."""
        preview = self._preview and self._preview()
        return preview if preview is not None and preview in self._viewer.layers else None

    def _drop_preview(self) -> None:
        preview = self._preview_layer()
        self._preview = None
        if preview is not None:
            self._viewer.layers.remove(preview)

    # -- what the viewer does --------------------------------------------------------------------------------------

    def _on_layers(self, event: Any = None, *, newest: Layer | None = None) -> None:
        from napari.layers import Image

        preview = self._preview and self._preview()
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image) and layer is not preview]
        if self._chosen not in images:
            self._chosen = None
        if newest is not None and METADATA_KEY in newest.metadata:
            newest = None  # a panel's result, nothing that the user opened
        # what the user chose or used; else what was opened last; else what the panel shows; else the topmost visible,
        # results of panels last
        topmost = sorted(reversed(images), key=lambda layer: (METADATA_KEY in layer.metadata, not layer.visible))
        wishes = (self._chosen, newest, self._view.settings().layer, *topmost)
        chosen = next((layer for layer in wishes if layer in images), None)
        self._view.show_layers([(layer.name, layer) for layer in images], chosen)
        self._show_layer()

    def _on_gone(self, layer: Layer) -> None:
        if layer in self._side_by_side.layers:
            self._side_by_side.restore()

    # -- what the panel shows --------------------------------------------------------------------------------------

    def _show_layer(self) -> None:
        self._show_axes()
        self._show_state()
        self._show_side_by_side()

    def _show_side_by_side(self) -> None:
        on = self._side_by_side.is_on
        self._view.show_side_by_side(available=on or self._pair() is not None, on=on)

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
