"""Seconds for a 520 x 696 plane against Richardson-Lucy: 50 iterations of scikit-image with a 129-pixel PSF.

    python benchmarks/against_deconvolution.py [--model NAME] [--rounds 5]

All take turns in one process, and may use all processor cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from skimage.restoration import richardson_lucy
from timing import options_parser, print_head, print_rows, take_turns

from napari_mpt_deblur import deblur, load_model
from napari_mpt_deblur.optics.sample import sample_focus_stack
from napari_mpt_deblur.restoration import available_precisions

HEIGHT, WIDTH, PSF_SIDE, ITERATIONS = 520, 696, 129, 50


def disc(side: int, radius: float) -> np.ndarray:
    """A defocus disc, (side, side), summing to 1; its shape does not matter for the time."""
    position = np.arange(side) - side // 2
    inside = (np.hypot(position[:, None], position) <= radius).astype(np.float64)
    return inside / inside.sum()


def main() -> None:
    parser = options_parser(__doc__, rounds=5)
    parser.add_argument("--model", default="nuclei")
    options = parser.parse_args()
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
    print_head("Richardson-Lucy")
    print_rows(take_turns(runs, options.rounds, options.processor), next(iter(runs)))


if __name__ == "__main__":
    main()
