"""Before against after: figures by hand, what JSON holds, and what is left out without truth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from detection.drawing import rectangles
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mpt_deblur.detection.comparison import CURVE_THRESHOLDS, compare, gain_percent
from napari_mpt_deblur.detection.precision import MatchCounts, average_precision, count_matches
from napari_mpt_deblur.errors import LabelsError, ParameterError


def three(*lengths: int) -> np.ndarray:
    """A plane with a nucleus in each of as many rows, of so many of 10 pixels."""
    labels = np.zeros((2 * len(lengths), 12), int)
    for row, length in enumerate(lengths):
        labels[2 * row, :length] = row + 1
    return labels


def test_by_hand() -> None:
    truth, before, after = three(10, 10, 10), three(10, 6, 0), three(10, 8, 6)
    comparison = compare(before, after, truth=truth)
    figures = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert (figures["truth"], figures["pooled"], figures["planes"]) == ("truth", True, 1)
    ap = [(2 / 3, 1), (1 / 4, 1 / 2), (1 / 4, 1 / 5)]  # 1 and 2 of 3; then 1 is right, and so on
    ap[1] = (1 / (1 + 1 + 2), 2 / (2 + 1 + 1))
    ap[2] = (1 / 4, 1 / 5)
    assert [entry["threshold"] for entry in figures["ap"]] == [0.5, 0.7, 0.9]
    np.testing.assert_allclose([(entry["before"], entry["after"]) for entry in figures["ap"]], ap)
    np.testing.assert_allclose(list(figures["mean_ap"].values()), np.mean(ap, axis=0))
    assert figures["counts"][1] == {
        "threshold": 0.7,
        "before": {"tp": 1, "fp": 1, "fn": 2},
        "after": {"tp": 2, "fp": 1, "fn": 1},
    }
    np.testing.assert_allclose([entry["gain"] for entry in figures["gain_percent"]["ap"]], [50, 100, -20])
    means = np.mean(ap, axis=0)
    assert figures["gain_percent"]["mean_ap"] == pytest.approx(100 * (means[1] / means[0] - 1))
    assert figures["ledger"]["before"] == {
        "nuclei": 2, "kept": 2, "split": 0, "merged": 0, "lost": 0, "right": 2, "wrong": 0
    }  # fmt: skip
    assert figures["ledger"]["after"]["gained"] == 1


def test_without_truth_there_is_no_average_precision() -> None:
    comparison = compare(three(10, 6), three(10, 8))
    figures = comparison.to_dict()
    assert figures["truth"] is None
    for name in ("ap", "mean_ap", "gain_percent", "counts", "curve"):
        assert figures[name] is None
    assert "No truth was given" in figures["notes"][0]
    assert figures["ledger"]["after"]["kept"] == 2
    with pytest.raises(ParameterError, match="No truth"):
        _ = comparison.means


def test_a_rise_from_nothing_has_no_percentage() -> None:
    truth = three(10)
    comparison = compare(three(0), truth, truth=truth, truth_is="pseudo-reference")
    figures = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert figures["truth"] == "pseudo-reference"
    assert figures["mean_ap"] == {"before": 0, "after": 1}
    assert figures["gain_percent"]["mean_ap"] is None
    assert any("per cent does not exist" in note for note in figures["notes"])


def test_nothing_against_nothing_is_stated() -> None:
    nothing = np.zeros((4, 12), int)
    figures = compare(nothing, three(10, 0), truth=nothing).to_dict()
    assert figures["mean_ap"] == {"before": 1, "after": 0}
    assert any("counts as an average precision of 1" in note for note in figures["notes"])
    assert not any("counts as" in note for note in compare(three(1), three(1), truth=three(1)).notes)


def test_gain_percent() -> None:
    assert gain_percent(0.4, 0.6) == pytest.approx(50)
    assert gain_percent(0.4, 0.0) == -100
    assert gain_percent(0.0, 0.0) == 0
    assert gain_percent(0.0, 0.1) is None


def test_per_image_or_pooled() -> None:
    truth = np.stack([three(10, 10, 10), three(10, 0, 0)])
    before = np.stack([three(10, 10, 10), three(0, 0, 0)])
    pooled, single = (compare(before, truth, truth=truth, pooled=pooled) for pooled in (True, False))
    assert (pooled.pooled, single.pooled, single.plane_count) == (True, False, 2)
    assert [score.before for score in pooled.scores] == [3 / 4] * 3
    assert [score.before for score in single.scores] == [1 / 2] * 3
    assert single.scores[0].counts_before == pooled.scores[0].counts_before == MatchCounts(3, 0, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[rectangles((7, 8))] * 3), min_size=1, max_size=3), st.booleans(), st.booleans(), st.booleans()
)
def test_figures_are_those_of_average_precision_and_json_takes_them(
    planes: list[tuple[np.ndarray, ...]], pooled: bool, with_truth: bool, with_raw: bool
) -> None:
    truth, before, after = (np.stack(stack) for stack in zip(*planes, strict=True))
    raw = before * 3 if with_raw else None
    comparison = compare(before, after, raw, truth=truth if with_truth else None, pooled=pooled)
    json.dumps(comparison.to_dict(), allow_nan=False)
    if not with_truth:
        assert comparison.curve == ()
        return
    by = "pooled" if pooled else "image"
    for labels, side in ((before, "before"), (after, "after")):
        expected = average_precision(truth, labels, CURVE_THRESHOLDS, by=by)  # type: ignore[arg-type]
        np.testing.assert_allclose([getattr(score, side) for score in comparison.curve], expected)
        counts = count_matches(truth, labels, CURVE_THRESHOLDS)
        assert tuple(getattr(score, f"counts_{side}") for score in comparison.curve) == counts
    assert [score.threshold for score in comparison.scores] == [0.5, 0.7, 0.9]


@pytest.mark.parametrize(
    ("keywords", "error"),
    [({"truth": np.zeros((3, 3), int)}, LabelsError), ({"truth": three(1), "truth_is": "gospel"}, ParameterError)],
)
def test_what_makes_no_sense(keywords: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        compare(three(1), three(1), **keywords)
