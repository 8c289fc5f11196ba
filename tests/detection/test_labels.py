"""What counts as a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detection.drawing import disc, rectangles
from hypothesis import given, settings
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.detection.labels import as_labels, check_no_mask, looks_like_labels, spread_plane
from napari_mpt_deblur.errors import LabelsError


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2), bool), "true and false"),
        (np.full((2, 2), 0.5), "fractions"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), np.inf, np.float32), "infinity"),
        (np.full((2, 2), 1e300), "fractions"),
        (np.full((2, 2), -1), "negative"),
        (np.full((2, 2), 2**63, np.uint64), "beyond"),
        (np.full((2, 2), -1.0), "negative"),
        (np.zeros(4, int), "dimension"),
        (np.zeros((0, 4), int), "no pixels"),
        (np.zeros((2, 2), complex), "complex"),
        ([["a", "b"]], "type"),
        ([np.zeros((2, 2), int), np.zeros((3, 2), int)], "no array"),
    ],
)
def test_what_is_no_label_image(array: Any, reason: str) -> None:
    with pytest.raises(LabelsError, match=reason) as caught:
        as_labels(array)
    assert "\n" not in str(caught.value)


def test_whole_floats_are_labels() -> None:
    labels = as_labels(np.array([[0.0, 2.0**53]]))
    assert labels.dtype.kind == "i"
    assert labels.tolist() == [[0, 2**53]]
    integers = np.zeros((2, 2), np.uint16)
    assert as_labels(integers) is integers


@settings(max_examples=50, deadline=None)
@given(rectangles((40, 50)))
def test_drawn_labels_look_like_labels(labels: np.ndarray) -> None:
    assert looks_like_labels(np.kron(labels, np.ones((4, 4), np.uint16)))  # nuclei are not a pixel wide


def test_the_sample_of_stardist_tells_labels_from_images() -> None:
    from stardist.data import test_image_nuclei_2d

    image, labels = test_image_nuclei_2d(return_mask=True)
    assert looks_like_labels(labels.astype(np.uint16))
    assert not looks_like_labels(image.astype(np.uint16))
    assert not looks_like_labels((255.0 * image / image.max()).astype(np.uint8))


def test_grey_levels_do_not_look_like_labels() -> None:
    rng = np.random.default_rng(0)
    nuclei = sum(disc((80, 80), *rng.uniform(10, 70, 2), 7) for _ in range(9)) * 1000.0
    smooth = gaussian_filter(nuclei, 4).astype(np.uint16)  # no noise, and a background of 0
    assert smooth.min() == 0
    assert not looks_like_labels(smooth)
    assert not looks_like_labels(rng.poisson(smooth))
    floats = disc((9, 9), 4, 4, 3).astype(np.float32)
    assert looks_like_labels(7 * floats)
    assert not looks_like_labels(7.5 * floats)
    assert not looks_like_labels(np.where(floats, np.nan, 0))
    assert not looks_like_labels(smooth.astype(np.float32))
    assert not looks_like_labels(np.full((4, 4), 7))
    assert not looks_like_labels(np.array([[-1, 0, 0]]))


def test_nothing_looks_like_labels_of_nothing() -> None:
    assert looks_like_labels(np.zeros((5, 5), np.uint8))


def test_a_mask_is_no_label_image_unless_it_is_in_one_piece() -> None:
    one, two = disc((30, 30), 8, 8, 4), disc((30, 30), 8, 8, 4) | disc((30, 30), 20, 20, 4)
    with pytest.raises(LabelsError, match="truth are a mask of 0 and 255"):
        check_no_mask(np.stack([255 * one, 255 * two]), "truth")
    for labels in (one * 1, np.stack([one, np.roll(one, 9)]) * 1, two + one * 1, 0 * one):
        check_no_mask(labels)


def test_one_plane_is_spread_over_a_stack() -> None:
    plane = np.arange(6).reshape(2, 3)
    assert spread_plane(plane, (2, 3)) is plane
    assert spread_plane(plane, (5, 4, 2, 3)).shape == (5, 4, 2, 3)
    assert spread_plane(plane[None], (4, 2, 3)).shape == (4, 2, 3)
    for other in (plane[:1], np.stack([plane] * 2)):  # a row, and two planes for four
        assert spread_plane(other, (4, 2, 3)) is other
