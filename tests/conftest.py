"""What all tests share: few threads, none of them leaked, and the folder of real images."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# before anything imports numpy or torch: many small operations on few cores are faster on one thread
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("LP_NUM_THREADS", "0")  # nor does OpenGL on the processor draw in threads of its own
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("NAPARI_CONFIG", "")  # napari's settings stay in memory, and those of whoever tests as they are

ROOT = Path(__file__).parents[1]
_PATIENCE_S = 2.0
_KEPT_THREADS = ("tqdm_monitor", "zarr_io", "zarr_pool", "asyncio_")  # libraries keep these on purpose


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a display there is no OpenGL, and without that no canvas; pytest-xvfb starts a display if it can."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    for item in items:
        if "make_napari_viewer" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="napari's canvas needs a display: install Xvfb"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images, named by MPT_DEBLUR_DATA, ../shared/data by default; skips where it is absent."""
    folder = Path(os.environ.get("MPT_DEBLUR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the real images: MPT_DEBLUR_DATA ({folder}) is not a folder")
    return folder


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """A test that leaves a Python thread or a Qt worker running fails."""
    before = _threads()
    yield
    deadline = time.monotonic() + _PATIENCE_S
    while (leaked := _threads() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not leaked, f"the test left threads running: {sorted(thread.name for thread in leaked)}"
    qt = sys.modules.get("PyQt6.QtCore")
    if qt is not None:
        done = qt.QThreadPool.globalInstance().waitForDone(int(_PATIENCE_S * 1000))
        assert done, "the test left a worker running in Qt's thread pool"


def _threads() -> set[threading.Thread]:
    """Running Python threads, without dask's pools and Qt's own, which Python cannot join."""
    dask = sys.modules.get("dask.threaded")
    pools = [getattr(dask, "default_pool", None)]
    pools += [pool for by_size in getattr(dask, "pools", {}).values() for pool in by_size.values()]
    kept = {thread for pool in pools for thread in getattr(pool, "_threads", ())}
    return {
        thread
        for thread in set(threading.enumerate()) - kept
        if not isinstance(thread, threading._DummyThread) and not thread.name.startswith(_KEPT_THREADS)
    }
