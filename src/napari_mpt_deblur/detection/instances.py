"""From probabilities and distances to objects, with StarDist's own suppression and geometry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.detection.config import StarDistConfig, Thresholds
from napari_mpt_deblur.detection.prediction import TilePrediction

_BORDER = 2  # rows and columns at the edge of the grid that propose nothing, as in StarDist
_SMALLEST_DIST_PX = 1e-3


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pixels that propose an object.

    Attributes
    ----------
    points : ndarray
        (N, 2) Y and X in pixels of the plane that the network saw, in the order of rows.
    prob : ndarray
        (N,) float32.
    dist : ndarray
        (N, n_rays) float32 in pixels, at least 0.001.
    """

    points: np.ndarray
    prob: np.ndarray
    dist: np.ndarray

    def __len__(self) -> int:
        return len(self.prob)


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of a plane; row i has the label i + 1.

    Attributes
    ----------
    labels : ndarray
        (Y, X) int32, 0 for background.
    prob : ndarray
        (N,) float32, falling.
    points : ndarray
        (N, 2) centres, Y and X in pixels of the image.
    dist : ndarray
        (N, n_rays) float32: distances to the edge in pixels of the plane that the network saw; `scale` makes them
        the image's.
    scale : tuple of float
        Pixels of the image for one of that plane, in Y and X.
    """

    labels: np.ndarray
    prob: np.ndarray
    points: np.ndarray
    dist: np.ndarray
    scale: tuple[float, float] = (1.0, 1.0)

    def coordinates(self) -> np.ndarray:
        """The corners of the objects' outlines, (N, 2, n_rays): Y and X in pixels of the image."""
        from stardist.geometry import dist_to_coord

        return np.asarray(dist_to_coord(self.dist, self.points, scale_dist=self.scale))


def tile_candidates(
    tile: TilePrediction, config: StarDistConfig, shape: tuple[int, int], grid_shape: tuple[int, int], prob: float
) -> Candidates:
    """The candidates of one tile.

    Parameters
    ----------
    tile : TilePrediction
    config : StarDistConfig
    shape : tuple of int
        Of the plane in pixels; what was padded proposes nothing.
    grid_shape : tuple of int
        Of the padded plane on the grid.
    prob : float
        Candidates have a higher probability.
    """
    rows, columns = np.nonzero(tile.prob > prob)
    cells = np.stack([rows + tile.y, columns + tile.x], 1)
    points = cells * np.array(config.grid)
    inside = ((cells >= _BORDER) & (cells < np.array(grid_shape) - _BORDER) & (points < np.array(shape))).all(1)
    dist = np.maximum(tile.dist[rows[inside], columns[inside]], _SMALLEST_DIST_PX)
    return Candidates(points[inside], tile.prob[rows[inside], columns[inside]], dist)


def join_candidates(parts: Iterable[Candidates], n_rays: int) -> Candidates:
    """The candidates of all tiles in the order of rows, as those of the whole plane are."""
    parts = [Candidates(np.zeros((0, 2), int), np.zeros(0, np.float32), np.zeros((0, n_rays), np.float32)), *parts]
    points = np.concatenate([part.points for part in parts])
    order = np.lexsort((points[:, 1], points[:, 0]))
    prob = np.concatenate([part.prob for part in parts])
    return Candidates(points[order], prob[order], np.concatenate([part.dist for part in parts])[order])


def find_instances(
    candidates: Candidates,
    thresholds: Thresholds,
    shape: tuple[int, int],
    scale: tuple[float, float] = (1.0, 1.0),
) -> Instances:
    """Let the candidates that overlap more likely ones go, and draw the others.

    Parameters
    ----------
    candidates : Candidates
    thresholds : Thresholds
        Of which `nms` is used.
    shape : tuple of int
        Of the image, height and width.
    scale : tuple of float
        Pixels of the image for one of the plane that the network saw. Outlines, not labels, are scaled.

    Returns
    -------
    Instances
        As ``StarDist2D.predict_instances`` gives them, numbered by falling probability.
    """
    if not len(candidates):
        empty = np.zeros((0, 2), np.float64)
        return Instances(np.zeros(shape, np.int32), candidates.prob, empty, candidates.dist, scale)
    from stardist.geometry import polygons_to_label
    from stardist.nms import non_maximum_suppression_sparse

    points, prob, dist, _ = non_maximum_suppression_sparse(
        candidates.dist, candidates.prob, candidates.points, nms_thresh=thresholds.nms, verbose=False
    )
    # a pixel's place is that of its centre, which scaling moves
    points = points if scale == (1.0, 1.0) else (points + 0.5) * np.array(scale) - 0.5
    labels = polygons_to_label(dist, points, prob=prob, shape=shape, scale_dist=scale)
    return Instances(labels.astype(np.int32, copy=False), prob, points.astype(np.float64), dist, scale)
