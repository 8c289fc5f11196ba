"""Puts models into the library in the background, and tells all panels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari_mpt_deblur.widgets import model_news
from napari_mpt_deblur.widgets.protocols import Job, Runner, Steps
from napari_mpt_deblur.widgets.stages import Failure


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

    def save(self, title: str, steps: Steps, done: str) -> None:
        """Carry out what puts a model into the library, or say that it must wait for another.

        Parameters
        ----------
        title : str
            What is done, for people.
        steps : callable
            The generator function; yields a `Stage`, returns a `Failure` or anything else.
        done : str
            What to say at the end.
        """
        if self._job is not None:
            self._show("Another model is being put into the library: try again when that is done.")
        else:
            self._job = self._runner(
                title,
                steps,
                yielded=lambda stage: self._show(stage.text),
                returned=partial(self._on_returned, done),
                finished=self._on_finished,
            )

    def _on_returned(self, done: str, outcome: Any) -> None:
        if isinstance(outcome, Failure):
            self._notify(outcome.message)
            self._show(outcome.message)
            return
        self._show(done)
        model_news.announce()

    def _on_finished(self) -> None:
        self._job = None
