"""What a model makes of fields out of focus: PSNR, SSIM and average precision by field and distance from focus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from evaluate_detector import without_debris

from napari_mpt_deblur import deblur, detect, load_model
from napari_mpt_deblur.detection import Detector
from napari_mpt_deblur.detection.precision import count_matches
from napari_mpt_deblur.evaluation.metrics import psnr, ssim
from proof.fields import Seen

Scores = dict[str, np.ndarray]
"""By figure, (fields, planes)."""


def restore_each(weights: str | Path, fields: Sequence[Seen]) -> list[np.ndarray]:
    """Every plane normalised alone, as an image that has no stack; each (Z, Y, X)."""
    model = load_model(weights, device="cpu")
    return [np.stack([deblur(plane, model, axes="YX", dtype="float32") for plane in field.planes]) for field in fields]


def restore_stack(weights: str | Path, fields: Sequence[Seen]) -> list[np.ndarray]:
    """All fields, of one size, as one stack that is normalised as a whole; each (Z, Y, X)."""
    stack = np.stack([field.planes for field in fields])
    return list(deblur(stack, load_model(weights, device="cpu"), axes="TZYX", dtype="float32"))


def score(restored: Sequence[np.ndarray], fields: Sequence[Seen], detector: Detector | None = None) -> Scores:
    """PSNR and SSIM of every plane; with a detector the mean of the AP at IoU 0.5, 0.7 and 0.9 as well."""
    figures: dict[str, Callable[[np.ndarray, Seen], float]] = {
        "psnr": lambda plane, field: psnr(plane, field.truth),
        "ssim": lambda plane, field: ssim(plane, field.truth),
    }
    if detector is not None:
        figures["ap"] = lambda plane, field: precision(plane, field, detector)
    return {
        name: np.array(
            [[figure(plane, field) for plane in planes] for planes, field in zip(restored, fields, strict=True)]
        )
        for name, figure in figures.items()
    }


def precision(image: np.ndarray, field: Seen, detector: Detector) -> float:
    """Mean average precision of what the detector finds in an image, debris left out."""
    found = without_debris(detect(image, detector, axes="YX"))
    counts = count_matches(without_debris(field.labels), found)
    return float(np.mean([each.average_precision for each in counts]))


def weights_key(weights: Path, fields: Sequence[Seen], detector: Detector | None = None) -> list[str]:
    """What scores depend on."""
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return [digest, detector.sha256 if detector is not None else "", *(field.name for field in fields)]


def kept_scores(path: Path, key: list[str], measure: Callable[[], Scores]) -> Scores:
    """Scores from a file, or measured and put there; `key` says what they depend on."""
    if path.exists():
        held = json.loads(path.read_text())
        if held["key"] == key:
            return {name: np.array(values) for name, values in held["scores"].items()}
    scores = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": key, "scores": {name: values.tolist() for name, values in scores.items()}}))
    return scores
