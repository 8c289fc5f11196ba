"""Average precision, as StarDist and the paper define it: TP / (TP + FP + FN) at an intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_mpt_deblur.detection.labels import as_labels, as_planes, check_same_shape
from napari_mpt_deblur.errors import ParameterError

THRESHOLDS = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class MatchCounts:
    """How many objects were matched at one threshold; sums pool over images.

    Attributes
    ----------
    tp : int
        Truth objects matched one-to-one with an object found.
    fp : int
        Objects found that match no truth.
    fn : int
        Truth objects that nothing matches.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), 0 to 1; nothing found where nothing is, 0 / 0, is perfect: 1."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0


def count_matches(truth: Any, labels: Any, thresholds: Sequence[float] = THRESHOLDS) -> tuple[MatchCounts, ...]:
    """Match objects one-to-one, plane by plane, and pool the counts over all planes; see `count_matches_by_plane`."""
    by_plane = count_matches_by_plane(truth, labels, thresholds)
    return tuple(sum(of_planes, MatchCounts()) for of_planes in zip(*by_plane, strict=True))


def count_matches_by_plane(
    truth: Any, labels: Any, thresholds: Sequence[float] = THRESHOLDS
) -> list[tuple[MatchCounts, ...]]:
    """Match the objects of each plane one-to-one by `stardist.matching`.

    Parameters
    ----------
    truth, labels : array_like
        Label images of one shape, (..., Y, X); see `as_labels`. A number that occurs in several planes is an object in
        each of them.
    thresholds : sequence of float
        Objects match where their intersection over union is at least this; above 0, up to 1.

    Returns
    -------
    list of tuple of MatchCounts
        For each plane, one a threshold.

    Raises
    ------
    LabelsError
        If one is no label image, or their shapes differ.
    ParameterError
        If a threshold is out of range, or there is none.
    """
    from stardist.matching import matching  # lazily: it brings numba

    limits = _check_thresholds(thresholds)
    truth, labels = as_labels(truth, "truth"), as_labels(labels)
    check_same_shape(truth, labels, ("truth", "labels"))
    counts = []
    for truth_plane, plane in zip(as_planes(truth), as_planes(labels), strict=True):
        matches = matching(_compact(truth_plane), _compact(plane), thresh=limits)
        counts.append(tuple(MatchCounts(int(match.tp), int(match.fp), int(match.fn)) for match in matches))
    return counts


def average_precision(
    truth: Any,
    labels: Any,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    by: Literal["pooled", "image"] = "pooled",
) -> np.ndarray:
    """TP / (TP + FP + FN) of found objects against the true ones.

    Parameters
    ----------
    truth, labels : array_like
        Label images of one shape, (..., Y, X), 0 for background.
    thresholds : sequence of float
        Least intersection over union of a match, above 0 and up to 1. The mean of the result over the default three is
        the paper's "Mean AP".
    by : {"pooled", "image"}
        Objects are always matched within their plane. "pooled" counts those of all planes together; "image" takes the
        mean of the planes' own values, in which a plane of few nuclei weighs as much as one of many.

    Returns
    -------
    ndarray
        (thresholds,) float64, 0 to 1. Nothing found where nothing is counts as 1.

    Raises
    ------
    LabelsError
        If one is no label image, or their shapes differ.
    ParameterError
        If a threshold or `by` is none of those.
    """
    if by not in ("pooled", "image"):
        raise ParameterError(f'by must be "pooled" or "image"; got {by!r}.')
    by_plane = count_matches_by_plane(truth, labels, thresholds)
    return np.array(precision_of(by_plane, pooled=by == "pooled"))


def precision_of(by_plane: Sequence[Sequence[MatchCounts]], *, pooled: bool) -> tuple[float, ...]:
    """Average precision by threshold of what `count_matches_by_plane` gives: pooled, or the mean of the planes'."""
    by_threshold = list(zip(*by_plane, strict=True))
    if pooled:
        return tuple(sum(counts, MatchCounts()).average_precision for counts in by_threshold)
    return tuple(float(np.mean([count.average_precision for count in counts])) for counts in by_threshold)


def _check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    try:
        limits = tuple(map(float, thresholds))  # plain floats: stardist's float32 scores meet float64 limits unequally
    except (TypeError, ValueError) as error:
        raise ParameterError(f"thresholds must be numbers above 0, up to 1; got {thresholds!r}.") from error
    if not limits or not all(0 < limit <= 1 for limit in limits):
        raise ParameterError(f"thresholds must be numbers above 0, up to 1; got {thresholds!r}.")
    return limits


def _compact(plane: np.ndarray) -> np.ndarray:
    """Objects numbered 1, 2, ... in int32: stardist's tables are as long as the greatest number is large."""
    numbers, inverse = np.unique(plane, return_inverse=True)
    shift = 0 if numbers[0] == 0 else 1  # no background
    return (inverse.reshape(plane.shape) + shift).astype(np.int32)
