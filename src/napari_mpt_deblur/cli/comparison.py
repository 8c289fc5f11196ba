"""The demo's picture: rows of sharp, blurred and deblurred, a few planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_mpt_deblur.optics.stack import FocusStack

_CELL_PX = 320
_CROP_PX = 240  # magnified, so that the blur of a few pixels is seen
_GAP_PX = 10
_HEADING_PX = 40
_CAPTION_PX = 28
_INK, _PALE, _PAPER = (235, 235, 235), (165, 170, 180), (18, 19, 22)
_PLANES = 3


def draw_comparison(sample: FocusStack, deblurred: np.ndarray, report: dict[str, Any]) -> Image:
    """Draw a few planes, the blurriest first: one row each of blurred, deblurred and sharp.

    All cells have one range of grey levels, so that brightness can be compared.

    Parameters
    ----------
    sample : FocusStack
    deblurred : ndarray
        (Z, Y, X)
    report : dict
        Of `napari_mpt_deblur.cli.demo.measure`.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    planes = _choose(sample)
    crop = _busiest(sample.sharp, min(_CROP_PX, *sample.sharp.shape))
    low, high = np.percentile(sample.sharp, (1, 99.8))
    width = 3 * _CELL_PX + 4 * _GAP_PX
    height = _HEADING_PX + len(planes) * (_CELL_PX + _CAPTION_PX + _GAP_PX)
    canvas = Pillow.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    heading, caption = ImageFont.load_default(20), ImageFont.load_default(15)
    for column, title in enumerate(("Out of focus", "Deblurred", "In focus (truth)")):
        draw.text((_left(column), 10), title, _INK, heading)
    for row, plane in enumerate(planes):
        top = _HEADING_PX + row * (_CELL_PX + _CAPTION_PX + _GAP_PX)
        cells = (sample.stack[plane], deblurred[plane], sample.sharp)
        captions = (
            f"{abs(sample.defocus_um[plane]):.0f} um out of focus, PSNR {report['psnr_blurred'][plane]:.1f} dB",
            f"PSNR {report['psnr_deblurred'][plane]:.1f} dB",
            "",
        )
        for column, (pixels, text) in enumerate(zip(cells, captions, strict=True)):
            cell = Pillow.fromarray(_grey(pixels[crop], low, high)).resize(
                (_CELL_PX, _CELL_PX), Pillow.Resampling.BICUBIC
            )
            canvas.paste(cell, (_left(column), top))
            draw.text((_left(column), top + _CELL_PX + 5), text, _PALE, caption)
    return canvas


def _choose(sample: FocusStack) -> list[int]:
    """Planes from the blurriest to the sharpest, evenly spaced, one of each defocus."""
    depths = sorted({round(abs(z), 6) for z in sample.defocus_um}, reverse=True)
    picks = np.unique(np.linspace(0, len(depths) - 1, _PLANES).round().astype(int))
    return [min(range(len(sample.defocus_um)), key=lambda i: abs(abs(sample.defocus_um[i]) - depths[k])) for k in picks]


def _busiest(image: np.ndarray, side: int) -> tuple[slice, slice]:
    """Where a square of that side varies most: cells rather than background."""
    best, corner = -1.0, (0, 0)
    for y in range(0, image.shape[0] - side + 1, max(1, side // 4)):
        for x in range(0, image.shape[1] - side + 1, max(1, side // 4)):
            spread = float(image[y : y + side, x : x + side].std())
            if spread > best:
                best, corner = spread, (y, x)
    return slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)


def _grey(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """8 bit; a gamma of 0.7 shows dim nuclei beside bright ones."""
    scaled = np.clip((pixels.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return (255 * scaled**0.7 + 0.5).astype(np.uint8)


def _left(column: int) -> int:
    return _GAP_PX + column * (_CELL_PX + _GAP_PX)
