"""Seconds for a 520 x 696 plane against Richardson-Lucy: 50 iterations of scikit-image with a 129-pixel PSF.

    python benchmarks/against_deconvolution.py [--model NAME] [--rounds 5]

All take turns in one process, so that what else the machine does weighs on all of them; medians and ratios are what
counts. All may use all processor cores; on a busy machine set OMP_NUM_THREADS=1 and give --processor, which compares
processor seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from skimage.restoration import richardson_lucy

from napari_mpt_deblur import deblur, load_model
from napari_mpt_deblur.optics.sample import sample_focus_stack
from napari_mpt_deblur.restoration import available_precisions

HEIGHT, WIDTH, PSF_SIDE, ITERATIONS = 520, 696, 129, 50


def disc(side: int, radius: float) -> np.ndarray:
    """A defocus disc, (side, side), summing to 1; its shape does not matter for the time."""
    position = np.arange(side) - side // 2
    inside = (np.hypot(position[:, None], position) <= radius).astype(np.float64)
    return inside / inside.sum()


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    run()
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", action="store_true", help="processor seconds instead of seconds")
    options = parser.parse_args()
    clock = time.process_time if options.processor else time.perf_counter
    plane = np.tile(sample_focus_stack().stack[0], (2, 2))[:HEIGHT, :WIDTH]
    scaled = plane / plane.max()
    model = load_model(options.model, device="cpu")
    runs: dict[str, Callable[[], object]] = {
        f"Richardson-Lucy, {ITERATIONS} iterations": partial(
            richardson_lucy, scaled, disc(PSF_SIDE, 12), num_iter=ITERATIONS
        )
    }
    for precision in available_precisions("cpu"):
        runs[f"{model.name}, {precision}"] = partial(deblur, plane, model, precision=precision, device="cpu")
    for run in runs.values():  # first passes load and plan
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, clock))
    reference = times[next(iter(runs))]
    print("| | median seconds | fastest to slowest | ratio to Richardson-Lucy (median of rounds) |")
    print("|---|---|---|---|")
    for name, taken in times.items():
        ratio = np.median(np.divide(taken, reference))
        print(f"| {name} | {np.median(taken):.2f} | {min(taken):.2f} to {max(taken):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
