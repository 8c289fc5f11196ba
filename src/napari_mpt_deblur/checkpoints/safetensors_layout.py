"""Where things are in a safetensors file of this package; its header is checked against itself and the file's size."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from napari_mpt_deblur.errors import FileError, ModelError

CONFIG_KEY = "mpt_deblur"
DETECTOR_KEY = "mpt_deblur_detector"
WHOLE = {"I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}  # tables that networks of others' keep
_MAX_HEADER_BYTES = 2**24
_MAX_FILE_BYTES = 2**33  # a sparse file may claim to be of any size
_MAX_TENSORS = 100_000
_MAX_REASON = 200  # letters
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_ITEM_BYTES |= {name: np.dtype(code).itemsize for name, code in WHOLE.items()}
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
class FileLayout(Generic[Description]):
    """Where things are in a file, and the description that its header holds."""

    description: Description
    tensors: dict[str, TensorEntry]
    data_start: int
    file_bytes: int


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
        raise unreadable(path, error) from error
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


def unreadable(path: Path, error: OSError) -> FileError:
    """What to say of a model file that the system does not let be read."""
    if isinstance(error, FileError):
        return error
    if isinstance(error, FileNotFoundError):
        return FileError(f"Cannot read the model {path}: no such file; check the name.")
    return FileError(f"Cannot read the model {path}: {error.strerror or error}.")


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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
