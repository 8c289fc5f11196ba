"""The library of detection models: which there are, by name, and where. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_mpt_deblur.checkpoints import library
from napari_mpt_deblur.checkpoints.safetensors_file import SUFFIX
from napari_mpt_deblur.detection import published
from napari_mpt_deblur.detection.config import UnsupportedModelError, read_config
from napari_mpt_deblur.detection.description import DetectorDescription, read_description
from napari_mpt_deblur.detection.through_tensorflow import has_tensorflow
from napari_mpt_deblur.errors import DeblurError, FileError, ModelError

DEFAULT_DETECTOR = "nuclei"
_BUNDLED = Path(__file__).parent.parent / "models" / "detection"


@dataclass(frozen=True)
class DetectorInfo:
    """An entry of the library of detection models.

    Attributes
    ----------
    name : str
        The file's name without its suffix, the folder's, or StarDist's own.
    path : Path or None
        None if it would have to be fetched.
    kind : {"bundled", "own", "published"}
    description : DetectorDescription or None
        None if it is not there yet, or broken, or one that StarDist itself runs, through TensorFlow.
    problem : str
        Why it cannot be used; empty if it can.
    """

    name: str
    path: Path | None
    kind: str
    description: DetectorDescription | None = None
    problem: str = ""


def own_folder() -> Path:
    """Where users put detection models of their own: the folder ``detection`` within that of `user_folder`."""
    return library.user_folder() / "detection"


def available_detectors() -> list[DetectorInfo]:
    """The bundled models, the user's own (files and StarDist folders), then those that StarDist published.

    Returns
    -------
    list of DetectorInfo
        One that cannot be used is among them and says why. Nothing is fetched.
    """
    infos: list[DetectorInfo] = []
    for kind, place in (("bundled", _BUNDLED), ("own", own_folder())):
        for path in _models(place):
            name = path.stem if path.suffix == SUFFIX else path.name
            if any(info.name == name for info in infos):
                infos.append(DetectorInfo(name, path, kind, problem="another model has its name: rename it."))
            else:
                infos.append(_describe(name, path, kind))
    taken = {info.name for info in infos}
    for model in published.published_models():
        if model.name not in taken:
            folder = published.cached(model)
            here = _describe(model.name, folder, "published") if folder else None
            infos.append(here or DetectorInfo(model.name, None, "published"))
    return infos


def find_detector(name_or_path: str | Path) -> Path:
    """The file or folder of a detection model; one of StarDist's published models is fetched if it is not there yet.

    Parameters
    ----------
    name_or_path : str or Path
        A name in the library, a folder that StarDist wrote, or a ``.safetensors`` file.

    Raises
    ------
    ModelError
        If no model has that name.
    FileError
        If the path leads nowhere, or the model cannot be fetched.
    """
    text = str(name_or_path)
    infos = available_detectors() if not isinstance(name_or_path, Path) else []
    for info in infos:
        if info.name == text:
            return info.path or published.fetch(text)
    path = Path(name_or_path)
    try:
        if path.is_file() or (path / "config.json").is_file():
            return path
        is_path = path.is_dir() or len(path.parts) > 1
    except (OSError, ValueError):  # too long, or a null character
        is_path = False
    if isinstance(name_or_path, Path) or is_path or path.suffix == SUFFIX:
        what = "it holds no config.json, as StarDist's model folders do" if path.is_dir() else "no such file or folder"
        raise FileError(f"Cannot read the detection model {text[:200]}: {what}; check the name.")
    names = ", ".join(info.name for info in infos if not info.problem)
    hint = ""
    if text == DEFAULT_DETECTOR:
        hint = " (none is bundled with this version)"
    raise ModelError(
        f"Unknown detection model {text[:80]!r}{hint}: choose from {names or 'none'}, or give a StarDist model folder."
    )


def _models(folder: Path) -> list[Path]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []
    return [entry for entry in entries if entry.suffix == SUFFIX or (entry / "config.json").is_file()]


def _describe(name: str, path: Path, kind: str) -> DetectorInfo:
    try:
        description = DetectorDescription(*read_config(path)) if path.is_dir() else read_description(path)
    except UnsupportedModelError as error:
        return DetectorInfo(name, path, kind, problem="" if has_tensorflow() else str(error))
    except DeblurError as error:
        return DetectorInfo(name, path, kind, problem=str(error))
    return DetectorInfo(name, path, kind, description)
