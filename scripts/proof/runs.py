"""Training runs that are gone on with where they were, and not repeated when they are done."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mpt_deblur.errors import DeblurError
from napari_mpt_deblur.training import TrainingConfig, TrainingRequest, train
from napari_mpt_deblur.training.events import Finished

_SETTINGS, _DONE, _LOG = "settings.json", "done.json", "log.jsonl"


@dataclass(frozen=True)
class Run:
    """A run that is done.

    Attributes
    ----------
    folder : Path
    last, best : Path
        Its last weights, and those that validated best, which the widget and the command line hand out.
    cpu_seconds : float
        Of all its threads; a run that was interrupted counts from there.
    terms : dict of str to float
        Means of the loss's terms over the steps between the last two validations.
    """

    folder: Path
    last: Path
    best: Path
    cpu_seconds: float
    terms: dict[str, float]

    def share_of_extra(self, weight: float) -> float | None:
        """How much of the denominator L- + weight Lext is the latter; None where there is none."""
        if "extra" not in self.terms:
            return None
        extra = weight * self.terms["extra"]
        return extra / (self.terms["negative"] + extra)


def finish(request: TrainingRequest, about: str) -> Run:
    """Carry out a request, unless its folder says that this was done.

    Raises
    ------
    SystemExit
        If the folder holds a run of other settings, or the engine refuses this one.
    """
    folder = request.folder
    folder.mkdir(parents=True, exist_ok=True)
    settings, done = folder / _SETTINGS, folder / _DONE
    wanted = {"config": request.config.to_dict(), "base": str(request.base), "about": about}
    if settings.exists() and not _same(json.loads(settings.read_text()), wanted):
        raise SystemExit(f"{folder} holds a run of other settings: choose another output folder.")
    settings.write_text(json.dumps(wanted, indent=1))
    if not done.exists():
        print(f"{folder.name}: {about}", flush=True)
        begun = time.process_time()
        try:
            finished = _drive(request)
        except DeblurError as error:
            raise SystemExit(str(error)) from error
        outcome = {
            "last": finished.last.name,
            "best": finished.weights.name,
            "cpu_seconds": time.process_time() - begun,
            "terms": _terms(folder),
        }
        done.write_text(json.dumps(outcome, indent=1))
    outcome = json.loads(done.read_text())
    paths = (folder / outcome[name] for name in ("last", "best"))
    return Run(folder, *paths, outcome["cpu_seconds"], outcome["terms"])


def _same(stored: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Settings that are newer than the stored ones have their defaults in these."""
    configs = (TrainingConfig.from_dict(settings["config"]) for settings in (stored, wanted))
    return next(configs) == next(configs) and all(stored[name] == wanted[name] for name in ("base", "about"))


def _drive(request: TrainingRequest) -> Finished:
    steps = train(request)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            finished: Finished = end.value
            return finished


def _terms(folder: Path) -> dict[str, float]:
    last: dict[str, Any] = json.loads((folder / _LOG).read_text().splitlines()[-1])
    return {name: last[name] for name in ("loss", "pixel", "contrast", "positive", "negative", "extra") if name in last}
