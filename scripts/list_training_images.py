"""Write the lists of training and validation images of the bundled model: train.txt and validation.txt.

Reads the two data sets of MPT_DEBLUR_DATA with their own splits, and leaves out of both

- what nearly repeats the image that the stardist package ships (the demo's image): a patch of one is found in the
  other with a normalised cross-correlation above 0.8;
- images of fewer than 40 grey levels (they show steps, not intensities), and of the validation fewer than 64;
- images whose own noise is above 3 % of their range: a network is not to learn it.

    python scripts/list_training_images.py OUTPUT_FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from skimage.feature import match_template
from skimage.io import imread
from skimage.restoration import estimate_sigma

from napari_mpt_deblur.optics.sample import sample_focus_stack

DATA = Path(os.environ.get("MPT_DEBLUR_DATA", Path(__file__).parents[1] / "../shared/data"))
PATCH = 160  # large enough to hold many nuclei: one round spot looks like any other
SAME = 0.8
NOISE = 0.03


def repeats_sample(image: np.ndarray, sample: np.ndarray) -> float:
    """Largest correlation of patches of the sample with the image, at the image's own scale."""
    best = 0.0
    steps = range(0, sample.shape[0] - PATCH + 1, PATCH)
    for y in steps:
        for x in steps:
            patch = sample[y : y + PATCH, x : x + PATCH]
            if patch.std() > 0.2 * sample.std():  # an empty patch correlates with any emptiness
                best = max(best, float(match_template(image, patch).max()))
    return best


def main(folder: str) -> None:
    sample = sample_focus_stack().sharp
    lists: dict[str, list[str]] = {"train": [], "validation": []}
    for name, suffix in (("bbbc039", ".tif"), ("dsb2018_fluo", ".png")):
        for entry in json.loads((DATA / name / "index.json").read_text()):
            path = DATA / name / "images" / (entry["id"] + suffix)
            levels = entry.get("p999", entry.get("max"))
            if levels < (40 if entry["split"] == "train" else 64):
                continue
            image = imread(path).astype(np.float32)
            low, high = np.percentile(image, (1, 99.8))
            noise = float(estimate_sigma(image)) / max(high - low, 1)
            if noise > NOISE:
                print(f"left out, noise is {noise:.2f} of the range: {path.name}")
                continue
            likeness = repeats_sample(image, sample)
            if likeness > SAME:
                print(f"left out, repeats the sample ({likeness:.2f}): {path.name}")
                continue
            lists[entry["split"]].append(str(path.resolve()))
    for split, paths in lists.items():
        target = Path(folder) / f"{split}.txt"
        target.write_text("\n".join(paths) + "\n")
        print(f"{target}: {len(paths)} images")


if __name__ == "__main__":
    main(sys.argv[1])
