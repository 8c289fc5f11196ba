"""The sharpest plane is the one in focus."""

import numpy as np
import pytest
from scipy import ndimage

from napari_mpt_deblur.images.sharpness import sharpness
from napari_mpt_deblur.optics.sample import sample_focus_stack


def test_the_sharpest_plane_of_the_sample_is_the_one_in_focus():
    sample = sample_focus_stack()
    values = [sharpness(plane) for plane in sample.stack]
    assert sample.defocus_um[int(np.argmax(values))] == 0
    assert values[3] > values[2] > values[1] > values[0]


def test_blur_lowers_it_and_pixels_that_are_not_finite_do_not_count():
    plane = np.zeros((60, 70))
    plane[20:40, 25:45] = 100
    sharp = sharpness(plane)
    assert sharp > sharpness(ndimage.gaussian_filter(plane, 2)) > sharpness(ndimage.gaussian_filter(plane, 4)) > 0
    plane[3, 4] = np.nan
    assert sharpness(plane) == pytest.approx(sharp)


@pytest.mark.parametrize("plane", [np.full((9, 8), 7), np.full((9, 8), np.nan)])
def test_nothing_to_see_is_not_sharp(plane):
    assert sharpness(plane) == 0
