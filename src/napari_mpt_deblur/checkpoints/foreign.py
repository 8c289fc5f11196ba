"""Reading checkpoints that others saved, without trusting them: names and tensors, nothing else.

A PyTorch file is a zip archive with a pickle in it. The archive's directory is checked first, then the pickle is
scanned, without being run, for anything but tensors; then PyTorch's own restricted unpickler (``weights_only``) reads
the shapes, and only when these fit into the file, the values.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
import stat
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mpt_deblur.errors import FileError, ModelError, OutOfMemoryError
from napari_mpt_deblur.networks.guard import is_out_of_memory

_MAX_FILE_BYTES = 2**31  # weights of 100 million numbers with their optimiser's state have 1.2 GB
_MAX_ENTRIES = 100_000
_MAX_PICKLE_BYTES = 2**24  # names and shapes; the paper's network has 0.2 MB of them
_MAX_DEPTH = 8  # an optimiser's state beside the weights has 5
_CHECKED_AT_ONCE = 2**22  # numbers
_ZIP, _LEGACY = b"PK\x03\x04", (b"\x80", b"(", b"]", b"}", b"c")
# bytes of a number in each kind of part
_STORAGES = {"DoubleStorage": 8, "LongStorage": 8, "FloatStorage": 4, "IntStorage": 4, "HalfStorage": 2}
_STORAGES |= {"BFloat16Storage": 2, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1}
# all that a state dict is made of; a pickle that names anything else is not opened
_TENSORS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}" for kind in _STORAGES),
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NESTED = ("params_ema", "params", "state_dict", "model_state_dict", "net", "net_g", "network", "generator", "model")
# these would name what the scan cannot see, or build what no state dict holds
_FORBIDDEN_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}


class ForeignWeights(dict[str, Tensor]):
    """Tensors by name, on the CPU, of the types that the file holds; `sha256` is the file's."""

    sha256: str = ""


def read_foreign(path: str | Path) -> ForeignWeights:
    """The state dict in a checkpoint of PyTorch (``.pth``, ``.pt``, ``.ckpt``) or of safetensors.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ForeignWeights
        Floating point and whole numbers; those that are floating are finite.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelError
        If it holds anything but tensors, is damaged or lies about their sizes.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"Cannot read {path}: it is not a regular file.")
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise FileError(f"Cannot read {path}: no such file; check the name.") from error
    except (OSError, ValueError) as error:
        raise (
            error if isinstance(error, FileError) else FileError(f"Cannot read {str(path)[:200]}: {error}.")
        ) from error
    try:
        if status.st_size > _MAX_FILE_BYTES:
            raise ModelError(f"it has {status.st_size / 2**30:.0f} GB, more than any checkpoint of this kind")
        weights = ForeignWeights(_state_dict(_open(path, start, status.st_size)))
        _check_values(weights)
        with path.open("rb") as file:
            weights.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if _identity(path.stat()) != _identity(status):
            raise ModelError("it changed while it was read; try again")
    except ModelError as error:
        raise ModelError(f"Cannot import {path}: {str(error).rstrip('.')}.") from error
    except OSError as error:
        raise FileError(f"Cannot read {path}: {error.strerror or error}.") from error
    return weights


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a file that was replaced or written to from the one that was read."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open(path: Path, start: bytes, file_bytes: int) -> Any:
    if start == _ZIP:
        _check_archive(path, file_bytes)
        return _load(path, file_bytes)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if start.startswith(_LEGACY):
        raise ModelError(
            "it is a bare pickle, which can run code; if it is a checkpoint from before PyTorch 1.6 that you trust, "
            "save it anew with a later one: torch.save(torch.load(FILE, weights_only=True), NEW)"
        )
    raise ModelError("it is neither a PyTorch nor a safetensors file, or not a whole one; download or copy it anew")


def _check_archive(path: Path, file_bytes: int) -> None:
    """Nothing is unpacked: sizes are the directory's, and entries must lie in the file as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise ModelError(f"it has {len(entries)} parts, more than any checkpoint")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                raise ModelError("its parts are compressed or encrypted, which PyTorch's are not; refused")
            if sum(entry.file_size for entry in entries) > file_bytes:
                raise ModelError("its parts claim more bytes than the file has; refused")
            pickles = [entry for entry in entries if entry.filename.split("/")[-1] == "data.pkl"]
            if any("constants.pkl" in entry.filename for entry in entries):
                raise ModelError("it is a TorchScript program; import a state dict, which is data alone")
            if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise ModelError("it is an archive, but not a PyTorch checkpoint")
            sizes: dict[str, int] = {}
            for entry in entries:
                name = entry.filename.lower()  # PyTorch looks parts up without regard to case, and finds one of several
                sizes[name] = min(entry.file_size, sizes.get(name, entry.file_size))
            content = archive.read(pickles[0])
            _scan(content)
            folder = pickles[0].filename.removesuffix("data.pkl").lower()
            for key, claimed in _claims(content):
                if claimed > sizes[f"{folder}data/{key}".lower()]:
                    raise ModelError("its weights claim more bytes than their part of the file has; refused")
    except ModelError:
        raise
    except Exception as error:  # of a hostile archive, whatever
        raise ModelError("its archive is damaged; download or copy it anew") from error


def _scan(content: bytes) -> None:
    """Refuse what names anything but tensors; the pickle is parsed, not run."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _FORBIDDEN_OPCODES:
            raise ModelError(f"it holds more than tensors ({opcode.name}), which could run code; refused")
        if opcode.name == "GLOBAL" and argument not in _TENSORS:
            name = ".".join(str(argument).split())[:80]
            raise ModelError(f"it holds more than tensors ({name}), which could run code; refused")


def _claims(scanned: bytes) -> Iterable[tuple[str, int]]:
    """Each part that a pickle refers to, and how many bytes it says that it has.

    PyTorch before 2.10 believes it, and reads beyond the part (CVE-2026-24747).
    """
    reader = _Claims(io.BytesIO(scanned))
    reader.load()
    return reader.found


class _Claims(pickle._Unpickler):  # the one in C takes memory for as many objects as a pickle says that it has
    """Goes through a pickle that was scanned; what it names is nothing here, so that nothing is made."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.found: list[tuple[str, int]] = []

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if module == "collections" else name if name in _STORAGES else lambda *_: None

    def persistent_load(self, pid: Any) -> None:
        _, kind, key, _, number = pid
        self.found.append((key, int(number) * _STORAGES[kind]))


def _load(path: Path, file_bytes: int) -> Any:
    try:
        # on the meta device a tensor takes no memory, whatever it says of its size
        content = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # of a hostile file, whatever
        _raise_if_no_memory(error)
        raise ModelError("it is damaged, or holds more than tensors; download or copy it anew") from error
    total = 0
    for name, tensor in _tensors(content, 0, set()):
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(f"its weights {name[:80]!r} are not laid out as plain arrays; refused")
        total += tensor.numel() * tensor.element_size()
    if total > 2 * file_bytes:  # weights that share their memory are counted as often as they are named
        raise ModelError("its weights claim more bytes than the file has; refused")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        _raise_if_no_memory(error)
        raise ModelError("it is damaged; download or copy it anew") from error


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)  # checks its header against the file's size
    except (SafetensorError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        _raise_if_no_memory(error)
        raise ModelError("it is not a whole safetensors file; download or copy it anew") from error


def _raise_if_no_memory(error: Exception) -> None:
    if is_out_of_memory(error):
        raise OutOfMemoryError("Importing does not fit the memory: close other programs.") from error


def _tensors(content: Any, depth: int, seen: set[int]) -> Iterable[tuple[str, Tensor]]:
    """All tensors within, those of a table or list that stands in several places once."""
    if isinstance(content, Tensor):
        yield "", content
        return
    if not isinstance(content, (Mapping, list, tuple, set)) or id(content) in seen:
        return
    if depth > _MAX_DEPTH:
        raise ModelError("it is nested more deeply than any checkpoint")
    seen.add(id(content))
    for name, value in content.items() if isinstance(content, Mapping) else (("", value) for value in content):
        yield from ((f"{name}.{inner}".strip("."), tensor) for inner, tensor in _tensors(value, depth + 1, seen))


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The table of tensors, where training scripts keep it."""
    for _ in range(_MAX_DEPTH):
        tables = content if isinstance(content, Mapping) else {}
        inner = next((tables[key] for key in _NESTED if isinstance(tables.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError("it holds no state dict (a table of names and tensors)")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(f"its entry {str(name)[:80]!r} is not a tensor with a name")
    return dict(content)


def _check_values(weights: Mapping[str, Tensor]) -> None:
    for name, values in weights.items():
        if values.dtype.is_floating_point:
            if values.dtype not in _FLOATS:
                raise ModelError(f"its weights {name[:80]!r} are of type {values.dtype}, which is not read")
            if not all(torch.isfinite(part).all() for part in values.reshape(-1).split(_CHECKED_AT_ONCE)):
                raise ModelError(f"its weights {name[:80]!r} are not finite; it is damaged")
        elif values.is_complex():
            raise ModelError(f"its weights {name[:80]!r} are complex numbers, which is not read")


def as_float32(name: str, values: Tensor) -> np.ndarray:
    """Weights as this package computes with them.

    Raises
    ------
    ModelError
        If they are whole numbers, or leave the range of float32.
    """
    if values.dtype not in _FLOATS:
        raise ModelError(f"its weights {name[:80]!r} are of type {values.dtype}, not floating point")
    array = values.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        raise ModelError(f"its weights {name[:80]!r} are beyond the range of float32")
    return np.ascontiguousarray(array)


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in weights.items()}
