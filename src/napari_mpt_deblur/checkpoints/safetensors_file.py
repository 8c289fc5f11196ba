"""Reading a model file without trusting it: everything is checked against the configuration before memory is taken."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.checkpoints.safetensors_layout import (
    CONFIG_KEY,
    WHOLE,
    FileLayout,
    TensorEntry,
    read_layout,
    unreadable,
)
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks.config import MPTConfig

SUFFIX = ".safetensors"
MAX_INDEX_BYTES = 2**28  # the paper's network needs 1.4 MB


@dataclass(frozen=True)
class ModelHeader:
    """The header of a model file, checked against itself and the file's size.

    Attributes
    ----------
    config : ModelConfig
    tensors : dict of str to TensorEntry
    data_start : int
        Byte where the tensors begin.
    file_bytes : int
    """

    config: ModelConfig
    tensors: dict[str, TensorEntry]
    data_start: int
    file_bytes: int

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(entry.shape) for entry in self.tensors.values())


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file, read and checked.

    Attributes
    ----------
    config : ModelConfig
    weights : dict of str to ndarray
        float32, by the network's names; whole numbers in tables of networks of others'.
    sha256 : str
        Of the whole file, hexadecimal.
    """

    config: ModelConfig
    weights: dict[str, np.ndarray]
    sha256: str


def read_header(path: str | Path) -> ModelHeader:
    """The description of a model file; the weights are not read and torch is not loaded.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it is not a safetensors file of this package, or its header lies.
    """
    layout = read_layout(path, CONFIG_KEY, ModelConfig.from_dict)
    return ModelHeader(layout.description, layout.tensors, layout.data_start, layout.file_bytes)


def read_model_file(path: str | Path) -> ModelFile:
    """A model file's configuration and weights.

    The tensors' names, shapes, types and total size are compared with what the configuration says before any is
    read; nothing in the file is ever executed.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it is damaged, does not fit its configuration or holds weights that are not finite.
    """
    path = Path(path)
    header = read_header(path)
    if isinstance(header.config.network, MPTConfig):  # others are built within bounds, by `loading`
        _check_shapes(path, header.tensors, _network_shapes(path, header.config.network, header.parameter_count))
    weights, sha256 = _read_weights(path, header)
    return ModelFile(header.config, weights, sha256)


def read_tensors(path: str | Path, key: str, shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], str]:
    """The weights of a file that `read_layout` reads, of the names and shapes that its description stands for.

    Returns
    -------
    weights : dict of str to ndarray
        float32.
    sha256 : str
        Of the whole file, hexadecimal.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it is damaged, has other weights or holds some that are not finite.
    """
    path = Path(path)
    layout = read_layout(path, key, lambda description: description)
    _check_shapes(path, layout.tensors, shapes)
    return _read_weights(path, layout)


def _read_weights(path: Path, header: ModelHeader | FileLayout[Any]) -> tuple[dict[str, np.ndarray], str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        raise ModelError(f"Cannot use the model {path}: it needs more memory than there is.") from error
    if len(content) != header.file_bytes:
        raise ModelError(f"Cannot use the model {path}: it changed while it was read; try again.")
    data = memoryview(content)[header.data_start :]
    weights = {name: _weights(data[entry.start : entry.stop], entry) for name, entry in header.tensors.items()}
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise ModelError(f"Cannot use the model {path}: its weights {name!r} are not finite; it is damaged.")
    return weights, hashlib.sha256(content).hexdigest()


def _network_shapes(path: Path, network: MPTConfig, count: int) -> dict[str, tuple[int, ...]]:
    """The weights of the configuration's network, which takes no memory for them."""
    from napari_mpt_deblur.checkpoints.shapes import index_bytes, network_shapes

    if index_bytes(network) > MAX_INDEX_BYTES:
        raise ModelError(f"Cannot use the model {path}: its windows of {network.window} pixels take too much memory.")
    expected = network_shapes(network, most_parameters=count)
    if expected is None:
        raise ModelError(f"Cannot use the model {path}: it holds fewer weights than its network has; it is damaged.")
    return expected


def _check_shapes(path: Path, tensors: dict[str, TensorEntry], expected: dict[str, tuple[int, ...]]) -> None:
    found = {name: entry.shape for name, entry in tensors.items()}
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or surplus:
        name, what = (missing[0], "lacks") if missing else (surplus[0], "has unknown")
        raise ModelError(f"Cannot use the model {path}: it {what} weights {name[:80]!r}; it does not fit its network.")
    for name, shape in expected.items():
        if tensors[name].dtype in WHOLE:
            raise ModelError(f"Cannot use the model {path}: its weights {name!r} are whole numbers; it is damaged.")
        if shape != found[name]:
            raise ModelError(
                f"Cannot use the model {path}: its weights {name!r} are {_sizes(found[name])}, "
                f"its network needs {_sizes(shape)}."
            )


def _weights(data: memoryview, entry: TensorEntry) -> np.ndarray:
    """float32, or whole numbers, a copy."""
    if entry.dtype in WHOLE:
        return np.frombuffer(data, WHOLE[entry.dtype]).copy().reshape(entry.shape)
    if entry.dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, "<f4" if entry.dtype == "F32" else "<f2").astype(np.float32)
    return values.reshape(entry.shape)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
