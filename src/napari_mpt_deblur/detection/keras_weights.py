"""Reading the weights that StarDist saved through Keras, without Keras and without trusting the file.

Only plain, numeric datasets within the file are read, after their shapes were compared with the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from napari_mpt_deblur.detection.config import StarDistConfig
from napari_mpt_deblur.detection.layout import ConvLayer, conv_layers
from napari_mpt_deblur.errors import FileError, ModelError

_EPSILON = 1e-3  # of Keras's batch normalisation
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_NUMBERED = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")
_NO_LAYERS = ("top_level_model_weights", "optimizer_weights", "optimizer")
_WHOLE_MODEL = "model_weights"  # the layers of a model that was saved with its architecture
_KERAS_3 = "layers"  # of Keras 3's own format: layers by class and number, variables by number
_MAX_OBJECTS, _MAX_NESTING = 20_000, 8

Layers = dict[str, dict[str, h5py.Dataset]]


def read_keras_weights(path: str | Path, config: StarDistConfig) -> dict[str, np.ndarray]:
    """The weights of a StarDist model, for `StarDistNetwork`.

    Parameters
    ----------
    path : str or Path
        ``weights_best.h5``, saved by Keras 2 or 3.
    config : StarDistConfig

    Returns
    -------
    dict of str to ndarray
        float32, by the network's names; kernels (out, in, height, width). Batch normalisation is worked into the
        kernel and bias before it.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it is damaged, does not fit the configuration or holds weights that are not finite.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ModelError("the file is empty; copy or download it anew")
        if not h5py.is_hdf5(path):
            raise ModelError("it is not an HDF5 file, as StarDist's weights are; copy or download it anew")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise FileError(f"Cannot read the weights {path}: {reason}; check the name.") from error
    except ModelError as error:
        raise ModelError(f"Cannot use the weights {path}: {error}.") from error
    try:
        with h5py.File(path, "r") as file:
            return _weights(_layers(file), config)
    except ModelError as error:
        raise ModelError(f"Cannot use the weights {path}: {error}.") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # h5py, of a damaged file
        raise ModelError(f"Cannot use the weights {path}: the file is damaged or cut short; copy it anew.") from error


def _layers(file: h5py.File) -> Layers:
    """The datasets by layer and last name; an attribute that lists them is not needed."""
    top = _child(file, _WHOLE_MODEL) if _WHOLE_MODEL in file else file
    numbered = _KERAS_3 in top
    if numbered:
        top = _child(top, _KERAS_3)
    found: Layers = {}
    for count, (path, dataset) in enumerate(_datasets(top, ())):
        if count > _MAX_OBJECTS:
            raise ModelError("it holds far more than a StarDist model does")
        layer, last = path[0], path[-1].partition(":")[0]
        if layer in _NO_LAYERS:
            continue
        if (
            len(path) < 2
            or found.setdefault(layer, {}).setdefault(_variable(layer, last, numbered), dataset) != dataset
        ):
            raise ModelError(f"its weights {'/'.join(path)[:80]!r} belong to no layer, or to one that has them twice")
    return found


def _child(group: h5py.Group, name: str) -> Any:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ModelError("it refers to other places or files, as StarDist's weights do not")
    return group[name]


def _datasets(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], h5py.Dataset]]:
    if not isinstance(group, h5py.Group) or len(path) > _MAX_NESTING:
        raise ModelError("it is not laid out as Keras does")
    if len(group) > _MAX_OBJECTS:
        raise ModelError("it holds far more than a StarDist model does")
    for name in group:
        item = _child(group, name)
        if isinstance(item, h5py.Dataset):
            yield (*path, name), item
        else:
            yield from _datasets(item, (*path, name))


def _variable(layer: str, last: str, numbered: bool) -> str:
    if not numbered:
        return last
    names = _NORM if layer.startswith("batch_normalization") else ("kernel", "bias")
    return names[int(last)] if last.isdigit() and int(last) < len(names) else last


def _weights(found: Layers, config: StarDistConfig) -> dict[str, np.ndarray]:
    layers = conv_layers(config)
    all_numbered = not {"prob", "dist"} & set(found) and any(name.startswith("conv2d") for name in found)
    numbered = iter(_in_order(found, "conv2d"))
    norms = iter(_in_order(found, "batch_normalization"))
    weights, taken = {}, set()
    for layer in layers:
        name = layer.keras_name
        if all_numbered or not name:
            name = _next(numbered, "conv2d")
        values = _read_layer(found, name, _conv_shapes(layer))
        taken.add(name)
        kernel, bias = values["kernel"].transpose(3, 2, 0, 1), values["bias"]  # HWIO to OIHW
        if layer.batch_norm:
            norm = _next(norms, "batch_normalization")
            kernel, bias = _normalised(kernel, bias, _read_layer(found, norm, dict.fromkeys(_NORM, bias.shape)))
            taken.add(norm)
        if layer.used:
            weights[f"layers.{layer.name}.conv.weight"] = np.ascontiguousarray(kernel, np.float32)
            weights[f"layers.{layer.name}.conv.bias"] = np.ascontiguousarray(bias, np.float32)
    surplus = sorted(set(found) - taken)
    if surplus:
        raise ModelError(f"it has the layer {surplus[0][:80]!r}, which the network of config.json has not")
    return weights


def _in_order(found: Layers, kind: str) -> list[str]:
    """The layers of a kind that Keras numbered, in the order in which they were made: 9 before 10."""
    matches = [match for match in map(_NUMBERED.fullmatch, found) if match and match[1] == kind]
    return [match[0] for match in sorted(matches, key=lambda match: int(match[2] or 0))]


def _next(names: Iterator[str], kind: str) -> str:
    name = next(names, None)
    if name is None:
        raise ModelError(f"it lacks layers of the network of config.json: there are too few named {kind}")
    return name


def _conv_shapes(layer: ConvLayer) -> dict[str, tuple[int, ...]]:
    return {"kernel": (*layer.kernel, layer.channels_in, layer.channels_out), "bias": (layer.channels_out,)}


def _read_layer(found: Layers, name: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A layer's variables as float64, checked."""
    if name not in found:
        raise ModelError(f"it lacks the layer {name[:80]!r} of the network of config.json")
    datasets = found[name]
    missing, surplus = sorted(set(shapes) - set(datasets)), sorted(set(datasets) - set(shapes))
    if missing or surplus:
        what = f"lacks the weights {missing[0]!r}" if missing else f"has unknown weights {surplus[0][:40]!r}"
        raise ModelError(f"its layer {name[:80]!r} {what}")
    return {variable: _read(datasets[variable], f"{name}/{variable}", shape) for variable, shape in shapes.items()}


def _read(dataset: h5py.Dataset, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if dataset.shape != shape:
        sizes = " x ".join(map(str, dataset.shape or ())) or "a single number"
        raise ModelError(f"its weights {name[:80]!r} are {sizes}, config.json asks for {' x '.join(map(str, shape))}")
    if dataset.dtype.kind != "f" or dataset.external or dataset.is_virtual:
        raise ModelError(f"its weights {name[:80]!r} are no floats within the file")
    values = np.asarray(dataset[()], np.float64)
    if not np.isfinite(values).all():
        raise ModelError(f"its weights {name[:80]!r} are not finite; it is damaged")
    return values


def _normalised(kernel: np.ndarray, bias: np.ndarray, norm: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias that give what the batch normalisation makes of their outputs."""
    if norm["moving_variance"].min() < 0:
        raise ModelError("a batch normalisation has a variance below 0; it is damaged")
    factor = norm["gamma"] / np.sqrt(norm["moving_variance"] + _EPSILON)
    return kernel * factor[:, None, None, None], (bias - norm["moving_mean"]) * factor + norm["beta"]
