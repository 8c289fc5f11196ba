"""Estimates in the background what a run would take, again whenever the settings change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari_mpt_deblur.widgets.protocols import Job, Runner
from napari_mpt_deblur.widgets.stages import Failure
from napari_mpt_deblur.widgets.train.job import Outlook, estimate_steps, training_failure
from napari_mpt_deblur.widgets.train.request import TrainRequest
from napari_mpt_deblur.widgets.train.result import describe_earlier, describe_outlook


class Estimator:
    """One estimate at a time, of the newest settings.

    Parameters
    ----------
    runner : Runner
    ask : callable
        Makes the request of a run as the panel says now.
    show : callable
        Shows the estimate, and which run can be gone on with: none if empty, not known if None.
    """

    def __init__(
        self, runner: Runner, ask: Callable[[], TrainRequest], show: Callable[[str, str | None], None]
    ) -> None:
        self._runner, self._ask, self._show = runner, ask, show
        self._job: Job | None = None
        self._wanted: TrainRequest | None = None  # to be estimated when the estimate that is on has ended

    @property
    def is_on(self) -> bool:
        """Whether one is being made."""
        return self._job is not None

    def refresh(self) -> None:
        """Estimate what the panel says now."""
        try:
            request = self._ask()
        except Exception as error:  # told as an error when the user starts
            self.drop()
            self._show(training_failure(error).message, None)
            return
        self._show("Estimating time and memory...", None)
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
            self._show("", None)

    def _begin(self, request: TrainRequest) -> None:
        self._job = self._runner(
            "Train: estimate time and memory",
            partial(estimate_steps, request),
            yielded=lambda _: None,
            returned=partial(self._on_returned, request),
            finished=partial(self._on_finished, request),
        )

    def _on_returned(self, request: TrainRequest, outcome: Outlook | Failure) -> None:
        if request is not self._wanted:
            return
        if isinstance(outcome, Failure):
            self._show(outcome.message, None)
            return
        earlier = describe_earlier(outcome.earlier, request.config.iterations)
        self._show(describe_outlook(outcome.estimate, request), earlier)

    def _on_finished(self, request: TrainRequest) -> None:
        self._job = None
        if self._wanted is not None and self._wanted is not request:
            self._begin(self._wanted)
