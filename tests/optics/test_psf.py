"""The defocus point-spread function against what optics says of it, and against another library."""

import numpy as np
import pytest
from scipy import ndimage

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.optics.psf import ABERRATIONS, Microscope, blur, defocus_psf

AIR = Microscope(numerical_aperture=0.5, pixel_size_um=0.2, wavelength_um=0.461)


def _rms_radius_px(psf):
    y, x = np.indices(psf.shape) - psf.shape[0] // 2
    return np.sqrt((psf * (y**2 + x**2)).sum())


@pytest.mark.parametrize("defocus_um", [0.0, 1.0, -7.5, 16.0])
@pytest.mark.parametrize("pixel_size_um", [0.065, 0.656, 3.0])
def test_is_a_centred_distribution(defocus_um, pixel_size_um):
    psf = defocus_psf(Microscope(0.5, pixel_size_um), defocus_um)
    assert psf.dtype == np.float32
    assert psf.shape[0] == psf.shape[1]
    assert psf.shape[0] % 2 == 1
    assert psf.min() >= 0
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(psf, psf[::-1, ::-1], atol=2e-6 + 0.02 * psf.max())


def test_in_focus_first_zero_is_airys():
    psf = defocus_psf(Microscope(0.5, 0.02, 0.5), 0.0, size_px=81)
    row = psf[40, 40:]
    airy_px = 1.22 * 0.5 / (2 * 0.5) / 0.02  # 30.5 pixels
    minimum = 15 + int(np.argmin(row[15:40]))
    assert minimum == pytest.approx(airy_px, abs=1.5)
    assert row[minimum] < 0.01 * row[0]


@pytest.mark.parametrize("defocus_um", [6.0, 12.0, 24.0])
def test_far_from_focus_it_is_the_geometric_disc(defocus_um):
    microscope = Microscope(0.5, 0.5)
    psf = defocus_psf(microscope, defocus_um, size_px=121)
    disc_px = defocus_um * microscope.blur_per_um
    y, x = np.indices(psf.shape) - 60
    inside = psf[np.hypot(y, x) <= disc_px + 1.5].sum()
    assert 0.85 < inside <= 1
    # the pupil is lit evenly over sin^2, the disc is tan^2 wide: towards the rim it is a little thinner, not fuller
    assert 0.55 * disc_px < _rms_radius_px(psf) < 0.95 * disc_px


def test_without_aberration_both_sides_of_focus_are_alike():
    np.testing.assert_allclose(defocus_psf(AIR, 5), defocus_psf(AIR, -5), atol=1e-6)


def test_spherical_aberration_tells_the_sides_apart():
    aberrated = Microscope(0.5, 0.2, aberrations={"spherical": 0.2})
    assert np.abs(defocus_psf(aberrated, 5) - defocus_psf(aberrated, -5)).sum() > 0.1


@pytest.mark.parametrize("name", ABERRATIONS)
def test_an_aberration_lowers_the_peak_as_marechal_says(name):
    fine = {"numerical_aperture": 0.5, "pixel_size_um": 0.05, "wavelength_um": 0.5}
    rms = 0.05
    sharp = defocus_psf(Microscope(**fine), 0, size_px=151)
    aberrated = defocus_psf(Microscope(**fine, aberrations={name: rms}), 0, size_px=151)
    assert aberrated.max() / sharp.max() == pytest.approx(np.exp(-((2 * np.pi * rms) ** 2)), abs=0.04)


def test_wider_pixels_hold_the_sum_of_finer_ones():
    fine = defocus_psf(Microscope(0.5, 0.1), 4.0, size_px=189)
    coarse = defocus_psf(Microscope(0.5, 0.3), 4.0, size_px=63)
    np.testing.assert_allclose(coarse, fine.reshape(63, 3, 63, 3).sum((1, 3)), atol=2e-4)


@pytest.mark.parametrize("defocus_um", [4.0, 8.0])
def test_agrees_with_gibson_and_lanni(defocus_um):
    psfmodels = pytest.importorskip("psfmodels", reason="the oracle is the package psfmodels")
    indices = dict.fromkeys(("ns", "ng0", "ng", "ni0", "ni"), 1.0)
    theirs = psfmodels.scalar_psf(np.array([defocus_um]), nx=81, dxy=0.2, wvl=0.461, params={"NA": 0.5, **indices})[0]
    ours = defocus_psf(AIR, defocus_um, size_px=81)
    assert np.abs(ours - theirs / theirs.sum()).sum() < 0.05


def test_blur_keeps_a_constant_and_the_centre():
    psf = defocus_psf(Microscope(0.5, 0.5), 3.0)
    np.testing.assert_allclose(blur(np.full((20, 33), 7, np.uint16), psf), 7, rtol=1e-4)
    point = np.zeros((61, 61))
    point[30, 30] = 1
    half = psf.shape[0] // 2
    np.testing.assert_allclose(blur(point, psf)[30 - half : 31 + half, 30 - half : 31 + half], psf, atol=1e-6)


def test_blur_of_an_image_smaller_than_the_psf():
    psf = defocus_psf(Microscope(0.5, 0.1), 5.0)
    image = np.arange(12.0).reshape(3, 4)
    blurred = blur(image, psf)
    assert blurred.shape == (3, 4)
    assert image.min() <= blurred.min() <= blurred.max() <= image.max()


@pytest.mark.parametrize(
    "values",
    [
        {"numerical_aperture": 1.4},
        {"numerical_aperture": 0},
        {"pixel_size_um": float("nan")},
        {"wavelength_um": -1},
        {"aberrations": {"comma": 0.1}},
    ],
)
def test_refuses_what_is_not_a_microscope(values):
    with pytest.raises(ParameterError):
        Microscope(**values)


@pytest.mark.parametrize(("defocus_um", "size_px"), [(float("inf"), None), (1.0, 8), (1.0, 0)])
def test_refuses_what_is_not_a_kernel(defocus_um, size_px):
    with pytest.raises(ParameterError):
        defocus_psf(AIR, defocus_um, size_px=size_px)


def test_centred_undoes_the_shift_of_coma_and_nothing_else():
    coma = Microscope(0.5, 0.65, 0.461, aberrations={"coma": 0.08})
    there, here = (defocus_psf(coma, 6.0, centred=centred) for centred in (False, True))
    middle = there.shape[0] // 2
    assert np.abs(np.array(ndimage.center_of_mass(there)) - middle).max() > 0.15
    np.testing.assert_allclose(ndimage.center_of_mass(here), middle, atol=0.05)
    sharp = [defocus_psf(coma, 0.0, centred=centred) for centred in (False, True)]
    y, x = np.indices(sharp[0].shape) - sharp[0].shape[0] // 2
    tails = [psf[np.hypot(y, x) > 3].sum() for psf in sharp]
    assert tails[1] < 1.1 * tails[0]  # no ringing
    plain = Microscope(0.5, 0.65, 0.461)
    np.testing.assert_allclose(defocus_psf(plain, 6.0, centred=True), defocus_psf(plain, 6.0), atol=1e-6)
