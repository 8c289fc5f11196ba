"""A detector: from a folder that StarDist wrote, or a safetensors file of our own, to a network on a device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_mpt_deblur.checkpoints.loading import torch_device
from napari_mpt_deblur.checkpoints.safetensors_file import SUFFIX, read_tensors
from napari_mpt_deblur.checkpoints.safetensors_layout import DETECTOR_KEY
from napari_mpt_deblur.detection.config import StarDistConfig, Thresholds, UnsupportedModelError, read_config
from napari_mpt_deblur.detection.description import DetectorDescription, read_description
from napari_mpt_deblur.detection.keras_weights import read_keras_weights
from napari_mpt_deblur.detection.layout import weight_shapes
from napari_mpt_deblur.detection.library import DEFAULT_DETECTOR, find_detector
from napari_mpt_deblur.detection.network import StarDistNetwork
from napari_mpt_deblur.detection.through_tensorflow import TensorFlowDetector, has_tensorflow, load_through_tensorflow
from napari_mpt_deblur.errors import FileError, ModelError, OutOfMemoryError
from napari_mpt_deblur.images import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, eq=False)
class Detector:
    """A StarDist network ready to find nuclei.

    Attributes
    ----------
    name : str
    network : StarDistNetwork
        In float32 and evaluation mode, on `device`.
    description : DetectorDescription
    sha256 : str
        Of the file of the weights.
    device : torch.device
    """

    name: str
    network: StarDistNetwork
    description: DetectorDescription
    sha256: str
    device: torch.device = field(default=torch.device("cpu"))

    @property
    def config(self) -> StarDistConfig:
        return self.description.config

    @property
    def thresholds(self) -> Thresholds:
        """The model's own."""
        return self.description.thresholds

    @property
    def n_channel_in(self) -> int:
        return self.config.n_channel_in

    @property
    def nucleus_diameter_px(self) -> float | None:
        """Of the nuclei that it was trained on, where that is known."""
        return self.description.nucleus_diameter_px

    @property
    def pixel_size_um(self) -> float | None:
        """Of the images that it was trained on, where that is known."""
        return self.description.pixel_size_um


AnyDetector = Detector | TensorFlowDetector


def load_detector(name_or_path: str | Path = DEFAULT_DETECTOR, device: str | torch.device = "auto") -> AnyDetector:
    """Load a detection model.

    Parameters
    ----------
    name_or_path : str or Path
        A name that `available_detectors` lists (one of StarDist's published models is fetched if it is not there
        yet), a folder that StarDist wrote, or a ``.safetensors`` file of `save_detector`.
    device : str or torch.device
        As of `load_model`.

    Returns
    -------
    Detector or TensorFlowDetector

    Raises
    ------
    ModelError
        If the model is unknown, damaged or not supported.
    FileError
        If it cannot be read, or not be fetched.
    DeviceError
        If the device is not present.
    """
    found = torch_device(device)
    path = find_detector(name_or_path)
    if path.is_dir():
        return load_folder(path, found)
    description = read_description(path)
    weights, sha256 = read_tensors(path, DETECTOR_KEY, weight_shapes(description.config))
    return _detector(path.stem, description, weights, sha256, found)


def load_folder(folder: str | Path, device: str | torch.device = "auto") -> AnyDetector:
    """Load a model folder that StarDist wrote, without TensorFlow unless only StarDist itself can run it.

    Parameters
    ----------
    folder : str or Path
        With ``config.json``, ``weights_best.h5`` and, where they were optimised, ``thresholds.json``.
    device : str or torch.device

    Returns
    -------
    Detector or TensorFlowDetector
        With the folder's name.

    Raises
    ------
    FileError
        If a file is missing or cannot be read.
    ModelError
        If a file is damaged, or the model is one that only StarDist itself can run and TensorFlow is not there.
    DeviceError
        If the device is not present.
    """
    found, folder = torch_device(device), Path(folder)
    try:
        config, thresholds = read_config(folder)
    except UnsupportedModelError:
        if not has_tensorflow():
            raise
        return load_through_tensorflow(folder, _sha256(_weights_file(folder)))
    path = _weights_file(folder)
    weights, sha256 = read_keras_weights(path, config), _sha256(path)
    return _detector(folder.absolute().name, DetectorDescription(config, thresholds), weights, sha256, found)


def save_detector(path: str | Path, detector: Detector, *, half: bool = False) -> Path:
    """Save a detector in one safetensors file; a file of that name is replaced.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``; its folder must exist.
    detector : Detector
    half : bool
        Store float16: half the size. The weights are computed with as float32 all the same.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If weights are not finite (or do not fit float16), or the description holds what JSON cannot.
    FileError
        If the file cannot be written; what was there before stays.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != SUFFIX:
        raise ModelError(f"A model's file name must end in {SUFFIX}; got {path.name!r}.")
    dtype = torch.float16 if half else torch.float32
    state = detector.network.state_dict()
    weights = {name: values.detach().to("cpu", dtype).contiguous() for name, values in state.items()}
    for name, values in weights.items():
        if not torch.isfinite(values).all():
            raise ModelError(f"The weights {name!r} are not finite{' as float16' if half else ''}: nothing was saved.")
    content = save(weights, metadata={DETECTOR_KEY: detector.description.to_json()})
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_bytes(content)
    return path


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FileError(f"Cannot read the weights {path}: {error.strerror or error}.") from error


def _weights_file(folder: Path) -> Path:
    """The file that StarDist would load: the newest of the best, or else the newest."""
    try:
        files = [path for path in folder.iterdir() if path.suffix in (".h5", ".hdf5") and path.is_file()]
        newest_first = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError as error:
        raise FileError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    if not newest_first:
        raise FileError(f"The folder {folder} holds no weights: it needs weights_best.h5, as StarDist saves it.")
    return next((path for path in newest_first if "best" in path.name), newest_first[0])


def _detector(
    name: str, description: DetectorDescription, weights: Mapping[str, np.ndarray], sha256: str, device: torch.device
) -> Detector:
    network = StarDistNetwork(description.config)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()}, strict=True)
    network.requires_grad_(False)
    try:
        # channels last in memory: the same numbers in 0.6 of the time on a CPU
        network = network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except RuntimeError as error:  # torch's own out-of-memory error is one
        raise OutOfMemoryError(f"The model does not fit the memory of {device}: choose another device.") from error
    return Detector(name, network, description, sha256, device)
