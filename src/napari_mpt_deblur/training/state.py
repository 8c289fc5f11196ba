"""What a run leaves in its folder: the state that resuming reads, written whole or not at all."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_mpt_deblur.checkpoints import read_header
from napari_mpt_deblur.errors import DeblurError, FileError, TrainingError
from napari_mpt_deblur.images.atomic import atomic_path, check_creatable, make_folder
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.events import Scores

STATE, LOG, BEST, LAST = "state.pt", "log.jsonl", "best.safetensors", "last.safetensors"
TENSORBOARD = "tensorboard"
_EVENTS = "events.out.tfevents.*"
_VALUES_A_WEIGHT = 2 * 4 + 3  # a state has four (weights, average, moments), a model one; the next beside the last
_SPARE_BYTES = 2**22  # of what stands between the weights, and of the log


def check_folder(folder: Path, parameters: int) -> None:
    """Find out before the work whether checkpoints can be written.

    Parameters
    ----------
    folder : Path
        May be missing.
    parameters : int
        Of the network.

    Raises
    ------
    FileError
        If the folder cannot be made or written to, or its disk is too full.
    """
    check_creatable(folder / "x")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    needed = needed_bytes(parameters)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise FileError(
            f"The checkpoints of this run take {needed / 1e6:.0f} MB, but {existing} has {free / 1e6:.0f} MB left: "
            "free some space, or choose another folder."
        )


def needed_bytes(parameters: int) -> int:
    """What the checkpoints of a network take, while the next ones are written beside them."""
    return 4 * parameters * _VALUES_A_WEIGHT + _SPARE_BYTES


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state.

    Raises
    ------
    FileError
        If that fails; what was there before stays.
    """
    make_folder(folder)
    with atomic_path(folder / STATE, overwrite=True) as temporary:
        content = io.BytesIO()  # torch's own writer does not say why it failed
        torch.save(state, content)
        temporary.write_bytes(content.getbuffer())


def read_state(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The state, or None where there is none.

    Raises
    ------
    TrainingError
        If it is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict) or not {"iteration", "config", "network", "optimizer"} <= set(state):
            raise ValueError("it lacks entries")
    except Exception as error:  # pickle, zip and JSON each raise their own
        raise damaged(folder) from error
    return state


@dataclass(frozen=True, eq=False)
class SavedRun:
    """What a state says.

    Attributes
    ----------
    config : TrainingConfig
    history : list of dict
        What came before this configuration.
    scores : dict of str to Scores or None
        "before", "best" and "last".
    pairs : str or None
        What the pairs were; None where that is not known.
    learnt : dict
        "iteration", and the states of "network", "average" and "optimizer".
    """

    config: TrainingConfig
    history: list[dict[str, Any]]
    scores: dict[str, Scores | None]
    pairs: str | None
    learnt: dict[str, Any]


def read_run(folder: Path, device: torch.device | str) -> SavedRun | None:
    """The run that a folder holds, or None.

    Raises
    ------
    TrainingError
        If its state is damaged.
    """
    state = read_state(folder, device)
    if state is None:
        return None
    try:
        config = TrainingConfig.from_dict(json.loads(state["config"]))
        history = json.loads(state.get("history", "[]"))
        scores = {name: value and Scores(**value) for name, value in json.loads(state.get("scores", "{}")).items()}
        if math.isfinite(state.get("best", math.inf)):  # of a state that knew no more than that
            scores["best"] = Scores(state["iteration"], state["best"], math.nan, math.nan, math.nan)
    except (ValueError, TypeError, AttributeError) as error:  # TrainingError is a ValueError
        raise damaged(folder) from error
    return SavedRun(config, history, scores, state.get("pairs"), state)


def check_start(folder: Path, model: tuple[str, str] | None) -> None:
    """Find out whether a run that a folder holds began with the weights of this model, or with random ones.

    Parameters
    ----------
    folder : Path
    model : tuple of str, optional
        Its name and its sha256; None for random weights.

    Raises
    ------
    TrainingError
        If it began with others: it would go on with what it learnt from these, figures that belong to them, and
        another rule for grey levels.
    """
    saved = read_run(folder, "cpu")
    if saved is None:
        return
    begun = next((entry for entry in saved.history if "started_from" in entry), None)
    if (begun and begun["started_from"]) != (model and model[1]):
        known = f"the model {begun.get('name')}" if begun else "random weights"
        raise TrainingError(
            f"{folder} holds a run that began with {known}, not with {model[0] if model else 'random weights'}: start "
            "from that to go on with it, begin anew (restart), or choose another folder."
        )


@dataclass(frozen=True)
class BestWeights:
    """What the best weights say of themselves.

    Attributes
    ----------
    config : TrainingConfig
    scores : Scores
    pairs : str
        As a state has them.
    """

    config: TrainingConfig
    scores: Scores
    pairs: str


def read_best(folder: Path) -> BestWeights | None:
    """The best weights of a folder; None where there are none, or none that tell their figures."""
    try:
        recipe = read_header(folder / BEST).config.training
        scores, config = Scores(**recipe["figures"]["after"]), TrainingConfig.from_dict(recipe["config"])
        return BestWeights(config, scores, json.dumps(recipe["data"].get("pairs")))
    except (DeblurError, KeyError, TypeError, AttributeError):
        return None


def saved_iterations(folder: Path) -> int | None:
    """How many iterations the run in a folder was to have; None where there is none.

    Raises
    ------
    TrainingError
        If its state is damaged.
    """
    state = read_state(folder, "cpu")
    if state is None:
        return None
    try:
        return int(json.loads(state["config"])["iterations"])
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(folder) from error


def forget_run(folder: Path) -> None:
    """Delete the state, weights and logs of a run, so that nothing of it is taken for the next one's.

    Raises
    ------
    FileError
        If that is not allowed.
    """
    files = [folder / name for name in (STATE, BEST, LAST, LOG)]  # the state first: without it, the rest is no run
    for path in (*files, *(folder / TENSORBOARD).glob(_EVENTS)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(
                f"Cannot delete {path} of the run before: {error.strerror}; choose another folder."
            ) from error


def damaged(folder: Path) -> TrainingError:
    """The error for a state that cannot be read."""
    return TrainingError(f"{folder / STATE} is damaged: delete it to begin anew, or choose another folder.")
