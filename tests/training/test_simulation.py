"""Synthetic pairs: what is drawn, that it is registered, and that colours belong together."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass, gaussian_filter, zoom

from napari_mpt_deblur.training.config import SimulationConfig
from napari_mpt_deblur.training.simulation import DefocusPairs, OpticsBank, SharpImage

FEW = SimulationConfig(psf_count=12, disc_radius_px=(0.7, 6.0), drawn=0.0)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    spots = gaussian_filter((rng.random((3, 120, 150)) > 0.995).astype(np.float32), (0, 4, 4))
    return [SharpImage.of(1000 * spot / spot.max()) for spot in spots]


def test_pairs_depend_on_seed_and_number_alone(images):
    pairs, again = (DefocusPairs(images, FEW, seed=3) for _ in range(2))
    again.pair(0, 64)  # what was drawn before does not matter
    for mine, theirs in zip(pairs.pair(7, 64), again.pair(7, 64), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (pairs.pair(7, 64)[0] != DefocusPairs(images, FEW, seed=4).pair(7, 64)[0]).any()
    assert (pairs.pair(7, 64)[0] != pairs.pair(8, 64)[0]).any()


@pytest.mark.parametrize("side", [32, 128, 256])
def test_pairs_are_finite_and_of_the_size_asked_for(images, side):
    pairs = DefocusPairs(images, FEW, seed=0)
    for number in range(20):
        blurred, sharp = pairs.pair(number, side)
        assert blurred.shape == sharp.shape == (side, side)
        assert np.isfinite(blurred).all()
        assert np.isfinite(sharp).all()


CLEAN = {"psf_count": 80, "thick": 0, "photons": (1e12, 1e12), "read_noise": (1e-6, 1e-6)} | dict.fromkeys(
    ("textured", "crisp", "drawn", "grain", "empty"), 0
)


def _median_difference(images, **changes):
    pairs = DefocusPairs(images, SimulationConfig(**CLEAN | {"native_scale": 1.0, "identity": 0} | changes), seed=0)
    both = (pairs.pair(number, 96) for number in range(24))
    return np.median([np.abs(blurred - sharp).mean() for blurred, sharp in both])


def test_identity_pairs_without_noise_are_the_same(images):
    assert _median_difference(images, identity=1) < 1e-5


def test_in_focus_pairs_without_noise_differ_little(images):
    """By a fraction of the smallest defocus where pixels are coarse; hardly where they show the optics' blur."""
    defocused = _median_difference(images, in_focus=0, disc_radius_px=(6, 7))
    assert _median_difference(images, in_focus=1) < 0.4 * defocused
    large = [SharpImage(zoom(image.pixels, 3, order=3), 60.0) for image in images]
    fine = _median_difference(large, in_focus=1, disc_radius_px=(1e-3, 2e-3))
    assert fine < 0.02 * defocused


def test_finely_sampled_pairs_end_at_the_optics_own_resolution():
    """A point in focus is not to be sharpened beyond what the microscope resolves: no texture is invented."""
    point = np.zeros((256, 256), np.float32)
    point[::32, ::32] = 1
    config = SimulationConfig(**CLEAN | {"native_scale": 1, "in_focus": 1, "identity": 0, "inverted": 0})

    def wide_points(nucleus_px):
        pairs = DefocusPairs([SharpImage(point, nucleus_px)], config, seed=0)
        sharp = (pairs.pair(number, 128)[1] for number in range(24))
        return np.mean([(each - each.min() > 0.5 * np.ptp(each)).sum() / 16 > 1.5 for each in sharp])

    assert wide_points(100.0) > 0.35  # most of these are finely sampled
    assert wide_points(20.0) < 0.15  # few of these are


def test_a_defocused_pair_is_registered(images):
    """The blurred patch lies where the sharp one lies: a shift either way fits worse."""
    config = SimulationConfig(
        **CLEAN | {"psf_count": 12, "in_focus": 0, "inverted": 0, "disc_radius_px": (3, 4), "photons": (1e8, 1e8)}
    )
    pairs = DefocusPairs(images, config, seed=0)
    here, shifted = [], []
    for number in range(20):
        blurred, sharp = pairs.pair(number, 96)
        here.append(np.abs(blurred - sharp)[4:-4, 4:-4].mean())
        for axis in (0, 1):
            for step in (-2, 2):
                shifted.append(np.abs(np.roll(blurred, step, axis) - sharp)[4:-4, 4:-4].mean())
    assert np.mean(here) < np.mean(shifted)


def test_point_spread_functions_are_centred():
    bank, rng = OpticsBank(SimulationConfig(psf_count=40), seed=0), np.random.default_rng(0)
    drawn = [bank.draw(rng, fine, focused) for fine in (True, False) for focused in (True, False) for _ in range(8)]
    for psf in (psf for optics in drawn for psf in optics if psf is not None):
        assert psf.sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(center_of_mass(psf), psf.shape[0] // 2, atol=0.1)
    assert {optics.in_focus is None for optics in drawn} == {True, False}


def test_inverted_pairs_are_noisiest_where_they_are_bright(images):
    config = SimulationConfig(
        psf_count=12, disc_radius_px=(0.7, 1), thick=0, inverted=1, textured=0, empty=0, photons=(300, 300)
    )
    pairs = DefocusPairs(images, config, seed=0)
    noise = {True: [], False: []}
    for number in range(12):
        blurred, sharp = pairs.pair(number, 128)
        middle = (sharp.min() + sharp.max()) / 2
        for bright in noise:
            part = (sharp > middle) == bright
            noise[bright].append((blurred - gaussian_filter(blurred, 1.5))[part].std())
    assert np.median(noise[True]) > np.median(noise[False])


def test_the_colours_of_a_pair_go_through_one_microscope(images):
    """Three equal channels stay equal until the camera's noise, and are cut, turned and defocused alike."""
    grey = images[0].pixels
    colour = SharpImage(np.stack([grey, grey, 0.5 * grey]), images[0].nucleus_px)
    pairs = DefocusPairs([colour], SimulationConfig(**CLEAN | {"psf_count": 12, "disc_radius_px": (0.7, 6)}), seed=0)
    assert pairs.channels == 3
    blurred, sharp = pairs.batch(0, 3, 48)
    assert blurred.shape == sharp.shape == (3, 3, 48, 48)
    for side in (blurred.numpy(), sharp.numpy()):
        for red, green, blue in side:
            assert np.corrcoef(red.ravel(), green.ravel())[0, 1] > 0.999
            assert np.corrcoef(red.ravel(), blue.ravel())[0, 1] > 0.99
    kept = (
        DefocusPairs([colour], SimulationConfig(**CLEAN | {"inverted": 0}), seed=0, keep_range=True)
        .batch(0, 6, 48)[1]
        .numpy()
    )
    np.testing.assert_allclose(kept[:, 2], 0.5 * kept[:, 0], atol=2e-3)


def test_pairs_that_keep_their_range_hold_the_values_of_their_image():
    steps = np.zeros((64, 64), np.float32)
    steps[:, 32:] = 3.0
    config = SimulationConfig(**CLEAN | {"identity": 1, "native_scale": 1, "inverted": 0, "psf_count": 4})
    for number in range(4):
        _, sharp = DefocusPairs([SharpImage(steps, 20.0)], config, seed=0, keep_range=True).pair(number, 64)
        np.testing.assert_allclose(np.unique(sharp.round(4)), [0, 3])
