"""Puts trained models into the library in the background, and tells all panels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from napari_mpt_deblur.widgets import model_news
from napari_mpt_deblur.widgets.protocols import Job, Runner
from napari_mpt_deblur.widgets.stages import Failure
from napari_mpt_deblur.widgets.train.job import save_steps


class Saver:
    """One model at a time.

    Parameters
    ----------
    runner : Runner
    notify : callable
        Shows one error to the user.
    show : callable
        Shows how it is going.
    """

    def __init__(self, runner: Runner, notify: Callable[[str], None], show: Callable[[str], None]) -> None:
        self._runner, self._notify, self._show = runner, notify, show
        self._job: Job | None = None

    def save(self, weights: Path, name: str) -> None:
        """Save a model under a name, unless one is being saved."""
        if self._job is None:
            self._job = self._runner(
                f"Save the model {name!r}",
                partial(save_steps, weights, name),
                yielded=lambda stage: self._show(stage.text),
                returned=partial(self._on_returned, name),
                finished=self._on_finished,
            )

    def _on_returned(self, name: str, outcome: Path | Failure) -> None:
        if isinstance(outcome, Failure):
            self._notify(outcome.message)
            self._show(outcome.message)
            return
        self._show(f"Saved as {name!r}; the Deblur panel lists it now.")
        model_news.announce()

    def _on_finished(self) -> None:
        self._job = None
