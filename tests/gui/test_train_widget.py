"""The widget "Train" in a real viewer, with the real engine: what a user does, and what they must then see."""

import gc
import logging
import runpy
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QComboBox, QFileDialog, QInputDialog, QLabel, QPushButton

from napari_mpt_deblur.checkpoints import ModelConfig, load_model, save_model
from napari_mpt_deblur.images.writing import write_image
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.training.config import SimulationConfig, TrainingConfig
from napari_mpt_deblur.widgets.train.folder import EarlierRun, earlier_run
from napari_mpt_deblur.widgets.train.result import PREVIEW
from napari_mpt_deblur.widgets.train.settings import PairKind

from .conftest import Desk

GapMeter = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "event_loop.py"))["GapMeter"]
FOREVER = 100_000  # iterations


class TrainDesk(Desk):
    """A viewer with the Train panel, and what the user was told."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.open()
        self._told_before = len(notification_manager.records)

    def open(self):
        self.dock, self.panel = self.viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Train")
        self.wait(lambda: self.panel.controller.is_ready)
        self.panel.form.choose_model("tiny")
        self.panel.form.patch.setCurrentText("64 x 64 px")
        self.panel.form.batch.setValue(1)

    def iterations(self, count):
        self.panel.form.budget.set_iterations(count)

    def train(self, count=None):
        if count is not None:
            self.iterations(count)
        self.run("_train")

    def start(self, count=FOREVER):
        """Train until a few steps are done."""
        self.iterations(count)
        self.panel._train.click()
        self.wait(lambda: self.iteration >= 2 or not self.panel.controller.is_running)
        assert self.panel.controller.is_running, self.told

    def wait_outlook(self):
        self.wait(lambda: "Estimating" not in self.outlook)

    def choose_pairs(self, kind):
        choice = self.panel.form.pairs.kind
        choice.setCurrentIndex([entry.value for entry in choice._entries].index(kind))

    @property
    def iteration(self):
        run = self.panel.controller._run
        return run.step.iteration if run is not None and run.step is not None else 0

    @property
    def curves(self):
        return self.panel._plot._curves

    @property
    def outlook(self):
        return self.panel._outlook.text()

    @property
    def status(self):
        return self.panel._status.text()


@pytest.fixture
def library(model_folder, tmp_path, monkeypatch):
    """A library of its own for each test, with the model "tiny"."""
    folder = tmp_path / "library"
    folder.mkdir()
    shutil.copy(model_folder / "tiny.safetensors", folder)
    return folder


@pytest.fixture
def make_desk(make_desk, make_napari_viewer, qtbot, library, monkeypatch):  # the other's clean-up, another panel
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(library))
    few = replace(SimulationConfig.for_one_image(), psf_count=4)  # each takes as long as a step of the tiny network
    monkeypatch.setattr(SimulationConfig, "for_one_image", lambda: few)
    recipe = TrainingConfig.fine_tuning
    monkeypatch.setattr(  # each pair that is held out, too
        TrainingConfig, "fine_tuning", lambda *args, **kwargs: replace(recipe(*args, **kwargs), validation_pairs=2)
    )
    return lambda: TrainDesk(make_napari_viewer(show=False), qtbot)


@pytest.fixture
def desk(make_desk):
    return make_desk()


@pytest.fixture
def cells():
    """(2, 192, 224) uint16: bright discs with sharp edges on a dim noisy ground."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:192, :224]
    image = np.full((192, 224), 200.0)
    for cy, cx in rng.uniform((0, 0), (192, 224), (60, 2)):
        image += 2000 * ((y - cy) ** 2 + (x - cx) ** 2 < 36)
    return np.stack([rng.poisson(image) for _ in range(2)]).astype(np.uint16)


def runs(library):
    return [folder for folder in (library / "training").iterdir() if folder.is_dir()]


def test_the_whole_life_of_a_training(desk, library, cells, monkeypatch):
    """Start, live curve, preview, pause, resume, stop, before and after, save; and the Deblur widget has the model."""
    _, deblur = desk.viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Deblur")
    desk.wait(lambda: deblur.controller.is_ready)
    layer = desk.viewer.add_image(cells, name="cells", scale=(2, 0.5, 0.5), units="um", axis_labels=("z", "y", "x"))
    desk.wait_outlook()
    assert "of memory" in desk.outlook
    assert not any(button.isEnabled() for button in (desk.panel._pause, desk.panel._stop, desk.panel._save))
    desk.start()
    assert desk.panel._tabs.tabText(desk.panel._tabs.currentIndex()) == "Progress"
    assert "left" in desk.status
    drawn = len(desk.curves.loss("total", FOREVER))
    desk.wait(lambda: len(desk.curves.loss("total", FOREVER)) > drawn)
    for term in ("pixel", "positive", "negative", "extra"):
        assert desk.curves.loss(term, FOREVER)
    assert PREVIEW in desk.names()

    desk.panel._pause.click()
    desk.wait(lambda: desk.status == "Paused.")
    held = desk.iteration
    desk.qtbot.wait(200)
    assert desk.iteration == held
    assert desk.panel._pause.text() == "Resume"
    desk.panel._pause.click()
    desk.wait(lambda: desk.iteration > held)
    assert desk.panel._pause.text() == "Pause"

    desk.panel._stop.click()
    assert desk.status.startswith("Stopping")
    desk.wait_idle()
    assert desk.told == []
    assert desk.status.startswith("Stopped after ")
    assert desk.names() == ["cells", "cells before training", "cells after training"]
    before, after = desk.viewer.layers[1:]
    assert before.data.shape == after.data.shape == (1, 192, 224)
    assert (before.data != after.data).any()
    np.testing.assert_allclose(after.data_to_world((0, 3, 4)), layer.data_to_world((0, 3, 4)))
    assert "Held-out patches: PSNR" in desk.panel._report.text()
    desk.panel._side_by_side.click()
    assert [layer.name for layer in desk.viewer.layers if layer.visible] == [before.name, after.name]
    desk.panel._side_by_side.click()

    asked = []

    def name(*_, text):
        asked.append(text)
        return "mine", True

    monkeypatch.setattr(QInputDialog, "getText", name)
    assert deblur._model.findText("mine") < 0
    desk.panel._save.click()
    desk.wait(lambda: deblur._model.findText("mine") >= 0)
    assert asked == ["tiny-cells"]
    assert desk.status == "Saved as 'mine'; the Deblur panel lists it now."
    desk.wait(lambda: desk.panel.form.base.findText("mine") >= 0)
    card = (library / "mine.md").read_text()
    for fact in ("cells", "efcrex", load_model("tiny").sha256[:8], "PSNR"):
        assert fact in card
    deblur.choose_model("mine")
    deblur._deblur.click()
    desk.wait(lambda: not deblur.controller.is_running)
    assert desk.viewer.layers["cells deblurred"].metadata["mpt_deblur"]["model"]["name"] == "mine"
    assert desk.told == []


def test_what_stopped_is_gone_on_with_where_the_user_wants_it(desk, library, cells):
    desk.viewer.add_image(cells, name="cells")
    desk.start()
    desk.panel._stop.click()
    desk.wait_idle()
    (folder,) = runs(library)
    reached = earlier_run(folder)
    assert reached.iterations == FOREVER
    desk.wait_outlook()
    box = desk.panel._go_on
    assert box.isVisibleTo(desk.panel)
    assert box.isChecked()
    assert box.text() == f"Go on from iteration {reached.iteration}, where it stopped"
    desk.train(reached.iteration + 2)
    assert desk.curves.began == reached.iteration
    assert desk.status.startswith(f"Done after {reached.iteration + 2} ")
    desk.wait_outlook()
    assert box.text() == f"Keep the finished run ({reached.iteration + 2} iterations)"
    box.setChecked(False)
    desk.train(2)
    assert desk.curves.began == 0
    assert earlier_run(folder) == EarlierRun(2, 2)
    assert runs(library) == [folder]
    desk.panel.form.rate.setValue(2e-4)
    desk.wait_outlook()
    assert not box.isVisibleTo(desk.panel)  # other settings, another run
    assert desk.told == []


@pytest.mark.parametrize("how", ["viewer", "dock"])
def test_closing_mid_run_leaves_no_thread_and_a_usable_checkpoint(make_desk, library, cells, how, caplog):
    desk = make_desk()
    desk.viewer.add_image(cells, name="cells")
    desk.start()
    reached = desk.iteration
    if how == "viewer":
        desk.viewer.close()
    else:
        desk.dock.destroyOnClose()
    assert QThreadPool.globalInstance().waitForDone(20_000)
    desk.qtbot.wait(50)
    assert desk.told == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    (folder,) = runs(library)
    assert earlier_run(folder).iteration >= reached
    load_model(folder / "last.safetensors")
    if how == "dock":
        desk.open()
        desk.iterations(FOREVER)
        assert desk.names() == ["cells"]
        desk.wait(lambda: "Go on from iteration" in desk.panel._go_on.text())
    desk.panel = desk.dock = None
    gc.collect()


def test_closing_while_paused_is_quiet_too(desk, library, cells):
    desk.viewer.add_image(cells, name="cells")
    desk.start()
    desk.panel._pause.click()
    desk.wait(lambda: desk.status == "Paused.")
    desk.dock.destroyOnClose()
    assert QThreadPool.globalInstance().waitForDone(20_000)
    assert earlier_run(runs(library)[0]).iteration >= 2
    assert desk.told == []


# -- where pairs come from -----------------------------------------------------------------------------------------


def test_two_layers_as_pairs(desk, cells):
    desk.viewer.add_image(cells, name="sharp")
    desk.viewer.add_image(cells // 2 + 50, name="blurred")
    desk.choose_pairs(PairKind.PAIRS)
    pairs = desk.panel.form.pairs
    assert (pairs.blurred.chosen.name, pairs.sharp.chosen.name) == ("blurred", "sharp")
    desk.train(2)
    assert desk.told == []
    assert desk.status.startswith("Done after 2 iterations")


def test_folders_as_pairs_and_as_extra_data(desk, cells, tmp_path, monkeypatch):
    folders = []
    for side in ("blurred", "sharp"):
        folders.append(tmp_path / side)
        folders[-1].mkdir()
        for number, plane in enumerate(cells):
            write_image(folders[-1] / f"{number}.tif", plane, "YX")
    desk.viewer.add_image(cells, name="cells")
    form = desk.panel.form
    form.method.setCurrentText("EFCRex, labelled extra data")
    assert not form.unlabelled.isVisibleTo(desk.panel)
    desk.choose_pairs(PairKind.PAIRS)
    chosen = iter([*folders, *folders])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(next(chosen)))
    for field in (form.pairs.blurred, form.pairs.sharp, form.extra.blurred, form.extra.sharp):
        field._browse.click()
    assert form.pairs.blurred.chosen == folders[0]
    desk.train(2)
    assert desk.told == []
    assert desk.status.startswith("Done after 2 iterations")
    assert desk.curves.loss("extra", 10)


def test_a_focus_stack_without_contrast(desk, cells):
    from scipy import ndimage

    stack = np.stack([ndimage.gaussian_filter(cells[0].astype(float), sigma) for sigma in (4, 0, 3)])
    desk.viewer.add_image(stack.astype(np.uint16), name="stack")
    desk.panel.form.method.setCurrentText("L1 alone")
    desk.choose_pairs(PairKind.STACK)
    desk.train(2)
    assert desk.told == []
    assert desk.curves.loss("pixel", 10)
    assert not desk.curves.loss("extra", 10)


# -- bad input -----------------------------------------------------------------------------------------------------


def refused(desk, *words):
    """A click, one notification with these words, and not a step."""
    desk.panel._train.click()
    desk.wait_idle()
    assert len(desk.told) == 1, desk.told
    for word in words:
        assert word in desk.told[0]
    assert "\n" not in desk.told[0]
    assert desk.curves.is_empty
    assert desk.panel._train.isEnabled()


def test_pairs_of_different_sizes(desk, cells):
    desk.viewer.add_image(cells[:, :180], name="sharp")
    desk.viewer.add_image(cells, name="blurred")
    desk.choose_pairs(PairKind.PAIRS)
    refused(desk, "192", "180")


def test_folders_that_do_not_match(desk, cells, tmp_path):
    for side, other in (("blurred", "a.tif"), ("sharp", "b.tif")):
        (tmp_path / side).mkdir()
        for name in ("both.tif", other):
            write_image(tmp_path / side / name, cells[0], "YX")
    desk.viewer.add_image(cells, name="cells")
    desk.choose_pairs(PairKind.PAIRS)
    desk.panel.form.pairs.blurred.choose(tmp_path / "blurred")
    desk.panel.form.pairs.sharp.choose(tmp_path / "sharp")
    refused(desk, "a.tif", "no partner")


def test_a_layer_too_small_for_a_patch(desk, cells):
    desk.viewer.add_image(cells[:, :40, :40], name="small")
    refused(desk, "small", "64")


def test_no_room_for_checkpoints(desk, cells, monkeypatch):
    desk.viewer.add_image(cells, name="cells")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    refused(desk, "MB", "free some space")


def test_a_base_model_of_other_channels(desk, library, cells):
    from napari_mpt_deblur.networks.mpt import MPT

    config = MPTConfig.tiny(in_channels=2)
    save_model(library / "two.safetensors", MPT(config), ModelConfig(config))
    desk.panel.controller.survey()
    desk.wait(lambda: desk.panel.form.base.findText("two") >= 0)
    desk.panel.form.choose_model("two")
    desk.viewer.add_image(cells[0, ..., np.newaxis].repeat(3, -1).astype(np.uint8), name="colours", rgb=True)
    refused(desk, "channels", "3 colours")


def test_a_grey_model_learns_the_colours_of_an_rgb_image_one_by_one(desk, cells):
    rgb = np.stack([cells[0] // 10] * 3, axis=-1).clip(0, 255).astype(np.uint8)
    desk.viewer.add_image(rgb, name="colours", rgb=True)
    desk.train(2)
    assert desk.told == []
    assert desk.viewer.layers["colours after training"].data.shape == rgb.shape


def test_whatever_breaks_is_one_notification(desk, cells, monkeypatch, caplog):
    def breaks(*_, **__):
        raise RuntimeError("shape mismatch\nat line 3")

    monkeypatch.setattr("napari_mpt_deblur.training.session.train", breaks)
    desk.viewer.add_image(cells)
    desk.train(2)
    assert len(desk.told) == 1
    assert "\n" not in desk.told[0]
    assert "Traceback" in caplog.text
    assert desk.panel._train.isEnabled()


def test_a_name_that_is_taken_is_told_and_another_can_be_given(desk, library, cells):
    desk.viewer.add_image(cells, name="cells")
    desk.train(2)
    desk.panel.controller.save("tiny")
    desk.wait(lambda: desk.told != [])
    assert len(desk.told) == 1
    assert "another name" in desk.told[0]
    assert desk.panel._save.isEnabled()
    desk.panel.controller.save("other")
    desk.wait(lambda: (library / "other.safetensors").exists())
    desk.wait(lambda: desk.panel.form.base.findText("other") >= 0)


# -- the panel -----------------------------------------------------------------------------------------------------


def test_suggested_numbers_follow_the_model_until_the_user_says_others(desk):
    form = desk.panel.form
    assert form.patch.chosen == 64  # said by the user
    fine = form.rate.value()
    form.choose_model("")
    assert form.rate.value() > fine
    assert form.budget.iterations > 500
    assert form.patch.chosen == 128  # the least that the larger network takes
    form.rate.setValue(3e-4)
    form.choose_model("tiny")
    assert form.rate.value() == 3e-4
    assert form.budget.iterations == 500
    form.method.setCurrentText("L1 alone")
    assert not form.beta.isEnabled()


def test_numbers_of_any_size_can_be_typed_and_stepped(desk):
    beta = desk.panel.form.beta
    assert beta.text() == "1e-05"
    beta.stepBy(1)
    assert beta.text() == "2e-05"
    beta.stepBy(-2)
    assert beta.text() == "5e-06"
    beta.clear()
    desk.qtbot.keyClicks(beta, "3e-4")
    desk.qtbot.keyClick(beta, Qt.Key.Key_Return)
    assert beta.value() == 3e-4
    desk.qtbot.keyClicks(beta, "x")
    assert beta.value() == 3e-4


def test_minutes_instead_of_iterations(desk, cells):
    desk.viewer.add_image(cells, name="cells")
    desk.panel.form.budget.set_minutes(3)
    assert desk.panel.settings().minutes == 3
    desk.wait(lambda: "In 3 min" in desk.outlook)


def test_every_field_explains_itself(desk):
    fields = [*desk.panel.findChildren(QComboBox), *desk.panel.findChildren(QPushButton)]
    assert len(fields) > 12
    for field in fields:
        assert field.toolTip(), field


def test_nothing_is_clipped_at_the_usual_width_and_height(desk, cells):
    desk.viewer.add_image(cells, name="a layer with a rather long name, as layers have")
    form = desk.panel.form
    form.method.setCurrentText("EFCRex, labelled extra data")
    desk.choose_pairs(PairKind.PAIRS)
    desk.panel.show_controls(can_pause=True, paused=True, can_stop=True, can_save=True)
    desk.panel.show_outlook("Takes about 4 min (0.5 s an iteration) and 1.3 GB of memory.", "Go on from iteration 230")
    desk.dock.setFloating(True)
    desk.dock.show()
    desk.dock.resize(360, 900)
    desk.wait(lambda: desk.panel.width() <= 360)
    assert desk.panel.minimumSizeHint().height() < 700
    for page in range(3):
        desk.panel._tabs.setCurrentIndex(page)
        desk.qtbot.wait(20)
        seen = [field for field in desk.panel.findChildren((QLabel, QPushButton, QComboBox)) if field.isVisible()]
        assert len(seen) > 6
        for field in seen:
            assert field.width() >= field.minimumSizeHint().width(), field
            assert field.mapTo(desk.panel, field.rect().topRight()).x() <= 360
        area = desk.panel._tabs.currentWidget()
        if page < 2:
            assert not area.horizontalScrollBar().isVisible()


def test_the_event_loop_stays_live(desk, cells):
    desk.viewer.add_image(cells, name="cells")
    desk.iterations(25)
    desk.wait_outlook()
    desk.panel._train.click()
    with GapMeter() as gaps:
        desk.wait_idle()
    print(gaps, desk.status)
    assert desk.told == []
    assert "cells after training" in desk.names()
    assert gaps.p99_ms < 100
