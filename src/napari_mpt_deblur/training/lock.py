"""One run at a time in a folder: two would write over each other's state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.images.atomic import make_folder, writing_failed

_LOCK = "run.lock"  # stays, empty; what holds it is the system, which lets go of it when the process ends, however


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Keep other runs, of this process or of others, out of a folder; makes the folder.

    Raises
    ------
    TrainingError
        If another run is on there.
    FileError
        If the folder cannot be made or written to.
    """
    make_folder(folder)
    lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)  # a generator may be closed by another thread
    try:
        lock.acquire()
    except Timeout as error:
        raise TrainingError(
            f"Another training is on in {folder}: wait until it has ended, or choose another folder."
        ) from error
    except NotImplementedError:
        pass  # a disk that knows no locks: nothing can be found out
    except OSError as error:
        raise writing_failed(folder / _LOCK, error) from error
    try:
        yield
    finally:
        lock.release()


def check_sole(folder: Path) -> None:
    """Find out before the work whether another run is on in a folder; leaves nothing where there was none.

    Raises
    ------
    TrainingError, FileError
        As `sole_run`.
    """
    if (folder / _LOCK).exists():
        with sole_run(folder):
            pass
