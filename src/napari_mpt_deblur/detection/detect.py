"""`detect`: an image in, labels of its nuclei out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from napari_mpt_deblur.detection.detected import Detected, DetectionProgress
from napari_mpt_deblur.detection.folder import AnyDetector, Detector, TensorFlowDetector, load_detector
from napari_mpt_deblur.detection.library import DEFAULT_DETECTOR
from napari_mpt_deblur.detection.run import detection_steps
from napari_mpt_deblur.detection.settings import DetectionSettings
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images import ImageView


def detect(
    image: Any,
    model: str | Path | AnyDetector = DEFAULT_DETECTOR,
    *,
    axes: str | None = None,
    prob: float | None = None,
    nms: float | None = None,
    percentiles: tuple[float, float] = (1.0, 99.8),
    nucleus_diameter_px: float | None = None,
    pixel_size_um: float | None = None,
    tile: int | None = None,
    device: str = "auto",
    progress: Callable[[DetectionProgress], None] | None = None,
) -> np.ndarray:
    """Find the nuclei of an image or stack with StarDist, plane by plane, without TensorFlow.

    Parameters
    ----------
    image : array_like or ImageView
        Integers or floats; numpy, dask or zarr. Lazy arrays are read one plane at a time.
    model : str, Path or Detector
        A name that ``mpt-deblur models`` lists, a StarDist model folder, a file, or a loaded model.
    axes : str, optional
        Any of YX, ZYX, TYX, CYX, TZYX, CZYX, TCZYX, with S last for RGB; guessed by default. Every plane, so every
        channel, is an image of its own, unless the model takes several channels.
    prob, nms : float, optional
        Thresholds of probability and overlap; the model's own by default.
    percentiles : tuple of float
        Of each plane, colours together, that become 0 and 1.
    nucleus_diameter_px : float, optional
        Diameter of typical nuclei; the image is brought to the scale that the model knows.
    pixel_size_um : float, optional
        Width of a pixel, to the same end; the diameter comes first.
        With neither, the image is taken at its own scale, or an `ImageView` that states the size of its pixels at the
        model's where the two are far apart.
    tile : int, optional
        Side of the tiles in pixels; results do not depend on it.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    progress : callable, optional
        Called with a `DetectionProgress` after every tile.

    Returns
    -------
    ndarray
        int32 labels of the image's shape without colours, 0 for background; numbers begin anew in every plane. A
        plane that is constant has none.

    Raises
    ------
    DeblurError
        One of its kinds, with a message that says what to do.
    """
    settings = DetectionSettings(prob, nms, percentiles, nucleus_diameter_px, pixel_size_um, tile)
    if isinstance(model, (str, Path)):
        model = load_detector(model, device=device)
    elif not isinstance(model, (Detector, TensorFlowDetector)):
        raise ParameterError(f"model must be a name, a path or a loaded detector; got {type(model).__name__}.")
    view = image if isinstance(image, ImageView) else ImageView.of(image, axes)
    with closing(detection_steps(view, model, settings)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                detected: Detected = end.value
                return detected.labels
            if progress is not None:
                progress(step)
