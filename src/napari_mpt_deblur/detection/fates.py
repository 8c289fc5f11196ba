"""What became of each object from one label image to the next, from the areas that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Fate = Literal["kept", "split", "merged", "lost", "gained"]
FATES: tuple[Fate, ...] = get_args(Fate)
_PIECES_OF_A_WHOLE = 5  # a piece covers at least a fifth of its whole: less is debris


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a stack of label planes, numbered 0, 1, ... plane by plane.

    Attributes
    ----------
    ids : ndarray
        (planes, Y, X) int32: number of the object + 1, 0 for background.
    plane, label, area_px : ndarray
        (objects,) Where each is, what it is called there, and how many pixels it has.
    """

    ids: np.ndarray
    plane: np.ndarray
    label: np.ndarray
    area_px: np.ndarray

    @classmethod
    def of(cls, planes: np.ndarray) -> Objects:
        """Those of (planes, Y, X) labels; a label that occurs in several planes is an object in each."""
        ids = np.zeros(planes.shape, np.int32)
        labels, areas, count = [], [], 0
        for number, plane in enumerate(planes):
            inside = plane > 0
            found, inverse, area = np.unique(plane[inside], return_inverse=True, return_counts=True)
            ids[number][inside] = inverse + count + 1
            count += len(found)
            labels.append(found)
            areas.append(area)
        plane_of = np.repeat(np.arange(len(planes)), [len(found) for found in labels])
        return cls(ids, plane_of, np.concatenate(labels), np.concatenate(areas))

    @property
    def count(self) -> int:
        return len(self.label)

    def of_plane(self, number: int) -> slice:
        """Which objects are those of a plane."""
        start, stop = np.searchsorted(self.plane, (number, number + 1))
        return slice(int(start), int(stop))


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Every pair of objects that share a pixel.

    Attributes
    ----------
    first, second : ndarray
        (pairs,) Numbers of the objects, ordered by `first`, then `second`.
    shared, union : ndarray
        (pairs,) Pixels in both, and in either.
    """

    first: np.ndarray
    second: np.ndarray
    shared: np.ndarray
    union: np.ndarray

    @classmethod
    def between(cls, first: Objects, second: Objects) -> Overlaps:
        both = (first.ids > 0) & (second.ids > 0)
        i, j = (objects.ids[both].astype(np.int64) - 1 for objects in (first, second))
        codes, shared = np.unique(i * second.count + j, return_counts=True)
        i, j = np.divmod(codes, max(second.count, 1))
        return cls(i, j, shared, first.area_px[i] + second.area_px[j] - shared)

    @property
    def half(self) -> np.ndarray:
        """(pairs,) bool: whether the intersection over union is at least 0.5, in whole numbers and so exactly."""
        return 2 * self.shared >= self.union

    def best_iou(self, count: int, side: np.ndarray) -> np.ndarray:
        """(count,) The greatest intersection over union of each object of a side (`first` or `second`); 0 for none."""
        best = np.zeros(count)
        np.maximum.at(best, side, self.shared / self.union)
        return best


@dataclass(frozen=True, eq=False)
class Fates:
    """The fates of the objects before and after, see `settle_fates`.

    Attributes
    ----------
    before, after : ndarray
        (objects,) of `Fate`, as str.
    links : ndarray
        (links, 2) int: the pairs, before and after, that are kept or belong to a split or a merger.
    """

    before: np.ndarray
    after: np.ndarray
    links: np.ndarray


def settle_fates(before: Objects, after: Objects, overlaps: Overlaps) -> Fates:
    """Give every object exactly one fate.

    An object is a *piece* of another where more than half of it lies within the other and it covers at least a fifth of
    the other. Then:

    - **split**: an object before of which two or more objects after are pieces, and these pieces;
    - **merged**: two or more objects before that are pieces of one object after, and that object;
    - **kept**: a pair in neither of these whose intersection over union is at least 0.5. It is one-to-one by itself:
      two partners at 0.5 would be two halves, which is a split or a merger;
    - **lost**: any other object before; **gained**: any other object after.

    Where chains of overlaps make an object both, what became of it (or what it was made of) comes before what it became
    (or was) a part of: before, split comes first; after, merged. So exchanging before and after exchanges split with
    merged and lost with gained.
    """
    i, j, shared = overlaps.first, overlaps.second, overlaps.shared
    area_i, area_j = before.area_px[i], after.area_px[j]
    j_in_i = (2 * shared > area_j) & (_PIECES_OF_A_WHOLE * shared >= area_i)
    i_in_j = (2 * shared > area_i) & (_PIECES_OF_A_WHOLE * shared >= area_j)
    splits = np.bincount(i[j_in_i], minlength=before.count) >= 2
    merges = np.bincount(j[i_in_j], minlength=after.count) >= 2
    of_split, of_merger = j_in_i & splits[i], i_in_j & merges[j]

    fate_before = np.full(before.count, "lost", dtype="<U6")
    fate_after = np.full(after.count, "gained", dtype="<U6")
    fate_before[i[of_merger]] = "merged"
    fate_after[j[of_split]] = "split"
    fate_before[splits] = "split"
    fate_after[merges] = "merged"
    kept = overlaps.half & (fate_before[i] == "lost") & (fate_after[j] == "gained")
    fate_before[i[kept]] = "kept"
    fate_after[j[kept]] = "kept"
    linked = kept | of_split | of_merger
    return Fates(fate_before, fate_after, np.stack([i[linked], j[linked]], axis=1))


def matched_with(found: Objects, truth: Objects) -> np.ndarray:
    """(found objects,) bool: which match a true object one-to-one at an intersection over union of at least 0.5.

    As many as `precision.count_matches` finds at 0.5. Of two that tie, each exactly half of one true object, the one of
    the lower label matches.
    """
    overlaps = Overlaps.between(found, truth)
    i, j = overlaps.first[overlaps.half], overlaps.second[overlaps.half]
    first_of_j = np.zeros(len(j), bool)
    first_of_j[np.unique(j, return_index=True)[1]] = True
    right = np.zeros(found.count, bool)
    right[i[first_of_j]] = True
    return right
