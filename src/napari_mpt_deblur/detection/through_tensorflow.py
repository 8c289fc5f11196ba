"""Models that only StarDist itself can run, such as those for volumes: through TensorFlow, where the user has it.

The one file that may import ``stardist.models``, and TensorFlow with it, and only when such a model is loaded.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Generator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.detection.config import Thresholds
from napari_mpt_deblur.errors import ModelError

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.detected import Detected, DetectionProgress
    from napari_mpt_deblur.detection.settings import DetectionSettings
    from napari_mpt_deblur.images import ImageView

_TILE_PX = {2: {"Y": 1024, "X": 1024}, 3: {"Z": 64, "Y": 256, "X": 256}}


@dataclass(frozen=True, eq=False)
class TensorFlowDetector:
    """A StarDist model that StarDist itself runs.

    Attributes
    ----------
    name : str
    model : StarDist2D or StarDist3D
    n_dim : int
        2, or 3 for one that sees z-stacks as volumes.
    n_channel_in : int
    thresholds : Thresholds
        The model's own.
    sha256 : str
        Of the file of the weights.
    """

    name: str
    model: Any
    n_dim: int
    n_channel_in: int
    thresholds: Thresholds
    sha256: str
    device: str = "TensorFlow"
    nucleus_diameter_px: None = None  # StarDist does not say
    pixel_size_um: None = None

    def find(self, pixels: np.ndarray, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nuclei of one volume, or of one plane.

        Parameters
        ----------
        pixels : ndarray
            (Z, C, Y, X) normalised; one plane for a model of two dimensions.
        thresholds : Thresholds

        Returns
        -------
        labels : ndarray
            (Z, Y, X) int32.
        prob : ndarray
            (N,) Nucleus i has the label i + 1.
        points : ndarray
            (N, 2) Their centres, Y and X.
        """
        axes = ("ZYX" if self.n_dim == 3 else "YX") + ("C" if self.n_channel_in > 1 else "")
        image = np.moveaxis(pixels, 1, -1)  # (Z, Y, X, C)
        image = image if self.n_channel_in > 1 else image[..., 0]
        image = image if self.n_dim == 3 else image[0]
        sides = _TILE_PX[self.n_dim]
        try:
            labels, details = self.model.predict_instances(
                image,
                axes=axes,
                prob_thresh=thresholds.prob,
                nms_thresh=thresholds.nms,
                n_tiles=tuple(math.ceil(n / sides.get(axis, n)) for axis, n in zip(axes, image.shape, strict=True)),
                show_tile_progress=False,
            )
        except Exception as error:  # TensorFlow's own, RuntimeErrors among them
            raise ModelError(f"StarDist stopped with the model {self.name}: {_first_line(error)}.") from error
        labels = np.asarray(labels, np.int32).reshape(len(pixels), *pixels.shape[-2:])
        return labels, np.asarray(details["prob"], np.float32), np.asarray(details["points"], np.float64)[:, -2:]


def has_tensorflow() -> bool:
    """Whether it is installed; it is not imported."""
    try:
        return find_spec("tensorflow") is not None
    except (ImportError, ValueError):  # half-removed
        return False


def load_through_tensorflow(folder: Path, sha256: str) -> TensorFlowDetector:
    """Load a model folder with StarDist itself, which imports TensorFlow.

    Raises
    ------
    ModelError
        If StarDist cannot load it either.
    """
    folder = folder.absolute()
    try:
        n_dim = int(json.loads((folder / "config.json").read_bytes()).get("n_dim", 2))
        with redirect_stdout(sys.stderr):  # StarDist tells there what it loads
            from stardist.models import StarDist2D, StarDist3D

            model = (StarDist3D if n_dim == 3 else StarDist2D)(None, name=folder.name, basedir=str(folder.parent))
        thresholds = Thresholds.from_dict({"prob": float(model.thresholds.prob), "nms": float(model.thresholds.nms)})
        return TensorFlowDetector(folder.name, model, n_dim, int(model.config.n_channel_in), thresholds, sha256)
    except Exception as error:  # whatever TensorFlow or a damaged model throws
        raise ModelError(f"StarDist itself cannot load the model {folder}: {_first_line(error)}.") from error


def tensorflow_steps(
    view: ImageView, detector: TensorFlowDetector, settings: DetectionSettings
) -> Generator[DetectionProgress, None, Detected]:
    """`detection_steps` of such a detector; yields after every plane, or every volume."""
    from napari_mpt_deblur.detection.detected import Detected, DetectionProgress
    from napari_mpt_deblur.detection.instances import Instances
    from napari_mpt_deblur.detection.planes import normalised, plane_groups

    thresholds = settings.thresholds(detector.thresholds)
    settings.scale(detector)  # says so where it was asked for: StarDist knows none
    groups, axes = plane_groups(view, detector.n_channel_in)
    leading = tuple(view.shape[view.axes.text.index(letter)] for letter in axes[:-2])
    labels = np.zeros((*leading, view.height, view.width), np.int32)
    planes, count, done = {}, 0, 0
    for indices in _volumes(list(groups), axes, detector):
        pixels = normalised(view, tuple(plane for i in indices for plane in groups[i]), settings.percentiles)
        prob, points = np.zeros(0, np.float32), np.zeros((0, 2))
        if pixels is not None:
            shape = (len(indices), detector.n_channel_in, view.height, view.width)
            found, prob, points = detector.find(pixels.reshape(shape), thresholds)
            for plane, index in zip(found, indices, strict=True):
                labels[index] = plane
        for index in indices:
            planes[index] = Instances(labels[index], prob, points, np.zeros((len(prob), 0), np.float32))
        count, done = count + len(prob), done + len(indices)
        yield DetectionProgress(1, 1, done, len(groups))
    return Detected(labels, axes, {index: planes[index] for index in groups}, 1.0, thresholds, count)


def _volumes(indices: list[tuple[int, ...]], axes: str, detector: TensorFlowDetector) -> list[list[tuple[int, ...]]]:
    """What the model sees at once, by position along the leading axes of the labels: planes, or whole z-stacks."""
    if detector.n_dim == 2:
        return [[index] for index in indices]
    if "Z" not in axes:
        raise ModelError(f"The model {detector.name} is one for volumes: give it a z-stack, or choose a model for 2D.")
    z = axes.index("Z")
    volumes: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in indices:
        volumes.setdefault((*index[:z], *index[z + 1 :]), []).append(index)
    return list(volumes.values())


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
