"""Candidates and objects: StarDist's rules, and outlines that are scaled, not labels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mpt_deblur.detection.config import StarDistConfig, Thresholds
from napari_mpt_deblur.detection.instances import Candidates, find_instances, join_candidates, tile_candidates
from napari_mpt_deblur.detection.prediction import TilePrediction

CONFIG = StarDistConfig(n_rays=32, grid=(2, 2))
NOT_MUCH = Thresholds(0.5, 0.4)


def discs(*centres: tuple[float, float, float, float]) -> Candidates:
    """Round candidates of Y, X, radius and probability."""
    table = np.array(centres, np.float32).reshape(-1, 4)
    return Candidates(table[:, :2].astype(int), table[:, 3], np.repeat(table[:, 2:3], 32, 1))


def test_the_border_and_the_padding_propose_nothing() -> None:
    tile = TilePrediction(0, 0, np.full((12, 12), 0.9, np.float32), np.ones((12, 12, 32), np.float32), 1, 1)
    found = tile_candidates(tile, CONFIG, (19, 24), (12, 12), 0.5)
    assert found.points[:, 0].min() == found.points[:, 1].min() == 4
    assert found.points[:, 0].max() == 18  # row 9 of the grid, two from its end
    assert found.points[:, 1].max() == 18
    found = tile_candidates(tile, CONFIG, (15, 24), (12, 12), 0.5)
    assert found.points[:, 0].max() == 14  # the last one within the image


def test_only_a_higher_probability_proposes() -> None:
    prob = np.full((12, 12), 0.5, np.float32)
    prob[6, 7] = 0.51
    tile = TilePrediction(0, 0, prob, np.zeros((12, 12, 32), np.float32), 1, 1)
    found = tile_candidates(tile, CONFIG, (24, 24), (12, 12), 0.5)
    np.testing.assert_array_equal(found.points, [[12, 14]])
    np.testing.assert_allclose(found.dist, 1e-3)


def test_tiles_join_in_the_order_of_rows() -> None:
    a, b = discs((2, 9, 1, 0.6), (5, 1, 1, 0.7)), discs((2, 3, 1, 0.8))
    joined = join_candidates([a, b], 32)
    np.testing.assert_array_equal(joined.points, [[2, 3], [2, 9], [5, 1]])
    np.testing.assert_allclose(joined.prob, [0.8, 0.6, 0.7])


def test_the_more_likely_of_two_that_overlap_stays() -> None:
    found = find_instances(discs((20, 20, 8, 0.6), (20, 22, 8, 0.9), (20, 50, 8, 0.7)), NOT_MUCH, (40, 64))
    np.testing.assert_allclose(found.prob, [0.9, 0.7])
    np.testing.assert_array_equal(found.points, [[20, 22], [20, 50]])
    assert found.labels.dtype == np.int32
    assert (found.labels[20, 22], found.labels[20, 50], found.labels[2, 2]) == (1, 2, 0)
    assert abs((found.labels == 1).sum() / (np.pi * 64) - 1) < 0.1


def test_where_two_meet_the_more_likely_one_is_drawn_on_top() -> None:
    found = find_instances(discs((20, 20, 8, 0.6), (20, 32, 8, 0.9)), Thresholds(0.5, 0.9), (40, 64))
    assert found.labels[20, 26] == 1 == found.labels[20, 32]


@pytest.mark.parametrize("scale", [(2.0, 2.0), (0.5, 0.5), (2.0, 1.0)])
def test_outlines_are_scaled(scale: tuple[float, float]) -> None:
    shape = (int(40 * scale[0]), int(64 * scale[1]))
    found = find_instances(discs((20, 30, 8, 0.9)), NOT_MUCH, shape, scale)
    rows, columns = np.nonzero(found.labels)
    centre = ((20 + 0.5) * scale[0] - 0.5, (30 + 0.5) * scale[1] - 0.5)
    np.testing.assert_allclose((rows.mean(), columns.mean()), centre, atol=0.3)
    np.testing.assert_allclose(np.ptp(found.coordinates()[0], axis=1), (16 * scale[0], 16 * scale[1]), rtol=0.02)
    assert abs(len(rows) / (np.pi * 64 * scale[0] * scale[1]) - 1) < 0.2


def test_nothing_gives_nothing() -> None:
    found = find_instances(join_candidates([], 32), NOT_MUCH, (5, 7))
    assert found.labels.shape == (5, 7)
    assert not found.labels.any()
    assert found.coordinates().shape == (0, 2, 32)
