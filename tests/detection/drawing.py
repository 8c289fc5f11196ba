"""Label images to test with."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


def rectangles(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    """A plane with up to six rectangles drawn over each other, numbered at random."""
    box = st.tuples(*[st.integers(0, side - 1) for side in (*shape, *shape)], st.integers(1, 9))

    def draw(boxes: list[tuple[int, ...]]) -> np.ndarray:
        plane = np.zeros(shape, np.uint16)
        for y0, x0, y1, x1, number in boxes:
            plane[min(y0, y1) : max(y0, y1) + 1, min(x0, x1) : max(x0, x1) + 1] = number
        return plane

    return st.lists(box, max_size=6).map(draw)


def pairs(shape: tuple[int, int]) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two planes: drawn apart, or the second a copy of the first that was moved, holed, painted over and renumbered.

    Copies match at all thresholds, where planes drawn apart seldom do; numbers are up to 63,009, with gaps.
    """
    step = st.integers(-2, 2)

    def edit(
        plane: np.ndarray, by: tuple[int, int], holes: np.ndarray, paint: np.ndarray, order: list[int], factor: int
    ) -> tuple[np.ndarray, np.ndarray]:
        copy = np.roll(plane, by, (0, 1))
        copy[holes == 1] = 0  # one number in ten, in holes and notches
        copy[paint == 2] = 9
        return plane, (np.array([0, *order])[copy] * factor).astype(np.uint16)

    plane = rectangles(shape)
    edited = st.builds(
        edit, plane, st.tuples(step, step), plane, plane, st.permutations(range(1, 10)), st.sampled_from([1, 7001])
    )
    return st.one_of(st.tuples(plane, plane), edited)


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    """bool (Y, X)"""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
