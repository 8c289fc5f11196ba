"""Drawn scenes and sharpened edges: what they hold, and that a share of the pairs is made of them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.training import simulation
from napari_mpt_deblur.training.config import SimulationConfig
from napari_mpt_deblur.training.scenes import crisp, dead_leaves, grain, texture
from napari_mpt_deblur.training.simulation import DefocusPairs, SharpImage


def _steepness(image):
    """Share of the strongest change over 8 pixels that happens within 2."""
    near, far = (np.abs(image[:, step:] - image[:, :-step]).max() for step in (2, 8))
    return near / far


def _disc(side=128, soft=6.0):
    y, x = np.mgrid[:side, :side] - side / 2
    return gaussian_filter((np.hypot(y, x) < side / 4).astype(np.float32), soft)


@pytest.mark.parametrize("seed", range(6))
def test_drawn_scenes_have_sharp_edges_at_every_seed(seed):
    scene = dead_leaves(256, np.random.default_rng(seed))
    assert scene.shape == (256, 256)
    assert scene.dtype == np.float32
    assert scene.min() >= 0
    assert 0.2 < scene.max() < 4
    assert _steepness(scene) > 0.7 > 0.5 > _steepness(gaussian_filter(scene, 6))


def test_drawn_scenes_cover_the_field_or_lie_on_the_dark():
    dark = np.array([np.mean(dead_leaves(192, np.random.default_rng(seed)) < 1e-3) for seed in range(24)])
    assert 0.2 < np.mean(dark > 0.3) < 0.8
    assert np.mean(dark < 0.2) > 0.2


def test_scenes_depend_on_their_generator_alone():
    for draw in (dead_leaves, texture, grain):
        first, again, other = (draw(96, np.random.default_rng(seed)) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_a_soft_edge_becomes_crisp_and_its_inside_stays():
    soft, steeper = _disc(), []
    for seed in range(12):
        sharp = crisp(soft, np.random.default_rng(seed))
        assert (sharp <= soft + 1e-6).all()
        np.testing.assert_allclose(sharp[60:68, 60:68], soft[60:68, 60:68], rtol=0.01)
        steeper.append(np.diff(sharp).max() / np.diff(soft).max())
    assert min(steeper) > 0.99  # where the level is low, the step is small
    assert np.median(steeper) > 1.5


def test_the_share_of_drawn_pairs_is_what_the_settings_say(monkeypatch):
    monkeypatch.setattr(simulation, "_DRAWN_SIDE_PX", 192)
    dark = SharpImage(np.zeros((96, 96), np.float32), 20.0)
    settings = {"textured": 0, "identity": 1, "in_focus": 0, "grain": 0, "empty": 0, "inverted": 0, "psf_count": 20}

    def full(drawn):
        pairs = DefocusPairs([dark], SimulationConfig(drawn=drawn, **settings), seed=0)
        return np.mean([np.ptp(pairs.pair(number, 32)[1]) > 0 for number in range(60)])

    assert full(0.0) == 0
    assert 0.2 < full(0.5) < 0.6  # a few patches lie between the shapes
