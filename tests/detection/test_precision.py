"""Average precision against stardist's own, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detection.drawing import pairs, rectangles
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stardist.matching import matching, matching_dataset

from napari_mpt_deblur.detection.precision import (
    MatchCounts,
    average_precision,
    count_matches,
    count_matches_by_plane,
)
from napari_mpt_deblur.errors import LabelsError, ParameterError

THRESHOLDS = (0.3, 0.5, 0.7, 0.9, 1.0)


@settings(max_examples=200, deadline=None)
@given(pairs((9, 11)))
def test_counts_are_stardists(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, labels = pair
    expected = [(match.tp, match.fp, match.fn) for match in matching(truth, labels, thresh=THRESHOLDS)]
    assert [(count.tp, count.fp, count.fn) for count in count_matches(truth, labels, THRESHOLDS)] == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(pairs((7, 8)), min_size=1, max_size=4))
def test_stacks_are_stardists_data_sets(planes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    truth, labels = (np.stack(stack) for stack in zip(*planes, strict=True))
    pooled = matching_dataset(list(truth), list(labels), thresh=THRESHOLDS, show_progress=False)
    counted = any(match.n_true + match.n_pred for match in pooled)
    expected = [match.accuracy if counted else 1.0 for match in pooled]  # stardist calls nothing against nothing 0
    np.testing.assert_allclose(average_precision(truth, labels, THRESHOLDS), expected)
    each = [average_precision(*pair, THRESHOLDS) for pair in planes]
    np.testing.assert_allclose(average_precision(truth, labels, THRESHOLDS, by="image"), np.mean(each, axis=0))


@settings(max_examples=60, deadline=None)
@given(rectangles((9, 11)), st.permutations(range(1, 10)), st.sampled_from(["u1", "i2", "u4", "u8", ">i4", "f4", "f8"]))
def test_the_numbers_of_objects_do_not_matter(labels: np.ndarray, order: list[int], dtype: str) -> None:
    renumbered = np.array([0, *order])[labels].astype(dtype)
    assert average_precision(labels, renumbered).tolist() == [1, 1, 1]


@given(arrays(np.int64, 3, elements=st.integers(0, 99)), arrays(np.int64, 3, elements=st.integers(0, 99)))
def test_counts_add(first: np.ndarray, second: np.ndarray) -> None:
    assert MatchCounts(*first) + MatchCounts(*second) == MatchCounts(*(first + second))
    assert 0 <= MatchCounts(*first).average_precision <= 1


def test_by_hand() -> None:
    truth, labels = np.zeros((2, 10, 10), int)
    truth[0:2, 0:5] = 1  # found all but 3 of 10 pixels: IoU 0.7
    labels[0:2, 0:5] = 4
    labels[0, 0:3] = 0
    truth[4:6, 0:5] = 2  # missed
    labels[8:10, 5:9] = 9  # not there
    assert count_matches(truth, labels, (0.5, 0.7, 0.71)) == (
        MatchCounts(1, 1, 1),
        MatchCounts(1, 1, 1),
        MatchCounts(0, 2, 2),
    )
    values = average_precision(truth, labels)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, [1 / 3, 1 / 3, 0])
    # limits of numpy's type are the same limits
    np.testing.assert_array_equal(average_precision(truth, labels, np.array([0.5, 0.7, 0.9])), values)


def test_pooled_is_not_per_image() -> None:
    truth = np.zeros((2, 3, 4, 4), int)  # six planes, with a time axis in front
    truth[0, 0, 0, :3] = 1, 2, 3
    truth[1, 1, 0, 0] = 1
    labels = truth.copy()
    labels[1, 1] = 0
    assert average_precision(truth, labels, [0.5]) == [3 / 4]
    assert average_precision(truth, labels, [0.5], by="image") == [5 / 6]
    assert count_matches_by_plane(truth, labels, [0.5])[4] == (MatchCounts(0, 0, 1),)


def test_a_number_in_two_planes_is_two_objects() -> None:
    truth = np.ones((2, 3, 3), int)
    labels = np.stack([np.ones((3, 3), int), np.zeros((3, 3), int)])
    assert count_matches(truth, labels, [0.5]) == (MatchCounts(1, 0, 1),)


def test_nothing_against_nothing_is_perfect() -> None:
    nothing, something = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert average_precision(nothing, nothing).tolist() == [1, 1, 1]
    assert average_precision(nothing, something).tolist() == [0, 0, 0]
    assert average_precision(something, nothing).tolist() == [0, 0, 0]


def test_huge_numbers_cost_no_memory() -> None:
    labels = np.zeros((4, 4), np.uint64)
    labels[0, 0], labels[2, 2] = 2**62, 2**63 - 1
    assert average_precision(labels, labels).tolist() == [1, 1, 1]


@pytest.mark.parametrize("thresholds", [(), (0,), (1.01,), (float("nan"),), ("a",), 0.5])
def test_thresholds_that_make_no_sense(thresholds: Any) -> None:
    with pytest.raises(ParameterError, match="above 0, up to 1"):
        average_precision(np.zeros((2, 2), int), np.zeros((2, 2), int), thresholds)


def test_by_something_else() -> None:
    with pytest.raises(ParameterError, match="pooled"):
        average_precision(np.zeros((2, 2), int), np.zeros((2, 2), int), by="plane")  # type: ignore[arg-type]


def test_truth_of_another_shape() -> None:
    with pytest.raises(LabelsError, match=r"truth \(4 x 4\) and the labels \(2 x 4 x 4\) differ in shape"):
        average_precision(np.zeros((4, 4), int), np.zeros((2, 4, 4), int))
