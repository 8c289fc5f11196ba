"""Seconds to find the nuclei of a 520 x 696 plane, against StarDist with TensorFlow: the same weights, the same plane.

    python benchmarks/against_tensorflow.py STARDIST_FOLDER [--rounds 5]

in an environment that has this package and TensorFlow (that of `tox -e parity`). Both take turns in one process, so
that what else the machine does weighs on both; both do the whole of it, from grey levels to labels, and may use all
processor cores.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from csbdeep.utils import normalize
from stardist.matching import matching
from stardist.models import StarDist2D

from napari_mpt_deblur import detect
from napari_mpt_deblur.detection import load_folder
from napari_mpt_deblur.optics.sample import sample_focus_stack

HEIGHT, WIDTH = 520, 696


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    plane = np.tile(sample_focus_stack().sharp, (2, 2))[:HEIGHT, :WIDTH].astype(np.float32)
    theirs = StarDist2D(None, name=options.folder.name, basedir=str(options.folder.parent))
    ours = load_folder(options.folder, device="cpu")
    runs: dict[str, Callable[[], np.ndarray]] = {
        "StarDist with TensorFlow": lambda: theirs.predict_instances(normalize(plane, 1, 99.8))[0],
        "detect": lambda: detect(plane, ours, axes="YX"),
    }
    labels = [run() for run in runs.values()]  # first passes load and compile
    agreement = matching(labels[0], labels[1], thresh=0.9).accuracy
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    reference = times[next(iter(runs))]
    print(f"{labels[0].max()} nuclei; AP of one against the other at IoU 0.9: {agreement:.3f}\n")
    print("| | median seconds | fastest to slowest | ratio to TensorFlow (median of rounds) |")
    print("|---|---|---|---|")
    for name, taken in times.items():
        ratio = np.median(np.divide(taken, reference))
        print(f"| {name} | {np.median(taken):.2f} | {min(taken):.2f} to {max(taken):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
