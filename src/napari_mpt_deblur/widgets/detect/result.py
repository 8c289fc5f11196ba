"""What was found as labels layers like their sources, and their colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.widgets.detect.outcome import Found
from napari_mpt_deblur.widgets.detect.request import Picture
from napari_mpt_deblur.widgets.geometry import look_at, place
from napari_mpt_deblur.widgets.result import METADATA_KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from napari.utils.colormaps import DirectLabelColormap

    from napari_mpt_deblur.detection.ledger import Nucleus

# Okabe and Ito's colours, which the colour-blind can tell apart
FATE_COLOURS: Mapping[str, str] = {
    "kept": "#009e73",
    "gained": "#56b4e9",
    "unsupported": "#f0e442",
    "split": "#e69f00",
    "merged": "#cc79a7",
    "lost": "#d55e00",
}


def warm_up() -> None:
    """Have napari compile what colours labels, and import what holds their features: a second each the first time."""
    from napari.layers import Labels

    plane = np.ones((1, 1), np.int32)
    _colormap({1: "white"}).map(plane)
    Labels(plane, features={"index": [1]})


def _colormap(colours: dict[int | None, str]) -> DirectLabelColormap:
    from napari.utils.colormaps import DirectLabelColormap

    return DirectLabelColormap(color_dict={None: "transparent", 0: "transparent"} | colours)


def shown_fate(nucleus: Nucleus) -> str:
    """The fate of a nucleus, a gained one without evidence in the raw image being called "unsupported"."""
    return "unsupported" if nucleus.unsupported else nucleus.fate


def diameter_px(nucleus: Nucleus) -> float:
    """The diameter in pixels of the circle of a nucleus's area."""
    return float(2 * np.sqrt(nucleus.area_px / np.pi))


@dataclass(eq=False)
class FoundLayer:
    """A labels layer of a run, and how its planes are those of what was found.

    Attributes
    ----------
    layer : Labels
    source : Image
        In which they were found.
    axes, found_axes : str
        Of the layer and of the labels found, which may lack some.
    leading : tuple of int
        Lengths of the axes before Y and X of the labels found.
    """

    layer: Labels
    source: Image
    axes: str
    found_axes: str
    leading: tuple[int, ...]
    _own_colours: Any = field(default=None, init=False)

    def show(self, viewer: ViewerModel, visible: bool) -> None:
        """Show or hide the nuclei and their image."""
        for layer in (self.source, self.layer):
            if layer in viewer.layers:
                layer.visible = visible

    def go_to(self, viewer: ViewerModel, nucleus: Nucleus) -> None:
        """Show a nucleus: its plane, its place, its layer selected with its label."""
        leading = map(float, np.unravel_index(nucleus.plane, self.leading))
        index = dict(zip(self.found_axes, (*leading, nucleus.y, nucleus.x), strict=True))
        self.layer.visible = True
        self.layer.selected_label = nucleus.label
        viewer.layers.selection.active = self.layer
        look_at(viewer, self.layer, [index.get(letter) for letter in self.axes], diameter_px(nucleus))

    def colour(self, nuclei: Iterable[Nucleus] | None) -> None:
        """Colour the labels by fate, or with None as napari does."""
        if nuclei is None:
            if self._own_colours is not None:
                self.layer.colormap, self._own_colours = self._own_colours, None
            return
        if self._own_colours is None:
            self._own_colours = self.layer.colormap
        self.layer.colormap = _colormap({nucleus.label: FATE_COLOURS[shown_fate(nucleus)] for nucleus in nuclei})


def labels_layer(
    source: Image, picture: Picture, found: Found, plane_index: tuple[int, ...] | None, record: Mapping[str, Any]
) -> FoundLayer:
    """A labels layer that lies where its source does.

    Parameters
    ----------
    source : Image
        Not changed.
    picture : Picture
        The source as it was read, whole.
    found : Found
    plane_index : tuple of int or None
        The one plane that was detected in; the layer then lies at this plane only.
    record : mapping
        Into ``metadata["mpt_deblur"]``.

    Returns
    -------
    FoundLayer
        With the source's scale, translate, rotate, shear, affine, units and axis labels. Where the source has axes that
        what was found lacks (channels that the model takes together), the labels are repeated along them.
    """
    from napari.layers import Labels

    axes = picture.axes.text[: source.ndim]
    data, offset = found.labels, []
    for position, letter in enumerate(axes):
        index = plane_index[position] if plane_index is not None and letter not in "YXS" else 0
        if letter not in found.axes:
            data = np.repeat(np.expand_dims(data, position), picture.data.shape[position], position)
        offset.append(index if letter in found.axes else 0)
    layer = Labels(
        data,
        name=f"{picture.name} nuclei",
        scale=source.scale,
        translate=place(source, offset),
        rotate=source.rotate,
        shear=source.shear,
        affine=source.affine,
        units=source.units,
        axis_labels=source.axis_labels,
        features=found.features,
        metadata={METADATA_KEY: dict(record)},
    )
    return FoundLayer(layer, source, axes, found.axes, found.labels.shape[:-2])
