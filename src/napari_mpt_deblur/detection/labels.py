"""Label images: what is one, and what only looks like one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import LabelsError

_EXACT = 2**53  # whole floats up to here are the number that they look like
_EQUAL_NEIGHBOURS = 0.9
_MASK = "which does not tell touching nuclei apart: number the nuclei (where none touch, skimage.measure.label does)"


def as_labels(array: Any, name: str = "labels") -> np.ndarray:
    """Check that an array numbers objects, 0 being background.

    Parameters
    ----------
    array : array_like
        Two or more dimensions, the last two Y and X; integers, or floats that hold whole numbers. Not negative.
    name : str
        What to call it in messages.

    Returns
    -------
    ndarray
        Same shape and numbers, of an integer dtype; not a copy where it is one already.

    Raises
    ------
    LabelsError
        If it is anything else. A mask of true and false is refused: which of its pixels are one nucleus is not for
        connected components to decide where nuclei touch.
    """
    try:
        labels = np.asarray(array)
    except ValueError as error:  # a list of images of several sizes
        raise LabelsError(
            f"The {name} are no array: give planes of one size as a stack, others one at a time."
        ) from error
    if labels.dtype.kind == "b":
        raise LabelsError(f"The {name} are a mask of true and false, {_MASK}.")
    if labels.dtype.kind not in "iuf":
        raise LabelsError(f"The {name} are of type {labels.dtype}: give whole numbers, 0 for background.")
    if labels.ndim < 2:
        raise LabelsError(f"The {name} have {labels.ndim} dimension(s): give planes (Y, X) or a stack of them.")
    if labels.size == 0:
        raise LabelsError(f"The {name} hold no pixels ({_sizes(labels.shape)}): give an image of labels.")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any() or (np.abs(labels) > _EXACT).any():
            raise LabelsError(
                f"The {name} hold fractions, NaN or infinity, so they number no objects: give a label image, not an "
                "image of grey levels or probabilities."
            )
        labels = labels.astype(np.int64)
    if labels.dtype == np.uint64 and labels.max() > np.iinfo(np.int64).max:
        raise LabelsError(f"The {name} hold numbers beyond 2^63: number the objects from 1.")
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise LabelsError(f"The {name} hold negative numbers: number objects from 1, and background 0.")
    return labels


def as_planes(labels: np.ndarray) -> np.ndarray:
    """All planes of an array in a row: (planes, Y, X)."""
    return labels.reshape(-1, *labels.shape[-2:])


def check_same_shape(first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> None:
    """Objects are compared pixel by pixel.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    if first.shape != second.shape:
        raise LabelsError(
            f"The {names[0]} ({_sizes(first.shape)}) and the {names[1]} ({_sizes(second.shape)}) differ in shape: "
            "give images of the same planes on the same grid of pixels."
        )


def check_no_mask(labels: np.ndarray, name: str = "labels") -> None:
    """Labels of a file or a layer may be a mask that was saved as 0 and 255, or 0 and 1.

    Raises
    ------
    LabelsError
        If there is one number only, and a plane holds it in several pieces: as a label image it would be one nucleus.
    """
    from scipy.ndimage import label

    numbers = np.unique(labels)
    numbers = numbers[numbers > 0]
    if len(numbers) == 1 and any(label(plane, np.ones((3, 3)))[1] > 1 for plane in as_planes(labels)):
        raise LabelsError(f"The {name} are a mask of 0 and {numbers[0]}, {_MASK}.")


def spread_plane(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One plane for all planes of a stack.

    Parameters
    ----------
    labels : ndarray
        (..., Y, X); of the dimensions before Y and X some may be missing, or 1 long.
    shape : tuple of int
        Of the stack.

    Returns
    -------
    ndarray
        Of that shape, not a copy; `labels` as they are where they do not fit it, for `check_same_shape` to say.
    """
    if labels.shape == shape or labels.shape[-2:] != shape[-2:]:  # a row is not spread over rows
        return labels
    try:
        return np.broadcast_to(labels, shape)
    except ValueError:
        return labels


def looks_like_labels(array: np.ndarray) -> bool:
    """Whether a file's pixels are labels rather than grey levels, by type and content.

    They are where they are whole numbers without negatives, some are 0, and of all neighbours along X that are both not
    0 at least nine in ten are equal: nuclei are of one number throughout, while grey levels vary from pixel to pixel.
    An image of 0 alone counts as labels; there is nothing in it either way.

    Parameters
    ----------
    array : ndarray
        (..., Y, X)
    """
    if array.dtype.kind not in "iuf" or array.size == 0 or array.min() != 0:
        return False
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.rint(array))).all():
        return False
    left, right = array[..., :-1], array[..., 1:]
    both = (left > 0) & (right > 0)
    return bool(np.count_nonzero(left[both] == right[both]) >= _EQUAL_NEIGHBOURS * np.count_nonzero(both))


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
