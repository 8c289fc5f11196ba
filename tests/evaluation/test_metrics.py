"""PSNR and SSIM by hand-worked values; deconvolution as a fair yardstick."""

import math

import numpy as np
import pytest

from napari_mpt_deblur.errors import ImageError
from napari_mpt_deblur.evaluation.deconvolution import best_deconvolution
from napari_mpt_deblur.evaluation.metrics import affine_fit, peak_of, psnr, ssim
from napari_mpt_deblur.optics.psf import Microscope, blur, defocus_psf


def test_psnr_by_hand():
    truth = np.zeros((10, 10))
    assert psnr(truth + 0.1, truth, peak=1) == pytest.approx(20)
    assert psnr(truth + 5, truth, peak=50) == pytest.approx(20)
    assert psnr(truth, truth, peak=1) == math.inf


def test_peak_is_the_range_of_percentiles():
    truth = np.arange(10001, dtype=np.uint16)
    assert peak_of(truth) == pytest.approx(0.988 * 10000)
    assert psnr(truth + 988.0, truth) == pytest.approx(20)


def test_unsigned_images_do_not_wrap():
    dark, bright = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert psnr(dark, bright, 255) == pytest.approx(0)


def test_ssim_of_equal_is_one_and_noise_lowers_it():
    rng = np.random.default_rng(0)
    truth = rng.random((40, 40))
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(truth + rng.normal(0, 0.3, truth.shape), truth) < 0.9


def test_affine_fit_undoes_scale_and_offset():
    truth = np.random.default_rng(0).random((20, 20))
    np.testing.assert_allclose(affine_fit(3 * truth - 7, truth), truth, atol=1e-12)
    np.testing.assert_allclose(affine_fit(np.ones((20, 20)), truth), truth.mean())


@pytest.mark.parametrize("measure", [psnr, ssim, affine_fit])
def test_refuses_different_shapes(measure):
    with pytest.raises(ImageError):
        measure(np.zeros((8, 8)), np.zeros((8, 9)))


def test_refuses_a_constant_truth_without_a_peak():
    with pytest.raises(ImageError, match="constant"):
        psnr(np.ones((8, 8)), np.zeros((8, 8)))


@pytest.mark.parametrize("padded", [True, False])
def test_deconvolution_told_the_truth_gains(padded):
    y, x = np.mgrid[:64, :64]
    sharp = 100 + 1000.0 * ((x // 8 + y // 8) % 2)
    psf = defocus_psf(Microscope(0.5, 0.65), 4.0)
    blurred = blur(sharp, psf)
    name, restored = best_deconvolution(blurred, psf, sharp, padded=padded)
    assert name.startswith(("Richardson-Lucy", "Wiener"))
    here = np.s_[:, :] if padded else np.s_[16:-16, 16:-16]  # without padding the edges are lost
    assert psnr(restored[here], sharp[here]) > psnr(blurred[here], sharp[here]) + 2
    edges = [psnr(best_deconvolution(blurred, psf, sharp, padded=each)[1], sharp) for each in (True, False)]
    assert edges[0] > edges[1] + 1
