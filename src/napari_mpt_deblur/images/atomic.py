"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_mpt_deblur.errors import FileError

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere",
    errno.EDQUOT: "your disk quota is used up: free some space, or write elsewhere",
    errno.EACCES: "permission denied: write elsewhere",
    errno.EPERM: "permission denied: write elsewhere",
    errno.EROFS: "the disk is read-only: write elsewhere",
    errno.ENOENT: "its folder does not exist: create it first",
    errno.ENOTDIR: "a part of its path is a file, not a folder: choose another path",
    errno.EISDIR: "a folder of that name is in the way: choose another name",
    errno.ENAMETOOLONG: "its name is too long: choose a shorter one",
}
_NAME_BYTES, _PARTIAL = 8, ".partial"  # of temporary files


def check_writable(path: str | Path, *, overwrite: bool) -> Path:
    """Find out before the work whether a file can be written.

    Parameters
    ----------
    path : str or Path
    overwrite : bool
        Whether a file that exists may be replaced.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        If the folder does not exist or refuses files, or something of that name is in the way.
    """
    path = Path(path)
    if "\0" in str(path):
        raise FileError(f"{str(path)!r} is not a file name.")
    try:
        if path.is_dir():
            raise FileError(f"Cannot write {path}: {_REASONS[errno.EISDIR]}.")
        if path.exists() and not overwrite:
            raise FileError(f"{path} exists: choose another name, or allow overwriting.")
        if not path.parent.is_dir():
            path.parent.stat()  # says whether it is missing or below a file
            raise FileError(f"Cannot write {path}: {_REASONS[errno.ENOTDIR]}.")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise FileError(f"Cannot write {path}: {_REASONS[errno.EACCES]}.")
    except FileError:
        raise
    except OSError as error:
        raise writing_failed(path, error) from error
    return path


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, moved there when the block ends well and removed when it does not.

    Parameters
    ----------
    path : str or Path
    overwrite : bool
        Whether a file that exists may be replaced.

    Yields
    ------
    Path
        To write to.

    Raises
    ------
    FileError
        If the file cannot be written; what was there before stays.
    """
    path = check_writable(path, overwrite=overwrite)
    temporary = path.with_name(f".{secrets.token_hex(_NAME_BYTES)}{_PARTIAL}")
    try:
        yield temporary
        _place(temporary, path, overwrite=overwrite)
    except FileError as error:  # whoever wrote named the file that it was given
        raise FileError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_partial(folder: str | Path) -> None:
    """Delete what processes that were killed while they wrote left of `atomic_path` in a folder.

    Nobody else may be writing there.
    """
    for path in Path(folder).glob(f".{'[0-9a-f]' * 2 * _NAME_BYTES}{_PARTIAL}"):
        with suppress(OSError):  # it takes up room, and no more
            path.unlink(missing_ok=True)


def _place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike a move it never replaces what another process has put there since
            return
        except FileExistsError as error:
            raise FileError(f"{path} exists: choose another name, or allow overwriting.") from error
        except OSError:  # a folder, or a disk that knows no links
            if path.exists():
                raise FileError(f"{path} exists: choose another name, or allow overwriting.") from None
    os.replace(temporary, path)


def writing_failed(path: str | Path, error: OSError) -> FileError:
    """The one-line message for an error of the operating system."""
    number = error.errno or 0
    if "requested and" in str(error):  # numpy, of an array that it could not write whole
        number = errno.ENOSPC
    reason = _REASONS.get(number) or error.strerror or str(error) or type(error).__name__
    return FileError(f"Cannot write {path}: {reason}.")


def check_creatable(folder: str | Path) -> None:
    """Find out before the work whether a folder can be made, or files in it where it exists.

    Raises
    ------
    FileError
        If a part of its path is a file, or refuses folders.
    """
    folder = Path(folder)
    try:
        absolute = folder.absolute()
        nearest = next(parent for parent in (absolute, *absolute.parents) if parent.exists())
    except (OSError, ValueError, StopIteration) as error:
        raise FileError(f"Cannot make the folder {str(folder)[:200]!r}: choose another name.") from error
    if not nearest.is_dir():
        raise FileError(f"Cannot make the folder {folder}: {nearest} is a file; choose another path.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        what = "write into" if nearest == absolute else "make"
        raise FileError(f"Cannot {what} the folder {folder}: permission denied in {nearest}; write elsewhere.")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[None]:
    """Make a folder and those above it, where they are missing; if the block fails, the empty ones go again.

    Raises
    ------
    FileError
        If it cannot be made.
    """
    missing, path = [], Path(folder)
    while not os.path.exists(path):
        missing.append(path)
        path = path.parent
    make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty ends it
            for path in missing:
                path.rmdir()
        raise


def make_folder(folder: str | Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    FileError
        If that fails.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
