"""Tiled against untiled results on validation fields: do tiles agree, and can their borders be measured?

    python benchmarks/seams.py [--tiles 256 384 512] [--fields 3] [--model MODEL]

Prints for each size of tile the PSNR between the tiled and the untiled result (peak of the sharp image, float32) and
the root mean square difference within 8 pixels of where tiles begin, end or pass into each other, over that elsewhere;
and the PSNR between bfloat16 and float32. Needs MPT_DEBLUR_DATA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from napari_mpt_deblur import deblur, load_model
from napari_mpt_deblur.evaluation.metrics import peak_of, psnr
from napari_mpt_deblur.optics.psf import blur, defocus_psf
from napari_mpt_deblur.tiling import TilePlan

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from evaluate_model import CAMERA, MICROSCOPE, validation_images

NEAR_PX = 8


def borders(plan: TilePlan) -> dict[str, np.ndarray]:
    """Masks of the pixels next to tiles' edges, and next to the middle of their overlaps."""
    masks = {}
    for name in ("edges", "passages"):
        near = np.zeros((plan.height, plan.width), bool)
        axes = ((plan.rows, plan.tile_height, plan.top), (plan.columns, plan.tile_width, plan.left))
        for axis, (offsets, side, margin) in enumerate(axes):
            if name == "edges":
                lines = [*offsets[1:], *(first + side for first in offsets[:-1])]
            else:
                lines = [(second + first + side) // 2 for first, second in pairwise(offsets)]
            for line in lines:
                place = slice(max(0, line - margin - NEAR_PX), max(0, line - margin + NEAR_PX))
                near[(slice(None),) * axis + (place,)] = True
        masks[name] = near
    return masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 384, 512])
    parser.add_argument("--fields", type=int, default=3)
    parser.add_argument("--model", default="nuclei")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    multiple = model.config.network.size_multiple
    fields = validation_images("bbbc039", ".tif", arguments.fields)
    print("| um | tile | PSNR | at passages | at edges |\n|---|---|---|---|---|")
    for depth in (0, 8, 16):
        psf = defocus_psf(MICROSCOPE, depth)
        images = [CAMERA.record(blur(field, psf), np.random.default_rng(i)) for i, field in enumerate(fields)]
        whole = [deblur(image, model, precision="float32", tile=4096) for image in images]
        for tile in arguments.tiles:
            plan = TilePlan.of(*fields[0].shape, multiple=multiple, tile_px=tile)
            if len(plan.tiles) == 1:
                continue
            rows = []
            for image, expected, field in zip(images, whole, fields, strict=True):
                tiled = deblur(image, model, precision="float32", tile=tile)
                square = (tiled.astype(np.float64) - expected) ** 2
                near = borders(plan)
                ratios = [np.sqrt(square[near[at]].mean() / square[~near[at]].mean()) for at in ("passages", "edges")]
                rows.append([psnr(tiled, expected, peak_of(field)), *ratios])
            level, passages, edges = np.mean(rows, 0)
            print(f"| {depth} | {tile} | {level:.1f} dB | {passages:.2f} | {edges:.2f} |", flush=True)
        half = [deblur(image, model, precision="bfloat16", tile=4096) for image in images]
        levels = [psnr(a, b, peak_of(field)) for a, b, field in zip(half, whole, fields, strict=True)]
        print(f"bfloat16 against float32 at {depth} um: {np.mean(levels):.1f} dB", flush=True)


if __name__ == "__main__":
    main()
