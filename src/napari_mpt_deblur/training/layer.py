"""Pairs from nothing but one image: its sharpest regions, or what a model makes of them, defocused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.images.diameter import estimate_nucleus_diameter
from napari_mpt_deblur.images.sharpness import edge_width
from napari_mpt_deblur.training.areas import Area, split
from napari_mpt_deblur.training.fields import Field, evenly
from napari_mpt_deblur.training.simulation import DEFAULT_DIAMETER_PX, SharpImage

SHARP_PX = 2.0  # edges that look blurred by a narrower Gaussian are sharp
_AS_SHARP = 1.4  # times the edges of the sharpest tenth: what else is taken of a sharp image
_FAINT = 0.02  # standard deviation, in units of the image's range, below which a region is empty
_MOST_PLANES = 64
_MOST_REGIONS = 256
_MOST_RESTORED = 48  # a pass through the network each, before the first step
_MARGIN_PX = 32  # around a region that is restored

Restore = Callable[[np.ndarray], np.ndarray]
"""(C, height, width) of about 0 to 1, of any size, to the same as a model restores it."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of an image to use as the sharp side.

    Attributes
    ----------
    train, held_out : list of SharpImage
        Nothing of one is in the other.
    areas : list of Area
        Of the image, without what is held out.
    sharp : bool
        Whether any were sharp.
    restored : bool
        Whether they are what a model makes of the sharpest regions; where nothing is sharp and there is no model, they
        are all that hold something, as they are.
    edge_px : float
        How blurred the sharpest tenth looks, as a Gaussian's standard deviation.
    """

    train: list[SharpImage]
    held_out: list[SharpImage]
    areas: list[Area]
    sharp: bool
    restored: bool
    edge_px: float

    @property
    def note(self) -> str:
        """For the user."""
        if self.sharp:
            width = f"about {self.edge_px:.1f} pixels" if self.edge_px >= 0.5 else "less than half a pixel"
            return (
                f"The sharp side is {len(self.train)} regions of the image whose edges are {width} wide; the blurred "
                "side is synthetic defocus of them."
            )
        if self.restored:
            return (
                f"Nothing in the image is sharp (edges are about {self.edge_px:.1f} pixels wide): the sharp side is "
                f"{len(self.train)} of its sharpest regions as the model restores them now. Give sharp images or pairs "
                "for more than that."
            )
        return (
            f"Nothing in the image is sharp (edges are about {self.edge_px:.1f} pixels wide): the image itself is the "
            "target and its copy, blurred once more, the input. Give sharp images or pairs for more than that."
        )


def sharp_regions(field: Field, side: int, restore: Restore | None = None) -> Regions:
    """The regions of an image that serve as the sharp side.

    Parameters
    ----------
    field : Field
    side : int
        Of a region, and of the largest patch.
    restore : callable, optional
        The model that is trained, as it is before: where nothing is sharp, what it makes of the sharpest regions is
        the sharp side, so that it learns to bring what is farther from focus to what it can do nearer.

    Raises
    ------
    TrainingError
        If the image is too small, or holds nothing but noise.
    """
    train, held = split([field], side)
    found, found_held = (_measured(field, _few(areas), side) for areas in (train, held))
    found = [pair for pair in found if pair[0] < np.inf]
    if not found:
        raise TrainingError(f"Cannot train on {field.name}: nothing in it stands out of the noise.")
    edge = float(np.percentile([width for width, _ in found], 10))
    sharp = edge <= SHARP_PX
    restored = not sharp and restore is not None
    widest = max(_AS_SHARP * edge, 1.0) if sharp or restored else np.inf
    if sharp:
        widest = min(SHARP_PX, widest)
    # what is held out is judged alike; where none of it is sharp, the sharpest of it must do
    kept, kept_held = ([pair for pair in pairs if pair[0] <= widest] for pairs in (found, found_held))
    if not kept_held:
        kept_held = sorted(found_held, key=lambda pair: pair[0])[:8]
    nucleus_px = field.view.nucleus_diameter_px or _nucleus_px(field, kept[0][1])
    cut = _Cut(field, nucleus_px, restore if restored else None)
    most = _MOST_RESTORED if restored else _MOST_REGIONS
    make = [[cut(box, areas) for _, box in _some(pairs, most)] for pairs, areas in ((kept, train), (kept_held, held))]
    return Regions(make[0], make[1], train, sharp, restored, edge)


def _few(areas: list[Area]) -> list[Area]:
    return [areas[i] for i in evenly(len(areas), _MOST_PLANES)]


def _some(pairs: list[tuple[float, Area]], most: int) -> list[tuple[float, Area]]:
    return [pairs[i] for i in evenly(len(pairs), most)]


def _measured(field: Field, areas: list[Area], side: int) -> list[tuple[float, Area]]:
    """Squares, half overlapping, and the width of their edges; infinite where there are none."""
    found = []
    for area in areas:
        for y in _starts(area.y0, area.y1, side):
            for x in _starts(area.x0, area.x1, side):
                box = area._replace(y0=y, x0=x, y1=min(y + side, area.y1), x1=min(x + side, area.x1))
                pixels = field.read(box.group, box.y0, box.x0, box.height, box.width).mean(0)
                width = edge_width(pixels) if pixels.std() > _FAINT else None
                found.append((np.inf if width is None else width, box))
    return found


def _starts(first: int, last: int, side: int) -> list[int]:
    return list(range(first, max(first, last - side) + 1, max(1, side // 2)))


def _nucleus_px(field: Field, area: Area) -> float:
    plane = field.plane(area.group).mean(0)
    diameter = estimate_nucleus_diameter(plane)
    return DEFAULT_DIAMETER_PX if diameter is None or diameter > min(plane.shape) / 2 else diameter


@dataclass(frozen=True, eq=False)
class _Cut:
    """Cuts regions out of an image; with `restore`, out of what that makes of them and their surroundings."""

    field: Field
    nucleus_px: float
    restore: Restore | None

    def __call__(self, box: Area, areas: list[Area]) -> SharpImage:
        """A region; its surroundings end with the one of `areas` that it is a part of."""
        if self.restore is None:
            pixels = self._read(box)
        else:
            (area,) = (area for area in areas if area.group == box.group)
            wide = box._replace(
                y0=max(area.y0, box.y0 - _MARGIN_PX),
                x0=max(area.x0, box.x0 - _MARGIN_PX),
                y1=min(area.y1, box.y1 + _MARGIN_PX),
                x1=min(area.x1, box.x1 + _MARGIN_PX),
            )
            pixels = self.restore(self._read(wide))
            y, x = box.y0 - wide.y0, box.x0 - wide.x0
            pixels = np.ascontiguousarray(pixels[:, y : y + box.height, x : x + box.width])
        return SharpImage(pixels[0] if len(pixels) == 1 else pixels, self.nucleus_px)

    def _read(self, box: Area) -> np.ndarray:
        return self.field.read(box.group, box.y0, box.x0, box.height, box.width)
