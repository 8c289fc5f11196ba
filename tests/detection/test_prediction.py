"""Any size, any tiles: the same probabilities, distances and objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_mpt_deblur.detection.config import Thresholds
from napari_mpt_deblur.detection.folder import Detector, load_folder
from napari_mpt_deblur.detection.instances import Instances, find_instances, join_candidates, tile_candidates
from napari_mpt_deblur.detection.prediction import default_tile_px, grid_shape, predict, predict_tiles
from napari_mpt_deblur.errors import ImageError, OutOfMemoryError, ParameterError


@pytest.fixture
def detector(folder: Path) -> Detector:
    return load_folder(folder, "cpu")


def instances(detector: Detector, image: np.ndarray, prob: float, tile_px: int | None) -> Instances:
    grid = grid_shape(detector.network, image.shape)
    parts = [
        tile_candidates(tile, detector.config, image.shape, grid, prob)
        for tile in predict_tiles(detector.network, image[None], tile_px=tile_px)
    ]
    return find_instances(join_candidates(parts, detector.config.n_rays), Thresholds(prob, 0.4), image.shape)


@pytest.mark.parametrize("tile_px", [1, 8, 24, 50, 64])
def test_tiles_do_not_matter(detector: Detector, image: np.ndarray, tile_px: int) -> None:
    prob, dist = predict(detector.network, image[None])
    tiled_prob, tiled_dist = predict(detector.network, image[None], tile_px=tile_px)
    assert prob.shape == (38, 31)
    np.testing.assert_allclose(tiled_prob, prob, atol=1e-5)
    np.testing.assert_allclose(tiled_dist, dist, atol=1e-4)
    threshold = float(np.quantile(prob, 0.7))
    whole, tiled = (instances(detector, image, threshold, tile) for tile in (None, tile_px))
    assert whole.labels.max() > 5
    np.testing.assert_array_equal(tiled.labels, whole.labels)
    np.testing.assert_allclose(tiled.coordinates(), whole.coordinates(), atol=1e-4)


def test_a_tile_without_its_context_would_differ(detector: Detector, image: np.ndarray) -> None:
    """What the test above would not see if the tiles were read alone."""
    prob, _ = predict(detector.network, image[None])
    alone, _ = predict(detector.network, image[None, :32, :32])
    assert abs(alone - prob[:16, :16]).max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (8, 8), (9, 16), (17, 5)])
def test_any_size(detector: Detector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((1, *shape))
    prob, dist = predict(detector.network, image)
    assert prob.shape == (-(-shape[0] // 2), -(-shape[1] // 2))
    assert dist.shape == (*prob.shape, 8)
    assert np.isfinite(prob).all()
    assert (dist >= 1e-3).all()


def test_padding_is_reflection_at_the_end(detector: Detector, image: np.ndarray) -> None:
    padded = np.pad(image, ((0, -75 % 8), (0, -61 % 8)), mode="reflect")
    with torch.inference_mode():
        expected = detector.network(torch.from_numpy(padded)[None, None])[0][0, 0].numpy()
    found, _ = predict(detector.network, image[None])
    np.testing.assert_allclose(found, expected[:38, :31], atol=1e-6)


def test_progress_counts_tiles(detector: Detector, image: np.ndarray) -> None:
    steps = [(tile.done, tile.total) for tile in predict_tiles(detector.network, image[None], tile_px=32)]
    assert steps == [(n + 1, 6) for n in range(6)]


def test_tiles_shrink_when_memory_does_not_suffice(
    detector: Detector, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.tile(image, (4, 1))[None]
    expected, _ = predict(detector.network, image)
    forward = type(detector.network).forward
    seen = []

    def small(self: Any, x: torch.Tensor) -> Any:
        seen.append(x.shape[-2] * x.shape[-1])
        if seen[-1] > 180 * 64:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")
        return forward(self, x)

    monkeypatch.setattr(type(detector.network), "forward", small)
    tiles = list(predict_tiles(detector.network, image, tile_px=152))
    assert [(tile.done, tile.total) for tile in tiles] == [(1, 2), (2, 2)]
    assert max(seen) > 180 * 64
    np.testing.assert_allclose(np.concatenate([tile.prob for tile in tiles])[:150, :31], expected, atol=1e-5)


def test_no_memory_at_all_is_said(detector: Detector, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Any, x: torch.Tensor) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(detector.network), "forward", none)
    with pytest.raises(OutOfMemoryError, match="8 x 8"):
        predict(detector.network, image[None])


def test_other_errors_stay_what_they_are(
    detector: Detector, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, x: torch.Tensor) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(type(detector.network), "forward", broken)
    with pytest.raises(ZeroDivisionError):
        predict(detector.network, image[None])


def test_larger_networks_get_smaller_tiles(detector: Detector) -> None:
    from napari_mpt_deblur.detection.config import StarDistConfig
    from napari_mpt_deblur.detection.network import StarDistNetwork

    wide = StarDistNetwork(StarDistConfig(unet_n_depth=1, unet_n_filter_base=128))
    assert default_tile_px(wide) < default_tile_px(detector.network)


@pytest.mark.parametrize("shape", [(75, 61), (2, 75, 61), (1, 0, 8)])
def test_other_channels_are_refused(detector: Detector, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="1 channels"):
        next(predict_tiles(detector.network, np.zeros(shape, np.float32)))


def test_no_tile_is_refused(detector: Detector, image: np.ndarray) -> None:
    with pytest.raises(ParameterError, match="tile_px"):
        predict(detector.network, image[None], tile_px=0)
