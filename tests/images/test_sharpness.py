"""The sharpest plane is the one in focus; how wide edges look."""

import math

import numpy as np
import pytest
from scipy import ndimage

from napari_mpt_deblur.images.sharpness import edge_width, sharpness
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


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_the_width_of_an_edge_is_that_of_the_gaussian_that_blurred_it(width, noise):
    plane = np.zeros((128, 128))
    plane[:, 64:] = 1000
    plane = ndimage.gaussian_filter(plane, width)
    noisy = plane + np.random.default_rng(0).normal(0, 1000 * noise, plane.shape)
    assert edge_width(noisy) == pytest.approx(width, rel=0.1)
    assert edge_width(5 * noisy + 70) == pytest.approx(edge_width(noisy))


def test_an_edge_of_one_pixel_has_no_width_and_a_slope_has_no_end():
    plane = np.zeros((64, 64))
    plane[:, 32:] = 1
    assert edge_width(plane) == 0
    assert edge_width(np.add.outer(np.arange(64.0), np.arange(64.0))) > 5


@pytest.mark.parametrize("plane", [np.full((64, 64), 7.0), np.random.default_rng(0).normal(100, 5, (128, 128))])
def test_where_nothing_stands_out_of_the_noise_there_is_no_edge(plane):
    assert edge_width(plane) is None


def test_defocus_widens_the_edges_of_real_nuclei():
    sample = sample_focus_stack()
    widths = [edge_width(plane[:256, :256].astype(float)) for plane in sample.stack[:4]]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 2 < widths[0] < math.inf
