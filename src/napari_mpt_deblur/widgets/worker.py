"""Runs a job's generator in napari's thread worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any

from qtpy.QtCore import Qt

from napari_mpt_deblur.widgets.stages import failure

log = logging.getLogger("napari_mpt_deblur")


class _NamedSteps(partial[Generator[Any, None, Any]]):
    """A generator function that says what it does: napari shows its repr when a window is closed while it runs."""

    name = ""

    def __repr__(self) -> str:
        return self.name


def _carry(generator: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    return (yield from generator)


def _close(generator: Generator[Any, None, Any]) -> None:
    try:
        generator.close()
    except Exception:  # the user has left, there is nobody to tell
        log.exception("A job did not end as it should.")


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
    named = _NamedSteps(_carry, generator)
    named.name = name
    worker = create_worker(named, _start_thread=False, _ignore_errors=True)
    # napari would show the worker's warnings and errors too: ours are shown once, by the controller
    for signal in (worker.warned, worker.errored):
        with suppress(TypeError):  # nothing was connected
            signal.disconnect()
    worker.warned.connect(_log_warning)
    worker.errored.connect(lambda error: returned(failure(error)))
    # in its own thread, before that ends: what is closed may have something to save, and superqt would leave it open
    worker.aborted.connect(partial(_close, generator), Qt.ConnectionType.DirectConnection)
    worker.yielded.connect(yielded)
    worker.returned.connect(returned)
    worker.finished.connect(finished)
    worker.start()
    return worker


def _log_warning(warning: tuple[Any, ...]) -> None:
    log.info("%s: %s", warning[1].__name__, warning[0])
