"""A run's figures as texts to save: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison, Score
    from napari_mpt_deblur.widgets.detect.outcome import Outcome

FIGURES: tuple[tuple[str, Callable[[Score], Any]], ...] = (
    ("AP_before", lambda score: score.before),
    ("AP_after", lambda score: score.after),
    ("gain_percent", lambda score: score.gain_percent),
    ("TP_before", lambda score: score.counts_before.tp),
    ("TP_after", lambda score: score.counts_after.tp),
    ("FP_before", lambda score: score.counts_before.fp),
    ("FP_after", lambda score: score.counts_after.fp),
    ("FN_before", lambda score: score.counts_before.fn),
    ("FN_after", lambda score: score.counts_after.fn),
)


def table_csv(comparison: Comparison) -> str:
    """The figures at every threshold from 0.5 to 0.95, and the mean of those at 0.5, 0.7 and 0.9.

    Parameters
    ----------
    comparison : Comparison
        With truth.

    Returns
    -------
    str
        CSV with a header; a gain that does not exist is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["IoU", *(name for name, _ in FIGURES)])
    for score in comparison.curve:
        writer.writerow([f"{score.threshold:g}", *(value(score) for _, value in FIGURES)])
    means = comparison.means
    writer.writerow(["mean", *means, *[""] * (len(FIGURES) - len(means))])
    return text.getvalue()


def figures_json(outcome: Outcome) -> str:
    """What was found and how, for programs: no NaN, no infinity."""
    found = {"before": outcome.before, "after": outcome.after}
    values: dict[str, Any] = {
        "nuclei": {side: image.count for side, image in found.items() if image is not None},
        **(outcome.comparison.to_dict() if outcome.comparison is not None else {}),
        "run": outcome.record,
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
