"""Runs a job's generator in napari's thread worker."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from qtpy.QtCore import Qt

from napari_mpt_deblur.widgets.stages import failure

_NICE = 10

log = logging.getLogger("napari_mpt_deblur")


class _NamedSteps(partial[Generator[Any, None, Any]]):
    """A generator function that says what it does: napari shows its repr when a window is closed while it runs."""

    name = ""

    def __repr__(self) -> str:
        return self.name


class _Job:
    """Carries a generator out in a thread of its own, of low priority, so that the viewer comes first.

    napari's threads serve others, too, and a thread's priority cannot be raised again. What torch starts from this one
    has its priority.
    """

    def __init__(self, generator: Generator[Any, None, Any]) -> None:
        self._generator = generator
        self._thread = ThreadPoolExecutor(1, "mpt-deblur", _lower_priority)

    def steps(self) -> Generator[Any, None, Any]:
        with self._thread:
            while True:
                is_over, value = self._thread.submit(self._next).result()
                if is_over:
                    return value
                yield value

    def close(self) -> None:
        """End a job that was left."""
        try:
            with self._thread:
                self._thread.submit(self._generator.close).result()
        except Exception:  # the user has left, there is nobody to tell
            log.exception("A job did not end as it should.")

    def _next(self) -> tuple[bool, Any]:
        try:
            return False, next(self._generator)
        except StopIteration as end:
            return True, end.value


def _lower_priority() -> None:
    if sys.platform == "linux":  # where a thread has one of its own; others favour the window in front themselves
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def run_in_thread(
    name: str,
    steps: Callable[[], Generator[Any, None, Any]],
    *,
    yielded: Callable[[Any], None],
    returned: Callable[[Any], None],
    finished: Callable[[], None],
) -> Any:
    """Run a generator in a thread; the callbacks are called in this one.

    Parameters
    ----------
    name : str
        What the job does, for people.
    steps : callable
        Makes the generator. It should not raise; if it does, `returned` gets a `Failure`.
    yielded, returned, finished : callable
        `finished` is called last and always; `returned` not after ``quit()``.

    Returns
    -------
    GeneratorWorker
        Its ``quit()`` ends the job at its next yield, where the generator is closed in the job's own thread.
    """
    from napari.qt.threading import create_worker

    generator = steps()
    job = _Job(generator)
    named = _NamedSteps(job.steps)
    named.name = name
    worker = create_worker(named, _start_thread=False, _ignore_errors=True)
    # napari would show the worker's warnings and errors too: ours are shown once, by the controller
    for signal in (worker.warned, worker.errored):
        with suppress(TypeError):  # nothing was connected
            signal.disconnect()
    worker.warned.connect(_log_warning)
    worker.errored.connect(lambda error: returned(failure(error)))
    # in its own thread, before that ends: what is closed may have something to save, and superqt would leave it open
    worker.aborted.connect(job.close, Qt.ConnectionType.DirectConnection)
    worker.yielded.connect(yielded)
    worker.returned.connect(returned)
    worker.finished.connect(finished)
    worker.start()
    return worker


def _log_warning(warning: tuple[Any, ...]) -> None:
    log.info("%s: %s", warning[1].__name__, warning[0])
