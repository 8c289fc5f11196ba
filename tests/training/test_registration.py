"""How a sharp plane lies on a blurred one, and what its grey levels are there."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from training.small import spots

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.registration import Levels, align, fit_levels

NAMES = ("blurred.tif", "sharp.tif")


@pytest.mark.parametrize("sigma", [0.5, 3.0])
@pytest.mark.parametrize("moved", [(0.0, 0.0), (3.0, -5.0), (2.3, 1.65)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(sigma, moved):
    sharp = spots((96, 110))
    blurred = gaussian_filter(shift(sharp, moved, order=3, mode="reflect"), sigma)
    blurred += np.random.default_rng(0).normal(0, 30, blurred.shape)
    found = align(blurred, sharp, NAMES)
    np.testing.assert_allclose((found.dy, found.dx), np.negative(moved), atol=0.25)
    assert found.correlation > 0.85


def test_images_of_two_fields_are_refused_by_name():
    with pytest.raises(TrainingError, match=r"blurred\.tif and sharp\.tif do not show the same field"):
        align(spots((96, 96), 0), spots((96, 96), 1), NAMES)
    with pytest.raises(TrainingError, match="do not show the same field"):
        align(np.zeros((64, 64)), spots((64, 64)), NAMES)


def test_images_that_lie_far_apart_are_refused():
    field = gaussian_filter(np.random.default_rng(0).random((140, 140)), 3)
    with pytest.raises(TrainingError, match=r"lie -20, -?[01] pixels apart"):
        align(field[:100, :100], field[20:120, :100], NAMES)


def test_levels_are_fitted_from_what_defocus_does_not_change():
    sharp = spots((128, 128), sigma=3) + 4000 * gaussian_filter((spots((128, 128), 5) > 3000).astype(float), 25)
    blurred = gaussian_filter(sharp, 4)
    assert fit_levels(blurred, sharp) == Levels(1.0, 0.0)
    gain, offset = fit_levels(0.5 * blurred + 700, sharp)
    assert gain == pytest.approx(0.5, rel=0.05)
    assert offset == pytest.approx(700, abs=0.05 * float(np.ptp(blurred)))


def test_levels_that_cannot_be_compared_are_left():
    assert fit_levels(spots((64, 64), 1), spots((64, 64), 2)) is None
    assert fit_levels(spots((64, 64)), np.ones((64, 64))) is None
