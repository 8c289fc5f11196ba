"""`import_checkpoint`: weights that others published, as a model of the library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.checkpoints.foreign import ForeignWeights, as_float32, read_foreign, shapes_of
from napari_mpt_deblur.checkpoints.library import check_name, user_folder
from napari_mpt_deblur.checkpoints.released import INDEX, convert, infer_config, is_released, without_prefix
from napari_mpt_deblur.checkpoints.safetensors_file import MAX_INDEX_BYTES, read_header
from napari_mpt_deblur.checkpoints.saving import save_model
from napari_mpt_deblur.checkpoints.shapes import index_bytes, network_shapes
from napari_mpt_deblur.errors import DeblurError, ModelError, ParameterError
from napari_mpt_deblur.images.atomic import make_folder
from napari_mpt_deblur.networks.build import Network
from napari_mpt_deblur.networks.mpt import MPT
from napari_mpt_deblur.networks.spandrel_network import identify

IntensityRange = Literal["full", "minmax", "percentiles"]
Scales = tuple[tuple[float, ...], ...]

_NORMALIZATIONS: dict[str, dict[str, Any]] = {
    "full": {"range": "full"},
    "minmax": {"percentiles": [0.0, 100.0]},
    "percentiles": {"percentiles": [1.0, 99.8]},
}


def import_checkpoint(
    path: str | Path,
    name: str,
    *,
    intensities: IntensityRange | None = None,
    clip: bool = True,
    scales: Sequence[Sequence[float]] | None = None,
    nucleus_diameter_px: tuple[float, float] | None = None,
    description: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> Path:
    """Import a published checkpoint into the user's library.

    Parameters
    ----------
    path : str or Path
        A PyTorch file (``.pth``, ``.pt``, ``.ckpt``) or a ``.safetensors`` file with a state dict: of a Multi-Pyramid
        Transformer as its authors publish it, or, with the extra ``spandrel``, of any network known there that restores
        an image at its size. Nothing in it is run.
    name : str
        Of the model.
    intensities : {"full", "minmax", "percentiles"}, optional
        Which grey levels of an image are 0 and 1 for the network: ``"full"`` the ends of its type's range (divided by
        255 for 8 bits), ``"minmax"`` its darkest and brightest pixel, ``"percentiles"`` its 1st and 99.8th
        percentile. No file tells. By default ``"full"`` for colours and ``"minmax"`` for grey, as the authors of the
        Multi-Pyramid Transformer do.
    clip : bool
        Whether the network's output is clipped to 0..1, as its authors do.
    scales : sequence of sequence of float, optional
        Local scales S of the sub-blocks of the four stages; those of the paper where the weights allow it.
    nucleus_diameter_px : tuple of float, optional
        Smallest and largest diameter of nuclei that the model knows.
    description, licence : str
    overwrite : bool
        Replace a model of the user's that has this name.

    Returns
    -------
    Path
        Of the model; `load_model` takes its name.

    Raises
    ------
    ParameterError
        If the name or a setting cannot be used.
    FileError
        If a file cannot be read or written.
    ModelError
        If the file holds anything but weights, is damaged, or is of no known network; the library stays as it was.
    """
    if intensities not in (None, *get_args(IntensityRange)):
        raise ParameterError(f"intensities must be full, minmax or percentiles; got {str(intensities)[:80]!r}.")
    told = None if scales is None else _as_scales(scales)
    target = check_name(name, overwrite=overwrite)
    if _is_ours(path):
        raise ModelError(f"Cannot import {path}: it is a model already; give its path, or put it into {user_folder()}.")
    weights = read_foreign(path)
    try:
        network = _network(weights, told)
    except ModelError as error:
        raise ModelError(f"Cannot import {path}: {str(error).rstrip('.')}.") from error
    channels = network.config.in_channels
    config = ModelConfig(
        network.config,
        _NORMALIZATIONS[intensities or ("full" if channels == 3 else "minmax")] | ({"clip": True} if clip else {}),
        nucleus_diameter_px,
        name,
        description or f"imported from {Path(path).name}",
        licence,
        {"imported": {"file": Path(path).name, "sha256": weights.sha256}},
    )
    make_folder(target.parent)
    return save_model(target, network, config, overwrite=overwrite)


def _is_ours(path: str | Path) -> bool:
    try:
        read_header(path)
    except (DeblurError, ValueError):  # the latter of a name that no file can have; `read_foreign` tells
        return False
    return True


def _as_scales(scales: Sequence[Sequence[float]]) -> Scales:
    try:
        return tuple(tuple(map(float, stage)) for stage in scales)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"scales must be numbers for each of the four stages; got {scales!r:.80}.") from error


def _network(weights: ForeignWeights, scales: Scales | None) -> Network:
    names = without_prefix(list(weights))
    if is_released(list(names)):
        return _released(weights, names, scales)
    if scales is not None:
        raise ModelError("it is no Multi-Pyramid Transformer of the authors', to which alone scales belong")
    return identify(weights)


def _released(weights: ForeignWeights, names: dict[str, str], scales: Scales | None) -> MPT:
    """The network of the authors' weights."""
    shapes = shapes_of(weights)
    config = infer_config({name: shapes[original] for name, original in names.items()}, scales)
    count = sum(values.numel() for values in weights.values())
    if index_bytes(config) > MAX_INDEX_BYTES:
        raise ModelError(f"its windows of {config.window} pixels take too much memory")
    expected = network_shapes(config, most_parameters=count)
    if expected is None:
        raise ModelError("it holds fewer weights than its network has")
    arrays = {
        name: _index(weights[original]) if name.endswith(INDEX) else as_float32(name, weights[original])
        for name, original in names.items()
    }
    network = MPT(config)
    converted = convert(arrays, config, expected)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in converted.items()})
    return network.eval()


def _index(values: torch.Tensor) -> np.ndarray:
    """Rows of the table of positions, which half precision may have been made of with all else."""
    return (values.to(torch.float64) if values.dtype.is_floating_point else values).numpy()
