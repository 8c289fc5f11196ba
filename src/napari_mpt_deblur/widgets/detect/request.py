"""What the user asked to detect, resolved into one frozen object that may cross to another thread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.detection.settings import DetectionSettings
from napari_mpt_deblur.errors import LabelsError, ParameterError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.images.view import ImageView
from napari_mpt_deblur.widgets.geometry import current_index
from napari_mpt_deblur.widgets.reading import full_resolution, layer_axes, pixel_size_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels


class Planes(StrEnum):
    """Which planes a run detects in."""

    ALL = "all"
    CURRENT = "current"


class TruthKind(StrEnum):
    """What both sides are held to; the values are what `napari_mpt_deblur.detection.comparison.Truth` calls them."""

    NONE = "none"
    LABELS = "truth"
    SHARP_IMAGE = "reference"
    SHARPEST_PLANE = "pseudo-reference"


@dataclass(frozen=True)
class TruthChoice:
    """One line of the panel's list of truths."""

    kind: TruthKind = TruthKind.NONE
    layer: Image | Labels | None = None


@dataclass(frozen=True)
class DetectSettings:
    """What the panel says at one moment; None and "auto" leave the choice to the program or the model."""

    before: Image | None
    model: str | Path
    after: Image | None = None
    truth: TruthChoice = TruthChoice()
    planes: Planes = Planes.ALL
    pooled: bool = True
    percentiles: tuple[float, float] = (1.0, 99.8)
    prob: float | None = None
    nms: float | None = None
    nucleus_diameter_px: float | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Picture:
    """The pixels of a layer and what they mean.

    Attributes
    ----------
    name : str
    data : array
        At full resolution; only read.
    axes : Axes
    pixel_size_um : float or None
    """

    name: str
    data: Any
    axes: Axes
    pixel_size_um: float | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Its shape without colours."""
        return tuple(self.data.shape)[: len(self.axes.leading) + 2]

    def view(self, pixel_size_um: float | None = None) -> ImageView:
        """For the engine."""
        return ImageView.of(self.data, self.axes, pixel_size_um=pixel_size_um)

    def plane(self, index: tuple[int, ...], *, whole: str = "") -> Picture:
        """The part at one position along the leading axes, with as many dimensions as the whole.

        Parameters
        ----------
        index : tuple of int
        whole : str
            Letters of axes along which all is kept.
        """
        key = tuple(
            slice(None) if letter in whole else slice(i, i + 1)
            for letter, i in zip(self.axes.leading, index, strict=True)
        )
        return replace(self, data=self.data[key])


@dataclass(frozen=True, eq=False)
class DetectRequest:
    """One run: the pixels, and how to detect and compare. Nothing of napari or Qt is in it.

    Attributes
    ----------
    generation : int
        Grows with each run of a panel; the result of an older one is stale.
    before : Picture
    after : Picture or None
        None: one image alone, there is nothing to compare.
    truth_kind : TruthKind
    truth : Picture or None
        Labels, or a sharp image; of the grid of `before`, or one plane for all of its planes.
    model : str or Path
    device : str
    settings : DetectionSettings
    plane_index : tuple of int or None
        Where along the leading axes the one plane lies; None: all planes.
    pooled : bool
    """

    generation: int
    before: Picture
    after: Picture | None
    truth_kind: TruthKind
    truth: Picture | None
    model: str | Path
    device: str
    settings: DetectionSettings
    plane_index: tuple[int, ...] | None
    pooled: bool

    @property
    def pixel_size_um(self) -> float | None:
        """Of all its pictures, as they lie on one grid: the first that is known."""
        pictures = (self.before, self.after, self.truth)
        return next((p.pixel_size_um for p in pictures if p is not None and p.pixel_size_um is not None), None)


def make_detect_request(viewer: ViewerModel, settings: DetectSettings, generation: int) -> DetectRequest:
    """Resolve the panel's settings and the viewer's state into a request.

    Parameters
    ----------
    viewer : ViewerModel
        Asked for the current plane.
    settings : DetectSettings
    generation : int

    Returns
    -------
    DetectRequest

    Raises
    ------
    ParameterError
        If there is no layer, both are one, or a number is not accepted.
    LabelsError
        If the layers do not belong together.
    AxesError
        If a layer is no image that this can read.
    """
    if settings.before is None or settings.before not in viewer.layers:
        raise ParameterError(
            "There is no image to detect nuclei in: open one, or choose its layer in the list 'Before'."
        )
    if settings.after is settings.before:
        raise ParameterError("Before and after are the same layer: choose two, or none as 'After'.")
    before = _picture(settings.before)
    after = None if settings.after is None else _picture(settings.after)
    kind, truth = settings.truth.kind, None
    if after is None:
        kind = TruthKind.NONE  # there is nothing to compare
    else:
        _check_grid(after, before, (before.grid,))
    if kind is TruthKind.SHARPEST_PLANE and "Z" not in before.axes.leading:
        raise ParameterError(f"{before.name!r} is no z-stack, so it has no sharpest plane: choose another truth.")
    if kind in (TruthKind.LABELS, TruthKind.SHARP_IMAGE):
        truth = _truth_picture(settings.truth, before)
        no_channels = tuple(
            length for letter, length in zip(before.axes.leading + "YX", before.grid, strict=True) if letter != "C"
        )
        _check_grid(truth, before, (before.grid, no_channels, before.grid[-2:]))
    index = current_index(viewer, settings.before, before.axes) if settings.planes is Planes.CURRENT else None
    return DetectRequest(
        generation=generation,
        before=before,
        after=after,
        truth_kind=kind,
        truth=truth,
        model=settings.model,
        device=settings.device,
        settings=DetectionSettings(
            settings.prob, settings.nms, settings.percentiles, nucleus_diameter_px=settings.nucleus_diameter_px
        ),
        plane_index=index,
        pooled=settings.pooled,
    )


def _picture(layer: Image) -> Picture:
    axes = layer_axes(layer)
    return Picture(layer.name, full_resolution(layer), axes, pixel_size_um(layer, axes))


def _truth_picture(choice: TruthChoice, before: Picture) -> Picture:
    layer = choice.layer
    if layer is None:
        raise ParameterError("The layer chosen as truth is gone: choose another.")
    if choice.kind is TruthKind.SHARP_IMAGE:
        return _picture(layer)
    data = full_resolution(layer)
    return Picture(layer.name, data, Axes((before.axes.leading + "YX")[-data.ndim :]))


def _check_grid(picture: Picture, before: Picture, grids: tuple[tuple[int, ...], ...]) -> None:
    if picture.grid not in grids:
        sizes = [" x ".join(map(str, grid)) for grid in (picture.grid, before.grid)]
        raise LabelsError(
            f"{picture.name!r} ({sizes[0]}) and {before.name!r} ({sizes[1]}) differ in shape: choose images of the "
            "same planes on the same grid of pixels."
        )
