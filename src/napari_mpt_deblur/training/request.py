"""What to train on and how: one frozen request, which may cross to another thread. No torch.

A request names its images as layers (an `ImageView`) or as files; nothing is read before the run begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.files import read_image
from napari_mpt_deblur.images.view import ImageView, PlaneIndex
from napari_mpt_deblur.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class ImageSource:
    """One image: an open layer, or a file that is read when the run begins.

    Attributes
    ----------
    name : str
        For messages and the card; no path.
    view : ImageView or None
    path : Path or None
        Where `view` is None.
    axes : str or None
        Of the file; guessed or read from it by default.
    """

    name: str
    view: ImageView | None = None
    path: Path | None = None
    axes: str | None = None

    @classmethod
    def of_layer(cls, name: str, view: ImageView) -> ImageSource:
        """An image that is open."""
        return cls(name, view)

    @classmethod
    def of_file(cls, path: str | Path, axes: str | None = None) -> ImageSource:
        """A file."""
        return cls(Path(path).name, None, Path(path), axes)

    def open(self) -> ImageView:
        """The image.

        Raises
        ------
        FileError, AxesError, ImageError
            If it is a file that cannot be read.
        """
        if self.view is not None:
            return self.view
        assert self.path is not None  # one of the two is given
        return read_image(self.path, self.axes)


@dataclass(frozen=True, eq=False)
class SharpImages:
    """Sharp images, each plane brought to one range; the blurred side is synthetic defocus of them.

    Attributes
    ----------
    images : tuple of ImageSource
    validation : tuple of ImageSource
        Held out; by default every tenth of the images, or of the only one every tenth plane, or a strip of its plane.
    """

    images: tuple[ImageSource, ...]
    validation: tuple[ImageSource, ...] = ()


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """Blurred images and sharp ones of the same fields, in the same order; see `match_by_name` for folders.

    Each pair is registered, and the sharp side brought to the blurred side's grey levels where that is sensible. A
    sharp image of one plane serves all planes of its blurred stack.
    """

    blurred: tuple[ImageSource, ...]
    sharp: tuple[ImageSource, ...]


@dataclass(frozen=True, eq=False)
class FocusStacks:
    """Stacks through focus, along Z: of each patch, the plane that is sharpest there is the sharp side."""

    stacks: tuple[ImageSource, ...]


@dataclass(frozen=True, eq=False)
class OpenLayer:
    """Nothing but one image: its sharpest regions are the sharp side, the blurred side is synthetic defocus of them.

    Attributes
    ----------
    image : ImageSource
    restored : bool
        Where nothing is sharp: the sharp side is what the base model makes of the sharpest regions; False, or without a
        base model: it is all of the image as it is. `Started.notes` says so.
    """

    image: ImageSource
    restored: bool = True


PairSource = SharpImages | ImagePairs | FocusStacks | OpenLayer


@dataclass(frozen=True, eq=False)
class PreviewPlane:
    """What to restore every so often while training runs.

    Attributes
    ----------
    view : ImageView
    plane_index : tuple of int
        Position along the leading axes.
    region : tuple of int or None
        (y0, x0, y1, x1); the whole plane by default.
    every_s : float
        Seconds between previews; there is one at the start and one at the end.
    """

    view: ImageView
    plane_index: tuple[int, ...]
    region: tuple[int, int, int, int] | None = None
    every_s: float = 30.0

    @property
    def planes(self) -> tuple[PlaneIndex, ...]:
        """The planes at that position; three for RGB."""
        return tuple(plane for plane in self.view.planes if plane.index == self.plane_index)


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """One training run.

    Attributes
    ----------
    config : TrainingConfig
        Its network is the base model's, where there is one.
    pairs : SharpImages, ImagePairs, FocusStacks or OpenLayer
    folder : Path
        For state, log and weights; made where it is missing. A run that it holds is gone on with.
    unlabelled : tuple of ImageSource
        For the method "efcrex", and for no other.
    extra : PairSource or None
        Extra pairs, of another domain; for "efcrex_labelled" and "vex1", and for no other.
    base : str, Path or None
        Name or file of the model to start from; random weights where None.
    device : str
    minutes : float or None
        Time to work; pauses do not count.
    fill_minutes : bool
        Let the number of iterations be what these minutes are enough for (an estimate, made at the start), so that
        the learning rate has come down when they are over.
    preview : PreviewPlane or None
    restart : bool
        Begin anew where the folder holds a run.
    tensorboard : bool
        Write a TensorBoard log into the folder, too.

    Raises
    ------
    ParameterError
        If data that the method needs are missing, or some are given that it does not take.
    """

    config: TrainingConfig
    pairs: PairSource
    folder: Path
    unlabelled: tuple[ImageSource, ...] = ()
    extra: PairSource | None = None
    base: str | Path | None = None
    device: str = "auto"
    minutes: float | None = None
    fill_minutes: bool = False
    preview: PreviewPlane | None = None
    restart: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        contrast = self.config.contrast
        needs: tuple[tuple[bool, Any, str], ...] = (
            (contrast.needs_unlabelled, self.unlabelled, "unlabelled images"),
            (contrast.needs_extra_pairs, self.extra, "extra pairs"),
        )
        for needed, given, what in needs:
            if needed and not given:
                raise ParameterError(f"The method {contrast.method} needs {what}: name some, or choose efcr.")
            if given and not needed:
                raise ParameterError(f"The method {contrast.method} takes no {what}: leave them out.")
        if self.minutes is not None and not self.minutes > 0:
            raise ParameterError(f"minutes must be a number above 0; got {self.minutes!r}.")
        if self.fill_minutes and self.minutes is None:
            raise ParameterError("To fill the minutes, say how many.")
