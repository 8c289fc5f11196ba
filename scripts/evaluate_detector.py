"""Measure a detector, and what deblurring wins back for it, and write its card.

    python scripts/evaluate_detector.py DETECTOR --card CARD.md [--blurred OTHER] [--model NAME] [--fields 18]

BBBC039 validation fields are defocused and recorded as in scripts/evaluate_model.py, restored with the deblurring
model, and the detector looks at each. OTHER is a detector that was trained on blurred images (scripts/train_detector.py
--blurred); it looks at the blurred fields alone. Needs MPT_DEBLUR_DATA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evaluate_model import CAMERA, DATA, DEPTHS_UM, MICROSCOPE
from skimage.io import imread

from napari_mpt_deblur import deblur, detect, load_model
from napari_mpt_deblur.detection import Detector, load_detector
from napari_mpt_deblur.detection.precision import THRESHOLDS, MatchCounts, count_matches, precision_of
from napari_mpt_deblur.optics.psf import blur, defocus_psf

SMALLEST_PX = 20  # smaller objects, of truth and of what is found, are debris; they are counted in the second table

MEASURING, CHOOSING = 0, 1  # halves of the validation images; scripts/choose_thresholds.py has the other

Counts = list[tuple[MatchCounts, ...]]


class Field(NamedTuple):
    """A sharp image and its true labels."""

    image: np.ndarray
    truth: np.ndarray


def validation_fields(name: str, suffix: str, count: int = 10**9, half: int = MEASURING) -> list[Field]:
    """Evenly spaced images of one half of the validation images, none left out for its quality."""
    entries = [e for e in json.loads((DATA / name / "index.json").read_text()) if e["split"] == "validation"][half::2]
    step = max(1, len(entries) // count)
    return [
        Field(
            imread(DATA / name / "images" / (entry["id"] + suffix)).astype(np.float32),
            imread(DATA / name / "masks" / (entry["id"] + ".png")).astype(np.int32),
        )
        for entry in entries[::step][:count]
    ]


def without_debris(labels: np.ndarray) -> np.ndarray:
    """Without objects below `SMALLEST_PX`."""
    areas = np.bincount(labels.ravel())
    return np.where(areas[labels] >= SMALLEST_PX, labels, 0)


def matched(field: Field, image: np.ndarray, detector: Detector, debris: bool = False) -> tuple[MatchCounts, ...]:
    """Objects of an image against the truth, by threshold."""
    labels, truth = detect(image, detector, axes="YX"), field.truth
    return count_matches(truth, labels) if debris else count_matches(without_debris(truth), without_debris(labels))


def precisions(counts: Counts) -> np.ndarray:
    """Pooled average precision at `THRESHOLDS`, then their mean."""
    values = precision_of(counts, pooled=True)
    return np.array([*values, np.mean(values)])


def depth_table(fields: list[Field], detector: Detector, other: Detector | None, model: str) -> list[dict]:
    """Average precision of blurred and restored fields, by depth, and the share of the loss that was won back."""
    network = load_model(model)
    sharp = precisions([matched(field, field.image, detector) for field in fields])
    rows = [{"um": "sharp", "ap": sharp}]
    for depth in DEPTHS_UM:
        psf = defocus_psf(MICROSCOPE, depth)
        counts: dict[str, Counts] = {"blurred": [], "restored": [], "other": []}
        for number, field in enumerate(fields):
            blurred = CAMERA.record(blur(field.image, psf), np.random.default_rng([number, depth]))
            counts["blurred"].append(matched(field, blurred, detector))
            counts["restored"].append(matched(field, deblur(blurred, network, axes="YX"), detector))
            if other is not None:
                counts["other"].append(matched(field, blurred, other))
        row = {name: precisions(values) for name, values in counts.items() if values}
        lost = sharp[-1] - row["blurred"][-1]
        won = (row["restored"][-1] - row["blurred"][-1]) / lost if lost > 0.02 else None
        rows.append({"um": depth, **row, "won": won})
    return rows


def _cells(values: np.ndarray) -> str:
    return " | ".join(f"{value:.3f}" for value in values)


def card(detector: Detector, own: dict[str, np.ndarray], rows: list[dict], model: str, fields: int) -> str:
    """The detector's card in Markdown."""
    described, training = detector.description, detector.description.training
    parameters = sum(p.numel() for p in detector.network.parameters())
    heads = " | ".join(f"AP {limit}" for limit in THRESHOLDS)
    lines = [
        f"# {detector.name} (detection)",
        "",
        described.description,
        "",
        f"- **Network**: StarDist 2D, {parameters / 1e6:.2f} M parameters, {detector.config.n_rays} rays, "
        f"grid {detector.config.grid}, {detector.config.unet_n_filter_base} filters; thresholds "
        f"{detector.thresholds.prob:.3f} (probability) and {detector.thresholds.nms:.2f} (NMS)",
        f"- **Data**: {training.get('data', 'not recorded')}",
        f"- **Licence**: {described.licence}",
        f"- **Recipe**: `scripts/train_detector.py` with StarDist itself, seed {training.get('seed', '?')}, commit "
        f"{training.get('commit', 'not recorded')}: `{json.dumps(training.get('recipe', {}))}`",
        *([f"- **Note**: {training['note']}"] if training.get("note") else []),
        f"- **Weights**: SHA-256 `{detector.sha256}`",
        "- **Figures**: `scripts/evaluate_detector.py`, on half of the validation images; the other half chose the "
        "thresholds, both together the epoch; `stardist.matching`, counts pooled over the images; the mean AP "
        "is the mean of those at the three thresholds",
        "",
        "## On sharp images",
        "",
        f"Objects below {SMALLEST_PX} pixels are debris: left out of truth and result alike, but for the rows that say "
        "so.",
        "",
        f"| images | {heads} | mean |",
        "|---" * 5 + "|",
        *(f"| {name} | {_cells(values)} |" for name, values in own.items()),
        "",
        "## What defocus takes, and what deblurring wins back",
        "",
        f"{fields} BBBC039 validation fields, defocused and recorded as in the deblurring model's card, restored with "
        f"`{model}`. Won back: (restored - blurred) / (sharp - blurred) of the mean AP, where more than 0.02 was lost.",
        "",
    ]
    other = any("other" in row for row in rows)
    lines.append(
        f"| um | blurred: {heads} | mean | restored: {heads} | mean | won back |"
        + (" trained on blurred fields, mean |" if other else "")
    )
    lines.append("|---" * (11 if other else 10) + "|")
    for row in rows:
        if "ap" in row:
            lines.append(f"| {row['um']} | {_cells(row['ap'])} | | | | | |" + (" |" if other else ""))
            continue
        won = "" if row["won"] is None else f"**{100 * row['won']:.0f} %**"
        last = f" {row['other'][-1]:.3f} |" if other else ""
        lines.append(f"| {row['um']} | {_cells(row['blurred'])} | {_cells(row['restored'])} | {won} |{last}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--blurred", help="a detector that was trained on blurred images")
    parser.add_argument("--model", default="nuclei", help="the model that deblurs")
    parser.add_argument("--fields", type=int, default=18)
    arguments = parser.parse_args()
    detector = load_detector(arguments.detector)
    other = load_detector(arguments.blurred) if arguments.blurred else None
    fields = validation_fields("bbbc039", ".tif", arguments.fields)
    others = validation_fields("dsb2018_fluo", ".png")
    own = {
        f"BBBC039, {len(fields)} fields": precisions([matched(f, f.image, detector) for f in fields]),
        "the same with debris": precisions([matched(f, f.image, detector, debris=True) for f in fields]),
        f"Data Science Bowl 2018, {len(others)} images": precisions([matched(f, f.image, detector) for f in others]),
    }
    rows = depth_table(fields, detector, other, arguments.model)
    arguments.card.write_text(card(detector, own, rows, arguments.model, len(fields)), encoding="utf-8")
    print(arguments.card.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
