"""Before against after: average precision of both where there is truth, and the ledger of nuclei in any case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from napari_mpt_deblur.detection.labels import as_labels, spread_plane
from napari_mpt_deblur.detection.ledger import Ledger, Probabilities, ledger
from napari_mpt_deblur.detection.precision import THRESHOLDS, MatchCounts, count_matches_by_plane, precision_of
from napari_mpt_deblur.errors import ParameterError

Truth = Literal["truth", "reference", "pseudo-reference"]
CURVE_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))  # 0.5 to 0.95
_NO_TRUTH = (
    "No truth was given, so there is no average precision: how alike the labels before and after are does not say "
    "which are right."
)
_NOTHING = "Nothing was found where nothing is, which counts as an average precision of 1."
_NO_RAW = "No raw image was given, so intensities and evidence are not known."


@dataclass(frozen=True)
class Score:
    """How the labels before and after do at one threshold, of all planes.

    Attributes
    ----------
    threshold : float
        Least intersection over union of a match.
    before, after : float
        Average precision, 0 to 1.
    counts_before, counts_after : MatchCounts
        Of all planes together, pooled or not.
    """

    threshold: float
    before: float
    after: float
    counts_before: MatchCounts
    counts_after: MatchCounts

    @property
    def gain_percent(self) -> float | None:
        """See `gain_percent`."""
        return gain_percent(self.before, self.after)


@dataclass(frozen=True)
class Comparison:
    """What became of the nuclei from before to after, and which was nearer to the truth.

    Attributes
    ----------
    curve : tuple of Score
        At the thresholds from 0.5 to 0.95 in steps of 0.05; empty without truth.
    ledger : Ledger
    truth : {"truth", "reference", "pseudo-reference"} or None
        What both were held to: labels known to be true; those detected by the same model in a sharp image, or in the
        sharpest plane of the stack; or nothing.
    pooled : bool
        Whether average precision is that of the objects of all planes together, or else the mean of the planes'.
    plane_count : int
    notes : tuple of str
        What the figures leave unsaid, a sentence each.
    """

    curve: tuple[Score, ...]
    ledger: Ledger
    truth: Truth | None
    pooled: bool
    plane_count: int
    notes: tuple[str, ...]

    @property
    def scores(self) -> tuple[Score, ...]:
        """At the thresholds 0.5, 0.7 and 0.9; empty without truth."""
        return tuple(score for score in self.curve if score.threshold in THRESHOLDS)

    @property
    def means(self) -> tuple[float, float, float | None]:
        """The paper's Mean AP before and after, the mean of the values at 0.5, 0.7 and 0.9, and its gain in per cent.

        Raises
        ------
        ParameterError
            Without truth.
        """
        if not self.curve:
            raise ParameterError(_NO_TRUTH)
        before, after = (
            math.fsum(getattr(score, side) for score in self.scores) / len(THRESHOLDS) for side in ("before", "after")
        )
        return before, after, gain_percent(before, after)

    def to_dict(self) -> dict[str, Any]:
        """All figures for JSON: no NaN, no infinity; null for what does not exist.

        Returns
        -------
        dict
            ``truth``, ``pooled``, ``planes``; ``ap``, ``mean_ap``, ``gain_percent``, ``counts`` and ``curve``, null
            without truth; ``ledger``, the totals; ``notes``.
        """
        scores = self.scores
        figures: dict[str, Any] = dict.fromkeys(("ap", "mean_ap", "gain_percent", "counts", "curve"))
        if self.curve:
            before, after, gain = self.means
            figures = {
                "ap": [_values(score) for score in scores],
                "mean_ap": {"before": before, "after": after},
                "gain_percent": {
                    "ap": [{"threshold": score.threshold, "gain": score.gain_percent} for score in scores],
                    "mean_ap": gain,
                },
                "counts": [_counts(score) for score in scores],
                "curve": [_values(score) for score in self.curve],
            }
        return {
            "truth": self.truth,
            "pooled": self.pooled,
            "planes": self.plane_count,
            **figures,
            "ledger": self.ledger.totals(),
            "notes": list(self.notes),
        }


def compare(
    before: Any,
    after: Any,
    raw: Any = None,
    *,
    truth: Any = None,
    truth_is: Truth = "truth",
    pooled: bool = True,
    probabilities: tuple[Probabilities | None, Probabilities | None] | None = None,
    pixel_size_um: float | None = None,
) -> Comparison:
    """Compare the labels before with those after.

    Parameters
    ----------
    before, after : array_like
        Label images of one shape, (..., Y, X).
    raw : array_like, optional
        The image before, as recorded; for intensities and evidence.
    truth : array_like, optional
        Labels of the same shape to hold both to; one plane serves all of a stack. Without it there is no average
        precision: that of `after` against `before` would be no measure of quality.
    truth_is : {"truth", "reference", "pseudo-reference"}
        What to call it: "reference" is what the same model detects in a sharp image, "pseudo-reference" in the
        sharpest plane of the stack.
    pooled : bool
        Whether to count the objects of all planes together, or to take the mean of the planes' average precisions.
    probabilities, pixel_size_um
        See `napari_mpt_deblur.detection.ledger.ledger`.

    Returns
    -------
    Comparison

    Raises
    ------
    LabelsError, ImageError, ParameterError
        As `ledger` does, or if `truth_is` is none of those.
    """
    if truth_is not in get_args(Truth):
        raise ParameterError(f"truth_is must be one of {', '.join(get_args(Truth))}; got {truth_is!r}.")
    before, after = as_labels(before, "labels before"), as_labels(after, "labels after")
    notes = [_NO_TRUTH] * (truth is None) + [_NO_RAW] * (raw is None)
    if truth is not None:
        given = as_labels(truth, "truth")
        truth = spread_plane(given, before.shape)
        if truth is not given:
            notes.append(f"One plane of the {truth_is} serves several planes.")
    entries = ledger(before, after, raw, truth=truth, probabilities=probabilities, pixel_size_um=pixel_size_um)
    curve = () if truth is None else _curve(truth, before, after, pooled=pooled)
    if curve and MatchCounts() in (curve[0].counts_before, curve[0].counts_after):
        notes.append(_NOTHING)
    if any(score.before == 0 < score.after for score in curve if score.threshold in THRESHOLDS):
        notes.append("Where the average precision before is 0, the gain in per cent does not exist.")
    planes = math.prod(before.shape[:-2])
    return Comparison(curve, entries, None if truth is None else truth_is, pooled, planes, tuple(notes))


def gain_percent(before: float, after: float) -> float | None:
    """The rise of a figure in per cent of what it was: 0 if it stayed 0, None if it rose from 0."""
    if before == after:
        return 0.0
    return 100 * (after - before) / before if before else None


def _curve(truth: Any, before: np.ndarray, after: np.ndarray, *, pooled: bool) -> tuple[Score, ...]:
    sides = [count_matches_by_plane(truth, labels, CURVE_THRESHOLDS) for labels in (before, after)]
    values = [precision_of(by_plane, pooled=pooled) for by_plane in sides]
    counts = [[sum(of_planes, MatchCounts()) for of_planes in zip(*by_plane, strict=True)] for by_plane in sides]
    return tuple(Score(*row) for row in zip(CURVE_THRESHOLDS, *values, *counts, strict=True))


def _values(score: Score) -> dict[str, float]:
    return {"threshold": score.threshold, "before": score.before, "after": score.after}


def _counts(score: Score) -> dict[str, Any]:
    return {
        "threshold": score.threshold,
        **{
            side: {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn}
            for side, counts in (("before", score.counts_before), ("after", score.counts_after))
        },
    }
