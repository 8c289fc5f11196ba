"""Cameras and synthetic focus stacks."""

import numpy as np
import pytest

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.evaluation.metrics import psnr
from napari_mpt_deblur.optics.camera import Camera
from napari_mpt_deblur.optics.psf import Microscope
from napari_mpt_deblur.optics.sample import sample_focus_stack
from napari_mpt_deblur.optics.stack import focus_stack


def test_camera_noise_has_the_variance_of_photons_and_read_out():
    camera = Camera(gain=2.0, read_noise=3.0, offset=100.0)
    recorded = camera.record(np.full((400, 400), 900.0), np.random.default_rng(0))
    assert recorded.mean() == pytest.approx(900, abs=1)
    assert recorded.var() == pytest.approx(2.0**2 * (400 + 3.0**2), rel=0.03)


def test_a_pixel_below_the_offset_is_dark():
    recorded = Camera(read_noise=0, offset=50).record(np.zeros((4, 4)), np.random.default_rng(0))
    np.testing.assert_array_equal(recorded, 50)


@pytest.mark.parametrize("values", [{"gain": 0}, {"read_noise": -1}, {"gain": float("nan")}])
def test_refuses_what_is_not_a_camera(values):
    with pytest.raises(ParameterError):
        Camera(**values)


def test_stack_keeps_dtype_and_repeats_by_seed():
    sharp = np.random.default_rng(0).integers(0, 65535, (32, 40)).astype(np.uint16)
    camera = Camera(gain=30, read_noise=2)

    def make(seed):
        return focus_stack(sharp, (-3, 0, 3), Microscope(), camera, seed=seed)

    stack = make(1)
    assert stack.stack.shape == (3, 32, 40)
    assert stack.stack.dtype == np.uint16
    np.testing.assert_array_equal(stack.stack, make(1).stack)
    assert (stack.stack != make(2).stack).any()
    assert stack.z_step_um == 3


@pytest.mark.parametrize(("shape", "defocus"), [((4, 4, 4), (0,)), ((4, 4), ())])
def test_refuses_what_makes_no_stack(shape, defocus):
    with pytest.raises(ParameterError):
        focus_stack(np.zeros(shape), defocus, Microscope())


def test_sample_is_sharp_in_the_middle_and_blurred_at_the_ends():
    sample = sample_focus_stack()
    assert sample.stack.shape == (7, 512, 512)
    assert sample.stack.dtype == np.uint16
    scores = [psnr(plane, sample.sharp) for plane in sample.stack]
    assert scores[3] > 38
    assert scores[:4] == sorted(scores[:4])
    assert scores[3:] == sorted(scores[3:], reverse=True)
    assert scores[0] < scores[3] - 10
