"""Reading a model file without trusting it: everything is checked against the configuration before memory is taken."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.errors import FileError, ModelError
from napari_mpt_deblur.networks.config import MPTConfig

CONFIG_KEY = "mpt_deblur"
DETECTOR_KEY = "mpt_deblur_detector"
SUFFIX = ".safetensors"
_MAX_HEADER_BYTES = 2**24
_MAX_FILE_BYTES = 2**33  # a sparse file may claim to be of any size
_MAX_TENSORS = 100_000
_MAX_REASON = 200  # letters
MAX_INDEX_BYTES = 2**28  # the paper's network needs 1.4 MB
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_WHOLE = {"I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}  # tables that networks of others' keep
_ITEM_BYTES |= {name: np.dtype(code).itemsize for name, code in _WHOLE.items()}
_PICKLES = (b"\x80", b"PK\x03\x04", b"(", b"]", b"}", b"c")

Description = TypeVar("Description")


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


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


@dataclass(frozen=True)
class FileLayout(Generic[Description]):
    """Where things are in a file, and the description that its header holds."""

    description: Description
    tensors: dict[str, TensorEntry]
    data_start: int
    file_bytes: int


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


def read_layout(path: str | Path, key: str, parse: Callable[[Any], Description]) -> FileLayout[Description]:
    """The header of a safetensors file of this package, checked against itself and the file's size.

    Parameters
    ----------
    path : str or Path
    key : str
        Under which the file's kind of description stands.
    parse : callable
        Makes the description of plain data; raises ModelError.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it is not a safetensors file with such a description, or its header lies.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"Cannot read the model {path}: it is not a regular file.")
        if status.st_size > _MAX_FILE_BYTES:
            gigabytes = f"{status.st_size / 2**30:.0f} GB"
            raise ModelError(f"Cannot use the model {path}: it has {gigabytes}, more than any model of this kind.")
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            _check_length(path, start, length, status.st_size)
            text = file.read(length)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
        if not isinstance(metadata, dict) or not isinstance(metadata.get(key), str):
            raise ModelError(_wrong_kind(metadata))
        description = json.loads(metadata[key], object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        parsed = parse(description)
        entries = _entries(header, status.st_size - 8 - length)
    except ModelError as error:
        reason = str(error).rstrip(".")[:_MAX_REASON]  # it may quote a file that is hostile
        raise ModelError(f"Cannot use the model {path}: {reason}.") from error
    except (ValueError, RecursionError, UnicodeDecodeError) as error:
        raise ModelError(f"Cannot use the model {path}: its header is damaged; download or copy it anew.") from error
    return FileLayout(parsed, entries, 8 + length, status.st_size)


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
        raise _unreadable(path, error) from error
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


def _wrong_kind(metadata: Any) -> str:
    kinds = {CONFIG_KEY: "deblurs", DETECTOR_KEY: "detects nuclei"}
    for key, what in kinds.items():
        if isinstance(metadata, dict) and key in metadata:
            return f"it is a model that {what}; choose one of the other kind"
    return "it was not saved by napari-mpt-deblur (its header holds no configuration)"


def _check_length(path: Path, start: bytes, length: int, file_bytes: int) -> None:
    if len(start) == 8 and 2 <= length <= min(_MAX_HEADER_BYTES, file_bytes - 8):
        return
    if start.startswith(_PICKLES):
        raise ModelError(
            f"Cannot use the model {path}: it looks like a pickle or PyTorch file, which can run code; "
            "only safetensors models are loaded."
        )
    raise ModelError(f"Cannot use the model {path}: it is not a whole safetensors file; download or copy it anew.")


def _entries(header: Any, data_bytes: int) -> dict[str, TensorEntry]:
    """The tensors of a header; they must fill the data without gap or overlap."""
    if not isinstance(header, dict) or not 0 < len(header) <= _MAX_TENSORS:
        raise ModelError("its header names no weights; it is damaged")
    entries = {name: _entry(name, values) for name, values in header.items()}
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.start):
        if entry.start != position:
            raise ModelError("its weights overlap or leave gaps; it is damaged")
        position = entry.stop
    if position != data_bytes:
        raise ModelError(f"its header speaks of {position} bytes of weights but {data_bytes} are there; it is damaged")
    return entries


def _entry(name: str, values: Any) -> TensorEntry:
    if not isinstance(values, dict) or set(values) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"the entry of {name[:80]!r} is damaged")
    dtype, shape, offsets = values["dtype"], values["shape"], values["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ModelError(f"the weights {name[:80]!r} are of type {str(dtype)[:20]!r}, which is not read")
    whole = all(
        isinstance(part, list) and len(part) <= 8 and all(type(n) is int and 0 <= n < 2**48 for n in part)
        for part in (shape, offsets)
    )
    if not whole or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ModelError(f"the sizes of {name[:80]!r} do not add up; it is damaged")
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


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
        if tensors[name].dtype in _WHOLE:
            raise ModelError(f"Cannot use the model {path}: its weights {name!r} are whole numbers; it is damaged.")
        if shape != found[name]:
            raise ModelError(
                f"Cannot use the model {path}: its weights {name!r} are {_sizes(found[name])}, "
                f"its network needs {_sizes(shape)}."
            )


def _weights(data: memoryview, entry: TensorEntry) -> np.ndarray:
    """float32, or whole numbers, a copy."""
    if entry.dtype in _WHOLE:
        return np.frombuffer(data, _WHOLE[entry.dtype]).copy().reshape(entry.shape)
    if entry.dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, "<f4" if entry.dtype == "F32" else "<f2").astype(np.float32)
    return values.reshape(entry.shape)


def _unreadable(path: Path, error: OSError) -> FileError:
    if isinstance(error, FileError):
        return error
    if isinstance(error, FileNotFoundError):
        return FileError(f"Cannot read the model {path}: no such file; check the name.")
    return FileError(f"Cannot read the model {path}: {error.strerror or error}.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
