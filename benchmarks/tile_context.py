"""How far into a tile the context reaches that it misses: its difference from the whole plane by the way to its edge.

    python benchmarks/tile_context.py [--tile 512] [--um 16] [--field 0] [--model MODEL]

Prints the root mean square difference of lone tiles, with the channel statistics that a run would use, in
ten-thousandths of the sharp image's peak, in rings of 16 pixels. Needs MPT_DEBLUR_DATA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from napari_mpt_deblur import load_model
from napari_mpt_deblur.evaluation.metrics import peak_of
from napari_mpt_deblur.images import ImageView, measure_normalization
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.optics.psf import blur, defocus_psf
from napari_mpt_deblur.restoration.runner import Runner
from napari_mpt_deblur.restoration.settings import Settings
from napari_mpt_deblur.tiling import TilePlan

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from evaluate_model import CAMERA, MICROSCOPE, validation_images

RING_PX = 16


def way_to_edge(plan: TilePlan, y: int, x: int, side: int) -> np.ndarray:
    """For each pixel of a tile the way to its nearest edge within the padded plane: (side, side)."""
    ways = []
    for offset, padded in ((y, plan.padded_height), (x, plan.padded_width)):
        place, far = np.arange(side), np.full(side, padded)
        before = place if offset else far
        ways.append(np.minimum(before, side - 1 - place if offset + side < padded else far))
    return np.minimum(ways[0][:, None], ways[1])


def tiles(runner: Runner, plane: np.ndarray, network: MPTConfig, side: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Every tile of a padded plane whose windows fall on the plane's, restored alone."""
    settings = Settings.of(network, "cpu", "float32", side)
    edge, places = settings.samples(settings.plan(*plane.shape))
    samples = np.stack([plane[None, y : y + edge, x : x + edge] for y, x in places])
    pool = runner.measure(samples, plane.size / (edge**2 * len(places)))
    steps = (range(0, length - side + 1, network.size_multiple) for length in plane.shape)
    for y, x in product(*steps):
        yield y, x, runner(plane[None, None, y : y + side, x : x + side].copy(), pool)[0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--um", type=float, default=16)
    parser.add_argument("--field", type=int, default=0)
    parser.add_argument("--model", default="nuclei")
    arguments = parser.parse_args()
    model = load_model(arguments.model, device="cpu")
    field = validation_images("bbbc039", ".tif", arguments.field + 1)[arguments.field]
    psf = defocus_psf(MICROSCOPE, arguments.um)
    image = CAMERA.record(blur(field, psf), np.random.default_rng(arguments.field))
    normalization = measure_normalization(ImageView.of(image), model.config.percentiles)
    plan = TilePlan.of(*image.shape, multiple=model.config.network.size_multiple, tile_px=4096)
    place = plan.source(0, 0, plan.padded_height, plan.padded_width)
    plane = normalization.apply(image, 0)[np.ix_(*place)]
    runner = Runner(model.network, "cpu", "float32")
    whole = runner(plane[None, None])[0, 0]
    rings: dict[int, list[np.ndarray]] = {}
    for y, x, restored in tiles(runner, plane, model.config.network, arguments.tile):
        square = (restored - whole[y : y + arguments.tile, x : x + arguments.tile]) ** 2
        ring = way_to_edge(plan, y, x, arguments.tile) // RING_PX
        for number in np.unique(ring):
            rings.setdefault(int(number), []).append(square[ring == number])
    peak = peak_of(field) / (normalization.high[0] - normalization.low[0])
    print("| pixels from the edge | difference |\n|---|---|")
    for number in sorted(rings):
        level = np.sqrt(np.mean(np.concatenate(rings[number]))) / peak * 1e4
        print(f"| {number * RING_PX} to {(number + 1) * RING_PX} | {level:.1f} |")


if __name__ == "__main__":
    main()
