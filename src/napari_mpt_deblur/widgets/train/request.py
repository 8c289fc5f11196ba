"""What the user asked to train, resolved into one frozen object that may cross to another thread."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.files import find_images
from napari_mpt_deblur.images.view import ImageView
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.request import (
    FocusStacks,
    ImagePairs,
    ImageSource,
    OpenLayer,
    PairSource,
    PreviewPlane,
    SharpImages,
    TrainingRequest,
)
from napari_mpt_deblur.widgets import geometry
from napari_mpt_deblur.widgets.deblur.request import DeblurRequest
from napari_mpt_deblur.widgets.reading import full_resolution, layer_axes, pixel_size_um
from napari_mpt_deblur.widgets.train.settings import PairKind, PairsChoice, TrainSettings, recipe

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

_PREVIEW_PX = 512  # largest side: a preview is to cost little of the time
_PREVIEW_EVERY_S = 30.0
_LONGEST_SLUG = 40


class Control:
    """What the viewer's thread tells a run that is on; the only thing that both change."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._go = threading.Event()
        self._go.set()

    @property
    def is_paused(self) -> bool:
        return not self._go.is_set()

    def pause(self) -> None:
        """Ask for no further step."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def wait(self, seconds: float) -> None:
        """Until it is to go on, at most so long."""
        self._go.wait(seconds)


@dataclass(frozen=True, eq=False)
class Images:
    """An open image, or a folder of images."""

    source: ImageSource | None = None
    folder: Path | None = None

    def sources(self) -> tuple[ImageSource, ...]:
        """The images; reads the folder's list of files.

        Raises
        ------
        FileError
            If the folder cannot be read or holds no image.
        """
        if self.source is not None:
            return (self.source,)
        assert self.folder is not None  # one of the two is given
        return tuple(ImageSource.of_file(path) for path in find_images([self.folder]))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Where pairs come from, by kind; see `PairsChoice`."""

    kind: PairKind
    images: tuple[Images, ...]

    def resolve(self) -> PairSource:
        """As the engine takes them; reads folders' lists of files.

        Raises
        ------
        DeblurError
            If a folder cannot be read, or two folders do not match.
        """
        if self.kind is PairKind.PAIRS:
            blurred, sharp = self.images
            if blurred.folder is not None and sharp.folder is not None:
                from napari_mpt_deblur.training.folders import match_by_name

                return match_by_name(blurred.folder, sharp.folder)
            return ImagePairs(blurred.sources(), sharp.sources())
        sources = self.images[0].sources()
        if self.kind is PairKind.SHARP:
            return SharpImages(sources)
        return FocusStacks(sources) if self.kind is PairKind.STACK else OpenLayer(sources[0])


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """One run: the images, and how to train. Nothing of napari or Qt is in it.

    Attributes
    ----------
    generation : int
        Grows with each run of a panel; the result of an older one is stale.
    config : TrainingConfig
    pairs : Pairs
    unlabelled : Images or None
    extra : Pairs or None
    base : str or None
        Name of the model to start from; None: random weights.
    minutes : float or None
    go_on : bool
    preview : PreviewPlane
        Of the image, where it was looked at when the run began.
    preview_plane, whole_plane : DeblurRequest
        Where the preview lies, and what is restored before and after; by the base model.
    control : Control
    """

    generation: int
    config: TrainingConfig
    pairs: Pairs
    unlabelled: Images | None
    extra: Pairs | None
    base: str | None
    device: str
    minutes: float | None
    go_on: bool
    preview: PreviewPlane
    preview_plane: DeblurRequest
    whole_plane: DeblurRequest
    control: Control = field(default_factory=Control)

    @property
    def slug(self) -> str:
        """The image's name as a part of file names."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.whole_plane.source_name).strip("-")[:_LONGEST_SLUG] or "image"

    def resolve(self, folder: Path) -> TrainingRequest:
        """As the engine takes it, to work in a folder of the run's own.

        Raises
        ------
        DeblurError
            If images cannot be found or do not belong together.
        """
        return TrainingRequest(
            config=self.config,
            pairs=self.pairs.resolve(),
            folder=folder,
            unlabelled=self.unlabelled.sources() if self.unlabelled is not None else (),
            extra=self.extra.resolve() if self.extra is not None else None,
            base=self.base,
            device=self.device,
            minutes=self.minutes,
            fill_minutes=self.minutes is not None,
            preview=self.preview,
            restart=not self.go_on,
        )


def make_train_request(viewer: ViewerModel, settings: TrainSettings, generation: int) -> TrainRequest:
    """Resolve the panel's settings and the viewer's state into a request.

    Parameters
    ----------
    viewer : ViewerModel
        Asked for the current plane and the part in view.
    settings : TrainSettings
    generation : int

    Returns
    -------
    TrainRequest

    Raises
    ------
    ParameterError
        If there is no image, or nothing is chosen where the method or the pairs need something.
    TrainingError
        If a number is not accepted.
    AxesError, ImageError
        If a layer is no image that can be trained on.
    """
    layer = settings.layer
    if layer is None or layer not in viewer.layers:
        raise ParameterError("There is no image to train for: open one, or choose its layer in the list 'Image'.")
    if settings.minutes is not None and not settings.minutes > 0:
        raise ParameterError("Give the minutes that training may take: a number above 0.")
    config = _config(settings)
    base = settings.base.name if settings.base is not None else None
    axes = layer_axes(layer, settings.axes)
    index, region = geometry.current_index(viewer, layer, axes), geometry.box_in_view(viewer, layer, axes)
    image = _source(layer, settings.axes)
    view = image.open()
    region = _at_most(region or (0, 0, view.height, view.width), _PREVIEW_PX)
    plane = DeblurRequest(
        generation=generation,
        source_name=layer.name,
        data=view.data,
        axes=axes,
        pixel_size_um=view.pixel_size_um,
        nucleus_diameter_px=None,
        model=base or "",
        device=settings.device,
        precision="auto",
        tile_px=None,
        plane_index=index,
        region_px=None,
    )

    def images(choice: Image | Path | None, what: str) -> Images:
        if choice is None:
            raise ParameterError(f"Choose {what}: a layer, or a folder by the button beside the list.")
        if isinstance(choice, Path):
            return Images(folder=choice)
        return Images(image if choice is layer else _source(choice))

    contrast = config.contrast
    return TrainRequest(
        generation=generation,
        config=config,
        pairs=_pairs(settings.pairs, Images(image), images, "the labelled pairs"),
        unlabelled=images(settings.unlabelled or layer, "unlabelled images") if contrast.needs_unlabelled else None,
        extra=_pairs(settings.extra, None, images, "the extra data") if contrast.needs_extra_pairs else None,
        base=base,
        device=settings.device,
        minutes=settings.minutes,
        go_on=settings.go_on,
        preview=PreviewPlane(view, index, region, every_s=_PREVIEW_EVERY_S),
        preview_plane=replace(plane, region_px=region),
        whole_plane=plane,
    )


def _config(settings: TrainSettings) -> TrainingConfig:
    if settings.base is not None and settings.base.problem:
        raise ParameterError(f"{settings.base.name!r} cannot be used: {settings.base.problem}")
    config = recipe(settings.base, settings.method)
    return replace(
        config,
        iterations=settings.iterations,
        learning_rate=settings.learning_rate,
        patch_px=(settings.patch_px,),
        batch=(settings.batch,),
        contrast=replace(config.contrast, beta=settings.beta),
    )


def _source(layer: Image, axes: str | None = None) -> ImageSource:
    resolved = layer_axes(layer, axes)
    size = pixel_size_um(layer, resolved)
    return ImageSource.of_layer(layer.name, ImageView.of(full_resolution(layer), resolved, pixel_size_um=size))


def _pairs(choice: PairsChoice | None, image: Images | None, images: Any, what: str) -> Pairs:
    if choice is None or (choice.kind is PairKind.IMAGE and image is None):
        raise ParameterError("This method needs extra data: choose where they come from.")
    if choice.kind is PairKind.IMAGE:
        assert image is not None  # checked above
        return Pairs(choice.kind, (image,))
    if choice.kind is not PairKind.PAIRS:
        name = "sharp images" if choice.kind is PairKind.SHARP else "a focus stack"
        return Pairs(choice.kind, (images(choice.images[0], f"{name} for {what}"),))
    blurred, sharp = choice.images
    if blurred is not None and blurred == sharp:
        raise ParameterError(f"Blurred and sharp side of {what} are the same: choose two layers or two folders.")
    sides = images(blurred, f"the blurred side of {what}"), images(sharp, f"the sharp side of {what}")
    if (sides[0].folder is None) != (sides[1].folder is None):
        raise ParameterError(f"Of {what} one side is a layer and one a folder: choose two layers or two folders.")
    return Pairs(choice.kind, sides)


def _at_most(region: geometry.Box, side_px: int) -> geometry.Box:
    """The middle of a region, no side longer than that."""
    y0, x0, y1, x1 = region
    height, width = min(y1 - y0, side_px), min(x1 - x0, side_px)
    top, left = y0 + (y1 - y0 - height) // 2, x0 + (x1 - x0 - width) // 2
    return top, left, top + height, left + width
