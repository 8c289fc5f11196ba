"""The model library: which models there are, by name, and where. No torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.checkpoints.safetensors_file import SUFFIX, read_header
from napari_mpt_deblur.errors import DeblurError, FileError, ModelError, ParameterError
from napari_mpt_deblur.images.atomic import check_creatable, check_writable

DEFAULT_MODEL = "nuclei"
FOLDER_VARIABLE = "MPT_DEBLUR_MODELS"
_BUNDLED = Path(__file__).parent.parent / "models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # no file names on Windows


@dataclass(frozen=True)
class ModelInfo:
    """An entry of the model library.

    Attributes
    ----------
    name : str
        The file's name without its suffix.
    path : Path
    bundled : bool
        Whether it came with the package.
    config : ModelConfig or None
        None if the file is broken.
    parameter_count : int
    problem : str
        Why it cannot be used; empty if it can.
    """

    name: str
    path: Path
    bundled: bool
    config: ModelConfig | None = None
    parameter_count: int = 0
    problem: str = ""

    @property
    def description(self) -> str:
        return self.config.description if self.config else ""


def user_folder() -> Path:
    """Where users put models of their own: what MPT_DEBLUR_MODELS says, or the platform's folder for such data."""
    told = os.environ.get(FOLDER_VARIABLE)
    if told:
        return Path(told).expanduser()
    from platformdirs import user_data_path

    return user_data_path("napari-mpt-deblur", appauthor=False) / "models"


def available_models() -> list[ModelInfo]:
    """The models in the package and in the user's folder, in order of name, bundled ones first.

    Returns
    -------
    list of ModelInfo
        A file that cannot be used is among them and says why.
    """
    bundled = [_describe(path, bundled=True) for path in _files(_BUNDLED)]
    taken = {info.name for info in bundled}
    own = []
    for path in _files(user_folder()):
        info = _describe(path, bundled=False)
        if info.name in taken:
            info = ModelInfo(info.name, path, False, problem="a bundled model has its name: rename the file.")
        own.append(info)
    return bundled + own


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model.

    Parameters
    ----------
    name_or_path : str or Path
        A name in the library, or a path to a ``.safetensors`` file.

    Raises
    ------
    ModelError
        If no model has that name.
    FileError
        If the path leads to no file.
    """
    text = str(name_or_path)
    for info in available_models():
        if info.name == text and (info.bundled or not info.problem.startswith("a bundled model")):
            return info.path
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
        is_folder = path.is_dir()
    except (OSError, ValueError):  # too long, or a null character
        is_folder = False
    if isinstance(name_or_path, Path) or path.suffix == SUFFIX or (len(path.parts) > 1 and not is_folder):
        raise FileError(f"Cannot read the model {text[:200]}: no such file; check the name.")
    names = ", ".join(info.name for info in available_models() if not info.problem)
    choice = f"choose from {names}, or" if names else "none is installed;"
    raise ModelError(f"Unknown model {text[:80]!r}: {choice} give the path of a {SUFFIX} file.")


def check_name(name: str, *, overwrite: bool = False) -> Path:
    """Where a model of that name will lie.

    Raises
    ------
    ParameterError
        If it cannot be a file's name, a bundled model has it, or (without `overwrite`) one of the user's.
    FileError
        If the user's folder refuses files.
    """
    usable = isinstance(name, str) and _NAME.fullmatch(name) and not name.endswith(SUFFIX)
    if not usable or _RESERVED.fullmatch(name):
        raise ParameterError(
            f"{str(name)[:80]!r} cannot be a model's name: "
            f"use letters, digits, dots, dashes and underscores, without {SUFFIX}."
        )
    for info in available_models():
        if info.name.casefold() == name.casefold() and (info.bundled or not overwrite):
            whose = "A bundled model" if info.bundled else "One of your models"
            raise ParameterError(f"{whose} is called {info.name}: choose another name.")
    path = user_folder() / f"{name}{SUFFIX}"
    if path.parent.exists():
        check_writable(path, overwrite=True)
    else:
        check_creatable(path)
    return path


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))
    except OSError:
        return []


def _describe(path: Path, *, bundled: bool) -> ModelInfo:
    try:
        header = read_header(path)
    except DeblurError as error:
        return ModelInfo(path.stem, path, bundled, problem=str(error))
    return ModelInfo(path.stem, path, bundled, header.config, header.parameter_count)
