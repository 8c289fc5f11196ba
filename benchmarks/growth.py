"""Time and peak memory of a restoration against the image's size.

    python benchmarks/growth.py [--model NAME] [--precision auto] [--sizes 512 1024 2048 4096]

Each size runs in a process of its own, so that peaks do not mix. "Working memory" is the peak resident memory less that
before the run, when libraries, model, image and result are there already; every page of the result is touched first.
On a busy machine run it with OMP_NUM_THREADS=1 and read the processor seconds: threads that wait for each other count
there too.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from timing import in_fresh_process, peak_bytes


def square(side: int) -> np.ndarray:
    """The blurriest plane of the sample, repeated to (side, side) uint16."""
    from napari_mpt_deblur.optics.sample import sample_focus_stack

    plane = sample_focus_stack().stack[0]
    repeats = [-(-side // length) for length in plane.shape]
    return np.tile(plane, repeats)[:side, :side].copy()


def measure(model_name: str, precision: str, side: int) -> dict:
    """One run, in this process."""
    from napari_mpt_deblur import load_model
    from napari_mpt_deblur.images import ImageView
    from napari_mpt_deblur.restoration import Deblurrer

    deblurrer = Deblurrer(load_model(model_name), precision=precision)
    small = square(deblurrer.settings.network.size_multiple)
    finish(deblurrer.run(ImageView.of(small)))  # what the first pass loads stays out of the figures
    image = square(side)
    out = np.empty_like(image)
    out[:] = 1
    before = peak_bytes()
    started, processor = time.perf_counter(), time.process_time()
    record = finish(deblurrer.run(ImageView.of(image), out=out))
    return {
        "side": side,
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
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.model, options.precision, options.one)))
        return
    print("| image | tiles | of | precision | seconds | processor s | a megapixel | working memory | whole process |")
    print("|---|---|---|---|---|---|---|---|---|")
    for side in options.sizes:
        chosen = "--model", options.model, "--precision", options.precision, "--one", str(side)
        row = in_fresh_process(__file__, *chosen)
        height, width = row["tile_px"]
        cells = (
            f"{side} x {side}",
            f"{row['tiles']}",
            f"{height} x {width}",
            row["precision"],
            f"{row['seconds']:.1f}",
            f"{row['processor_seconds']:.1f}",
            f"{row['processor_seconds'] / side**2 * 1e6:.2f}",
            f"{row['working_mb']:.0f} MB",
            f"{row['process_mb']:.0f} MB",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
