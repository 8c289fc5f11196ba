"""Memory of the host that the next layer uses again, instead of giving it back after every layer."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_..., from glibc's malloc.h
_KEPT_MAPS, _KEPT_FREE = 2**28, 2**30  # bytes
_USUAL = 32 * 2**20  # to what glibc's own thresholds grow in a process with large arrays; before 2.35 it takes no more

_lock = threading.RLock()  # whoever holds it may be interrupted by the garbage collector, which ends forgotten runs
_runs = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """While a run lasts, the C library keeps the memory that the run frees; after the last one it is given back.

    A run is a forward pass, or whatever holds many of them: runs may lie within others, and beside them in threads.

    A network allocates maps of megabytes in every layer. glibc returns them to the system at once, which zeroes each
    page when it is next touched: a fifth of the time of a forward pass. Other C libraries are left as they are.
    """
    global _runs
    with _lock:
        _runs += 1
        _set_thresholds(_KEPT_FREE, _KEPT_MAPS)
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if not _runs:
                _set_thresholds(2 * _USUAL, _USUAL)
                _give_back()


def _set_thresholds(trim_bytes: int, mmap_bytes: int) -> None:
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_TRIM_THRESHOLD, trim_bytes)
        # one that is set stops glibc from raising the other: were this refused, it would stay where it is, at 128 KB
        if not libc.mallopt(_MMAP_THRESHOLD, mmap_bytes):
            libc.mallopt(_MMAP_THRESHOLD, _USUAL)


def _give_back() -> None:
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
