"""A real viewer with the Deblur widget docked, and a tiny model that it finds."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from importlib import import_module

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest
from qtpy.QtCore import QThreadPool

from napari_mpt_deblur.widgets import estimator

PATIENCE_MS = 60_000  # machines that run tests are busy


@pytest.fixture(scope="session", autouse=True)
def what_lasts() -> Iterator[None]:
    """What is alike for every viewer is done once: manifests are read, and libraries' objects found not to be garbage.

    napari collects garbage when a layer is removed or a viewer closed. What came after this is looked at as ever.
    """
    engines = ("detection.run", "training.session", "restoration")
    for name in ("napari._qt.qt_main_window", *(f"napari_mpt_deblur.{engine}" for engine in engines)):
        import_module(name)
    found = list(PluginManifest.discover())
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "discover", lambda **_: found)
        yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory):
    """A folder with a model of random weights, and a file that is none."""
    from napari_mpt_deblur.checkpoints import ModelConfig, save_model
    from napari_mpt_deblur.networks.config import MPTConfig
    from napari_mpt_deblur.networks.mpt import MPT

    folder = tmp_path_factory.mktemp("models")
    config = MPTConfig.tiny(in_channels=1)
    save_model(folder / "tiny.safetensors", MPT(config), ModelConfig(config, name="tiny", description="For tests."))
    (folder / "broken.safetensors").write_bytes(b"no model")
    return folder


class Desk:
    """A viewer, its panel, and what the user was told."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.dock, self.panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Deblur")
        self.wait(lambda: self.panel.controller.is_ready)
        self.panel.choose_model("tiny")
        self._told_before = len(notification_manager.records)

    @property
    def told(self) -> list[str]:
        return [str(record.message) for record in notification_manager.records[self._told_before :]]

    def wait(self, condition: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(condition, timeout=PATIENCE_MS)

    def wait_idle(self) -> None:
        self.wait(lambda: not self.panel.controller.is_running)

    def names(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers]

    def run(self, button: str = "_deblur") -> None:
        getattr(self.panel, button).click()
        assert self.panel.controller.is_running
        self.wait_idle()


@pytest.fixture
def make_desk(make_napari_viewer, qtbot, model_folder, monkeypatch) -> Iterator[Callable[..., Desk]]:
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(model_folder))
    monkeypatch.setattr(estimator, "_QUIET_S", 0.05)  # nobody types here
    notification_manager.records.clear()
    show = os.environ.get("QT_QPA_PLATFORM") != "offscreen"  # a real window where there is a screen
    yield lambda: Desk(make_napari_viewer(show=show), qtbot)
    with contextlib.suppress(RuntimeError):
        QThreadPool.globalInstance().waitForDone(PATIENCE_MS)


@pytest.fixture
def desk(make_desk) -> Desk:
    return make_desk()


@pytest.fixture
def nuclei() -> np.ndarray:
    """(3, 96, 128) uint16: bright discs on a dim noisy ground."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128]
    image = np.full((96, 128), 200.0)
    for cy, cx in rng.uniform((0, 0), (96, 128), (20, 2)):
        image += 2000 * ((y - cy) ** 2 + (x - cx) ** 2 < 36)
    return np.stack([rng.poisson(image) for _ in range(3)]).astype(np.uint16)
