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


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    """bool (Y, X)"""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
