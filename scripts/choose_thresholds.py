"""Choose a detector's thresholds on a grid, and write them into its folder (thresholds.json).

    python scripts/choose_thresholds.py STARDIST_FOLDER

StarDist's own search (`optimize_thresholds`, which scripts/train_detector.py ends with) finds a local optimum of a few
images. This looks at every second validation image of both data sets, those that scripts/evaluate_detector.py leaves
out: the figure is the mean AP over the three thresholds of overlap, pooled, and the mean of both sets. Needs
MPT_DEBLUR_DATA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from evaluate_detector import CHOOSING, Field, precisions, validation_fields, without_debris

from napari_mpt_deblur import detect
from napari_mpt_deblur.detection import Detector, load_folder
from napari_mpt_deblur.detection.precision import count_matches

PROBABILITIES = np.arange(0.45, 0.81, 0.05).round(2)
OVERLAP = 0.4  # StarDist's own; 0.3 and 0.5 give the same to 0.001
ALIKE = 0.002


def mean_precision(detector: Detector, fields: list[Field], prob: float, nms: float) -> float:
    """Pooled mean AP of sharp images without debris."""
    counts = []
    for field in fields:
        found = detect(field.image, detector, axes="YX", prob=prob, nms=nms)
        counts.append(count_matches(without_debris(field.truth), without_debris(found)))
    return float(precisions(counts)[-1])


def main(folder: str) -> None:
    detector = load_folder(folder, device="cpu")
    sets = [
        validation_fields("bbbc039", ".tif", half=CHOOSING),
        validation_fields("dsb2018_fluo", ".png", half=CHOOSING),
    ]

    def measured(prob: float, nms: float) -> float:
        value = float(np.mean([mean_precision(detector, fields, prob, nms) for fields in sets]))
        print(f"probability {prob:.2f}, NMS {nms:.1f}: mean AP {value:.3f}", flush=True)
        return value

    by_prob = {float(prob): measured(prob, OVERLAP) for prob in PROBABILITIES}
    # the lowest of those that are as good: past the best one nuclei that are out of focus are soon lost
    prob = min(prob for prob, value in by_prob.items() if value >= max(by_prob.values()) - ALIKE)
    path = Path(folder) / "thresholds.json"
    path.write_text(json.dumps({"prob": prob, "nms": OVERLAP}), encoding="utf-8")
    print(f"{path}: {path.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
