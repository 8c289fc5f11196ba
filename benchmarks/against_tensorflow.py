"""Seconds to find the nuclei of a 520 x 696 plane, against StarDist with TensorFlow: the same weights, the same plane.

    python benchmarks/against_tensorflow.py STARDIST_FOLDER [--rounds 5]

in an environment that has this package and TensorFlow (that of `tox -e parity`). Both take turns in one process, do the
whole of it, from grey levels to labels, and may use all processor cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from csbdeep.utils import normalize
from stardist.matching import matching
from stardist.models import StarDist2D
from timing import options_parser, print_head, print_rows, take_turns

from napari_mpt_deblur import detect
from napari_mpt_deblur.detection import load_folder
from napari_mpt_deblur.optics.sample import sample_focus_stack

HEIGHT, WIDTH = 520, 696


def main() -> None:
    parser = options_parser(__doc__, rounds=5)
    parser.add_argument("folder", type=Path)
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
    print(f"{labels[0].max()} nuclei; AP of one against the other at IoU 0.9: {agreement:.3f}\n")
    print_head("TensorFlow")
    print_rows(take_turns(runs, options.rounds, options.processor), next(iter(runs)))


if __name__ == "__main__":
    main()
