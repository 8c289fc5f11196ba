"""Time and peak memory of a restoration against the image's size, the stack's depth and the size of tiles.

    python benchmarks/growth.py [--model NAME] [--precision auto]
        [--sizes 512 1024 2048 4096] [--planes 1 4 16] [--tiles 256 384 512 768]

Stacks are of 512 x 512 pixels a plane; tiles of a given side cut a plane of 1024 x 1024. Each run is in a process
of its own, so that peaks do not mix. "Working memory" is the peak resident memory less that before the run, when
libraries, model, image and result are there already; every page of the result is touched first. On a busy machine
run it with OMP_NUM_THREADS=1 and read the processor seconds: threads that wait for each other count there too.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from timing import in_fresh_process, peak_bytes

STACK_SIDE, TILED_SIDE = 512, 1024


def square(side: int) -> np.ndarray:
    """The blurriest plane of the sample, repeated to (side, side) uint16."""
    from napari_mpt_deblur.optics.sample import sample_focus_stack

    plane = sample_focus_stack().stack[0]
    repeats = [-(-side // length) for length in plane.shape]
    return np.tile(plane, repeats)[:side, :side].copy()


def measure(model_name: str, precision: str, side: int, planes: int, tile_px: int | None) -> dict:
    """One run, in this process."""
    from napari_mpt_deblur import load_model
    from napari_mpt_deblur.images import ImageView
    from napari_mpt_deblur.restoration import Deblurrer

    deblurrer = Deblurrer(load_model(model_name), precision=precision, tile_px=tile_px)
    small = square(deblurrer.settings.network.size_multiple)
    finish(deblurrer.run(ImageView.of(small)))  # what the first pass loads stays out of the figures
    image = np.stack([square(side)] * planes) if planes > 1 else square(side)
    out = np.empty_like(image)
    out[:] = 1
    before = peak_bytes()
    started, processor = time.perf_counter(), time.process_time()
    record = finish(deblurrer.run(ImageView.of(image), out=out))
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
        "working_mb": (peak_bytes() - before) / 1e6,
        "process_mb": peak_bytes() / 1e6,
        "tiles": len(record["tiles"]["rows"]) * len(record["tiles"]["columns"]),
        "tile_px": record["tiles"]["tile_px"],
        "precision": record["precision"],
    }


def finish(steps) -> dict:  # type: ignore[no-untyped-def]
    """Drive a run to its end; returns its record."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 1024, 2048, 4096])
    parser.add_argument("--planes", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--tiles", type=int, nargs="*", default=[256, 384, 512, 768])
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, planes, tile_px = options.one
        print(json.dumps(measure(options.model, options.precision, side, planes, tile_px or None)))
        return
    print(
        "| image | tiles of a plane | of | precision | seconds | processor s | a megapixel | working memory | process |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    runs = [(side, 1, 0) for side in options.sizes]
    runs += [(STACK_SIDE, planes, 0) for planes in options.planes]
    runs += [(TILED_SIDE, 1, tile_px) for tile_px in options.tiles]
    for side, planes, tile_px in runs:
        chosen = "--model", options.model, "--precision", options.precision, "--one"
        row = in_fresh_process(__file__, *chosen, str(side), str(planes), str(tile_px))
        height, width = row["tile_px"]
        cells = (
            f"{planes} x {side} x {side}",
            f"{row['tiles']}",
            f"{height} x {width}",
            row["precision"],
            f"{row['seconds']:.1f}",
            f"{row['processor_seconds']:.1f}",
            f"{row['processor_seconds'] / (planes * side**2) * 1e6:.2f}",
            f"{row['working_mb']:.0f} MB",
            f"{row['process_mb']:.0f} MB",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
