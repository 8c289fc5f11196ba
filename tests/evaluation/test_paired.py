"""Paired differences: the mean and its standard errors by hand, and what they decide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.evaluation.paired import PairedDifference


def test_two_seeds_and_three_images_by_hand():
    found = PairedDifference.of([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert found.mean == pytest.approx(4.0)
    assert found.se_seeds == pytest.approx(1.0)  # of 3 and 5
    assert found.se_images == pytest.approx(math.sqrt(7 / 3))  # of 2, 3 and 7: variance 7
    assert found.se_all == pytest.approx(math.sqrt(34 / 5 / 6))
    assert found.se == pytest.approx(math.sqrt(1 + 7 / 3))
    assert (found.seeds, found.images) == (2, 3)
    assert found.works is True  # 4 > 2 x 1.83
    assert found.harms is False


def test_what_images_and_seeds_have_in_common_cancels():
    rng = np.random.default_rng(0)
    baseline = rng.normal(0, 10, (3, 8))
    found = PairedDifference.of(baseline + 0.5, baseline)
    assert found.mean == pytest.approx(0.5)
    assert max(found.se, found.se_all) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("shift", "works", "harms"), [(0.1, False, False), (5.0, True, False), (-5.0, False, True)])
def test_it_works_over_two_standard_errors_only(shift, works, harms):
    noise = np.array([[1.0, -1.0, 0.5], [-0.5, 1.5, -1.5], [0.0, 0.3, -0.3]])
    found = PairedDifference.of(noise + shift, np.zeros((3, 3)))
    assert (found.works, found.harms) == (works, harms)
    assert found.se >= max(found.se_seeds, found.se_images)


def test_one_baseline_serves_all_seeds():
    assert PairedDifference.of([[2.0, 3.0], [4.0, 5.0]], [[1.0, 2.0]]).mean == pytest.approx(2.0)


def test_one_seed_or_one_image_decides_nothing():
    for treated in ([[1.0, 2.0, 3.0]], [[1.0], [2.0]]):
        found = PairedDifference.of(treated, np.zeros_like(treated))
        assert math.isnan(found.se)
        assert found.works is None
        assert found.harms is None


@pytest.mark.parametrize(
    ("treated", "baseline"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([[1.0, 2.0]], [[1.0]]),
        ([[1.0], [2.0], [3.0]], [[1.0], [2.0]]),
        ([[]], [[]]),
        ([[np.inf]], [[1.0]]),
        ([[np.nan, 1.0]], [[1.0, 1.0]]),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(treated, baseline):
    with pytest.raises(ParameterError, match=r"Paired figures|no number"):
        PairedDifference.of(treated, baseline)
