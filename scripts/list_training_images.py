"""Write the lists of training and validation images of the bundled model: train.txt and validation.txt.

Reads the two data sets of MPT_DEBLUR_DATA with their own splits, and leaves out of both

- what nearly repeats the image that the stardist package ships (the demo's image): a patch of either is found in the
  other, turned or mirrored or as it is, with a normalised cross-correlation above 0.9, both at half their size;
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
from skimage.transform import downscale_local_mean

from napari_mpt_deblur.optics.sample import sample_focus_stack

DATA = Path(os.environ.get("MPT_DEBLUR_DATA", Path(__file__).parents[1] / "../shared/data"))
PATCH = 56  # at half size; large enough to hold many nuclei: one round spot looks like any other
SAME = 0.9  # chance matches of a few round nuclei reach 0.88 in these data, repeats 1.00
NOISE = 0.03


def repeats_sample(image: np.ndarray, sample: np.ndarray) -> float:
    """Largest correlation of patches of one with the other, in all orientations, at half their own scale.

    The smaller image is cut into patches that are looked for in the larger, so that an overlap of two
    patches' length a side holds one whole.
    """
    halves = (downscale_local_mean(each, (2, 2)) for each in (image, sample))
    small, large = sorted(halves, key=lambda each: each.size)
    best = 0.0
    for y in _starts(small.shape[0]):
        for x in _starts(small.shape[1]):
            patch = small[y : y + PATCH, x : x + PATCH]
            if patch.std() < 0.2 * small.std():  # an empty patch correlates with any emptiness
                continue
            for turned in (np.rot90(mirrored, k) for mirrored in (patch, patch[::-1]) for k in range(4)):
                if all(a <= b for a, b in zip(turned.shape, large.shape, strict=True)):
                    best = max(best, float(match_template(large, turned).max()))
    return best


def _starts(size: int) -> range:
    return range(0, max(1, size - PATCH + 1), PATCH)


def own_noise(image: np.ndarray) -> float:
    """Standard deviation of an image's pixel noise, in units of its range."""
    low, high = np.percentile(image, (1, 99.8))
    return float(estimate_sigma(image)) / max(float(high - low), 1.0)


def main(folder: str) -> None:
    sample = sample_focus_stack().sharp
    lists: dict[str, list[str]] = {"train": [], "validation": []}
    likenesses = []
    for name, suffix in (("bbbc039", ".tif"), ("dsb2018_fluo", ".png")):
        for entry in json.loads((DATA / name / "index.json").read_text()):
            path = DATA / name / "images" / (entry["id"] + suffix)
            levels = entry.get("p999", entry.get("max"))
            if levels < (40 if entry["split"] == "train" else 64):
                continue
            image = imread(path).astype(np.float32)
            if own_noise(image) > NOISE:
                print(f"left out, its own noise is too strong: {path.name}")
                continue
            likeness = repeats_sample(image, sample)
            if likeness > SAME:
                print(f"left out, repeats the sample ({likeness:.2f}): {path.name}")
                continue
            likenesses.append(likeness)
            lists[entry["split"]].append(str(path.resolve()))
    print("largest likenesses of what is kept:", np.round(sorted(likenesses)[-5:], 2))
    for split, paths in lists.items():
        target = Path(folder) / f"{split}.txt"
        target.write_text("\n".join(paths) + "\n")
        print(f"{target}: {len(paths)} images")


if __name__ == "__main__":
    main(sys.argv[1])
