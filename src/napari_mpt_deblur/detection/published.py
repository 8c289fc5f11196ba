"""The models that StarDist's authors published: by name, fetched on request, checked, and kept in a folder.

Names, addresses and checksums are those of the installed stardist package; its source is read, not imported, as that
would load TensorFlow.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from napari_mpt_deblur.errors import FileError, ModelError
from napari_mpt_deblur.images.atomic import atomic_path, make_folder, writing_failed

FOLDER_VARIABLE = "MPT_DEBLUR_CACHE"
_SETTINGS = ("config.json", "thresholds.json")
_WEIGHTS = (".h5", ".hdf5")
_TIMEOUT_S = 30
_MAX_BYTES = 2**28  # the largest of the published models has 6 MB
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class PublishedModel:
    """A model of StarDist's authors.

    Attributes
    ----------
    name : str
    url : str
        Of a zip of the model's folder.
    sha256 : str
        Of the zip, hexadecimal.
    """

    name: str
    url: str
    sha256: str

    @property
    def archive(self) -> Path:
        """Where the zip is kept, or can be put by hand."""
        return cache_folder() / self.url.rpartition("/")[2]

    @property
    def folder(self) -> Path:
        """Where it is unpacked to."""
        return cache_folder() / self.name


def cache_folder() -> Path:
    """Where fetched models are kept: what MPT_DEBLUR_CACHE says, or the platform's folder for such data."""
    told = os.environ.get(FOLDER_VARIABLE)
    if told:
        return Path(told).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("napari-mpt-deblur", appauthor=False) / "stardist"


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """The 2D models that the installed stardist package knows; none if it is not there."""
    spec = find_spec("stardist")  # found without importing it
    source = Path(spec.origin).parent / "models" / "__init__.py" if spec and spec.origin else None
    if source is None or not source.is_file():
        return ()
    return parse_models(source.read_text(encoding="utf-8"))


def parse_models(source: str) -> tuple[PublishedModel, ...]:
    """The calls ``register_model(StarDist2D, name, url, sha256)`` of a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "register_model":
            continue
        kind, *texts = node.args
        values = [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
        if isinstance(kind, ast.Name) and kind.id == "StarDist2D" and len(values) == len(texts) == 3:
            found.append(PublishedModel(*values))
    return tuple(found)


def cached(model: PublishedModel) -> Path | None:
    """The folder of a model that was fetched before."""
    return model.folder if (model.folder / "config.json").is_file() else None


def fetch(name: str, *, opener: Callable[..., Any] = urlopen) -> Path:
    """The folder of a published model: the one in the cache, or else fetched, checked and unpacked.

    Parameters
    ----------
    name : str
    opener : callable
        As `urllib.request.urlopen`.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If no such model was published, or the zip is not the one whose checksum stardist carries.
    FileError
        If it cannot be fetched, with the file to fetch by hand and where to put it, or not be kept.
    """
    model = next((model for model in published_models() if model.name == name), None)
    if model is None:
        names = ", ".join(model.name for model in published_models()) or "none, as stardist is not installed"
        raise ModelError(f"StarDist published no 2D model {name[:80]!r}: choose from {names}.")
    folder = cached(model)
    if folder is not None:
        return folder
    make_folder(cache_folder())
    if not model.archive.is_file():
        _download(model, opener)
    _check(model)
    _unpack(model)
    return model.folder


def _download(model: PublishedModel, opener: Callable[..., Any]) -> None:
    try:
        with opener(model.url, timeout=_TIMEOUT_S) as response:
            content = response.read(_MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
        raise FileError(
            f"Cannot fetch {model.url} ({getattr(error, 'reason', None) or error}): without a network, put that file "
            f"at {model.archive} and try again."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != model.sha256:
        raise ModelError(
            f"What came from {model.url} is not StarDist's model {model.name} (its SHA-256 differs): nothing was kept; "
            f"try again, or put that file at {model.archive}."
        )
    with atomic_path(model.archive, overwrite=True) as temporary:
        temporary.write_bytes(content)


def _check(model: PublishedModel) -> None:
    """Whether the zip in the cache, which may have been put there by hand, is the published one."""
    digest = hashlib.sha256()
    try:
        with model.archive.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"Cannot read {model.archive}: {error.strerror or error}.") from error
    if digest.hexdigest() != model.sha256:
        raise ModelError(
            f"{model.archive} is not StarDist's model {model.name} (its SHA-256 differs): remove it and try again, "
            f"or put {model.url} there."
        )


def _unpack(model: PublishedModel) -> None:
    """Only the files that a model has, by their last names, into a folder that appears whole or not at all."""
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache_folder()))
        with zipfile.ZipFile(model.archive) as archive:
            for entry in archive.infolist():
                name = entry.filename.replace("\\", "/").rpartition("/")[2]
                if name in _SETTINGS or name.endswith(_WEIGHTS):
                    (temporary / name).write_bytes(_content(archive, entry))
        if not (temporary / "config.json").is_file():
            raise ModelError(f"{model.archive} holds no config.json: it is no StarDist model.")
        with suppress(FileNotFoundError):
            shutil.rmtree(model.folder)  # one without config.json
        os.replace(temporary, model.folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{model.archive} is damaged: remove it and try again.") from error
    except OSError as error:
        raise writing_failed(model.folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > _MAX_BYTES:
        raise zipfile.BadZipFile("an entry is larger than any model")
    with archive.open(entry) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise zipfile.BadZipFile("an entry is larger than it says")
    return content
