"""Estimates in the background what a run would take, again whenever the settings change."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from napari_mpt_deblur.widgets.protocols import Job, Runner
from napari_mpt_deblur.widgets.stages import Failure, Stage

_QUIET_S = 0.4  # without another change of the settings, before they are estimated
_LOOK_S = 0.05

Request = TypeVar("Request")
Outlook = TypeVar("Outlook", contravariant=True)


class Shown(Protocol[Request, Outlook]):
    """What a panel does with estimates."""

    def ask(self) -> Request:
        """The run as the panel says now; raises where it makes no sense."""

    def show_waiting(self, text: str) -> None:
        """Show a text in the estimate's place: none, that it is being made, or why there is none."""

    def show_estimate(self, request: Request, outlook: Outlook) -> None:
        """Show what it found."""

    def describe_error(self, error: Exception) -> str:
        """What stands in its place where the settings make no sense."""


class Estimator(Generic[Request, Outlook]):
    """One estimate at a time, of the newest settings.

    Parameters
    ----------
    name : str
        Of the job, for people.
    runner : Runner
    steps : callable
        The generator function of an estimate, from the request of a run; returns an outlook or a `Failure`.
    shown : Shown
    """

    def __init__(
        self,
        name: str,
        runner: Runner,
        steps: Callable[[Request], Generator[Any, None, Outlook | Failure]],
        shown: Shown[Request, Outlook],
    ) -> None:
        self._name, self._runner, self._steps, self._shown = name, runner, steps, shown
        self._job: Job | None = None
        self._wanted: Request | None = None  # to be estimated when the estimate that is on has ended

    @property
    def is_on(self) -> bool:
        """Whether one is being made."""
        return self._job is not None

    def refresh(self) -> None:
        """Estimate what the panel says now."""
        try:
            request = self._shown.ask()
        except Exception as error:  # told as an error when the user starts
            self.drop()
            self._shown.show_waiting(self._shown.describe_error(error))
            return
        self._shown.show_waiting("Estimating time and memory...")
        self._wanted = request
        if self._job is not None:
            self._job.quit()
        else:
            self._begin(request)

    def drop(self) -> None:
        """Want no estimate any more."""
        self._wanted = None
        if self._job is not None:
            self._job.quit()
            self._shown.show_waiting("")

    def _begin(self, request: Request) -> None:
        self._job = self._runner(
            f"{self._name}: estimate time and memory",
            partial(self._steps, request),
            yielded=lambda _: None,
            returned=partial(self._on_returned, request),
            finished=partial(self._on_finished, request),
        )

    def _on_returned(self, request: Request, outcome: Outlook | Failure) -> None:
        if request is not self._wanted:
            return
        if isinstance(outcome, Failure):
            self._shown.show_waiting(outcome.message)
        else:
            self._shown.show_estimate(request, outcome)

    def _on_finished(self, request: Request) -> None:
        self._job = None
        if self._wanted is not None and self._wanted is not request:
            self._begin(self._wanted)


def quiet_steps() -> Generator[Stage, None, None]:
    """Wait a moment, in which the settings may change again; yields where that is noticed."""
    quiet_at = time.monotonic() + _QUIET_S
    while time.monotonic() < quiet_at:
        yield Stage("Estimating...")
        time.sleep(_LOOK_S)
