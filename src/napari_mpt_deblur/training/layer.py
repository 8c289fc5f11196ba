"""Pairs from nothing but one image: its sharpest regions, defocused."""

from __future__ import annotations

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
        Whether any were sharp; otherwise these are all that hold something.
    edge_px : float
        How blurred the sharpest tenth looks, as a Gaussian's standard deviation.
    """

    train: list[SharpImage]
    held_out: list[SharpImage]
    areas: list[Area]
    sharp: bool
    edge_px: float

    @property
    def note(self) -> str:
        """For the user."""
        if self.sharp:
            return (
                f"The sharp side is {len(self.train)} regions of the image whose edges are about {self.edge_px:.1f} "
                "pixels wide; the blurred side is synthetic defocus of them."
            )
        return (
            f"Nothing in the image is sharp (edges are about {self.edge_px:.1f} pixels wide): the image itself is the "
            "target and its copy, blurred once more, the input. Give sharp images or pairs for more than that."
        )


def sharp_regions(field: Field, side: int) -> Regions:
    """The regions of an image that serve as the sharp side.

    Parameters
    ----------
    field : Field
    side : int
        Of a region, and of the largest patch.

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
    widest = min(SHARP_PX, max(_AS_SHARP * edge, 1.0)) if sharp else np.inf
    # what is held out is judged alike; where none of it is sharp, the sharpest of it must do
    kept, kept_held = ([pair for pair in pairs if pair[0] <= widest] for pairs in (found, found_held))
    if not kept_held:
        kept_held = sorted(found_held, key=lambda pair: pair[0])[:8]
    nucleus_px = field.view.nucleus_diameter_px or _nucleus_px(field, kept[0][1])
    make = [[_image(field, area, nucleus_px) for _, area in _some(pairs)] for pairs in (kept, kept_held)]
    return Regions(make[0], make[1], train, sharp, edge)


def _few(areas: list[Area]) -> list[Area]:
    return [areas[i] for i in evenly(len(areas), _MOST_PLANES)]


def _some(pairs: list[tuple[float, Area]]) -> list[tuple[float, Area]]:
    return [pairs[i] for i in evenly(len(pairs), _MOST_REGIONS)]


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


def _image(field: Field, area: Area, nucleus_px: float) -> SharpImage:
    pixels = field.read(area.group, area.y0, area.x0, area.height, area.width)
    return SharpImage(pixels[0] if len(pixels) == 1 else pixels, nucleus_px)
