"""What only a real window shows: the canvas, and the user's own way of closing it."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from detection.keras_files import write_folder
from qtpy.QtWidgets import QApplication

from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets.geometry import box_in_view

pytestmark = pytest.mark.xvfb


@pytest.fixture
def layer(desk, nuclei):
    layer = desk.viewer.add_image(nuclei, name="nuclei", scale=(2, 0.5, 0.5), units="um")
    desk.viewer.fit_to_view()
    QApplication.processEvents()
    return layer


def canvas(desk):
    QApplication.processEvents()
    return desk.viewer.screenshot(canvas_only=True, flash=False)


@pytest.mark.parametrize("zoom", [1, 2.5, 9])
def test_box_in_view_is_what_napari_draws(desk, layer, zoom):
    desk.viewer.scene.camera.zoom *= zoom
    desk.viewer.scene.camera.center = (0, 20, 40)
    canvas(desk)
    drawn = layer.corner_pixels[:, 1:]  # whole pixels that napari found in view when it drew
    y0, x0, y1, x1 = box_in_view(desk.viewer, layer, Axes("ZYX"))
    np.testing.assert_allclose([[y0, x0], [y1 - 1, x1 - 1]], drawn, atol=1)


def test_preview_covers_what_is_in_view_and_no_more(desk, layer):
    desk.viewer.scene.camera.zoom *= 4
    canvas(desk)
    desk.run("_preview")
    preview = desk.viewer.layers["Deblur preview"]
    assert 0 < preview.data.size < layer.data[0].size / 4
    before = canvas(desk)
    layer.visible = False
    covered = np.all(canvas(desk)[..., :3] == before[..., :3], axis=-1).mean()
    assert covered > 0.97  # the preview alone fills the canvas as source and preview did


def test_side_by_side_draws_both_and_the_view_comes_back_to_the_pixel(desk, layer):
    desk.run()
    result = desk.viewer.layers["nuclei deblurred"]
    result.data = np.full_like(result.data, 60000)  # white
    desk.viewer.scene.camera.zoom *= 1.7
    before = canvas(desk)
    desk.panel._side_by_side.click()
    shown = canvas(desk)[..., 0].astype(int)
    height, width = shown.shape
    middle = shown[height // 2 - 20 : height // 2 + 20]
    left, right = middle[:, : width // 2], middle[:, width // 2 :]
    assert (right == 255).mean() > 0.9
    assert (left > 20).mean() > 0
    assert (left == 255).mean() < 0.5
    desk.panel._side_by_side.click()
    np.testing.assert_array_equal(canvas(desk), before)


SCRIPT = """
import re
import napari, numpy as np
from qtpy.QtCore import QTimer
viewer = napari.Viewer()
squares = np.random.default_rng(0).integers(0, 4000, (50, 16, 16)).astype(np.uint16)
viewer.add_image(squares.repeat(16, 1).repeat(16, 2))
_, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", {name!r})

def look():
    if panel.controller.is_ready and not panel.controller.is_running:
        {start}
    if re.match({sign!r}, panel._status.text()):
        print("closing", flush=True)
        timer.stop()
        viewer.window._qt_window.close()  # as File > Close Window does

timer = QTimer()
timer.timeout.connect(look)
timer.start(20)
napari.run()
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    ("name", "start", "sign"),
    [
        ("Deblur", 'panel.choose_model("tiny"); panel.controller.deblur()', r"Tile [1-9]"),
        ("Detect nuclei", "panel.choose_folder({folder!r}); panel.controller.detect()", r"Before: plane \d"),
        (
            "Train",
            'panel.form.choose_model("tiny"); panel.form.patch.setCurrentText("64 x 64 px"); panel.controller.train()',
            r"Iteration ([2-9]|\d\d)",
        ),
    ],
)
def test_a_session_that_is_closed_mid_run_ends(model_folder, tmp_path, name, start, sign):
    folder = str(write_folder(tmp_path / "tiny-star", {"prob": 0.6, "nms": 0.3}))
    library = shutil.copytree(model_folder, tmp_path / "library")
    script = SCRIPT.format(name=name, start=start.format(folder=folder), sign=sign)
    began = time.monotonic()
    session = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"MPT_DEBLUR_MODELS": str(library)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert session.returncode == 0, session.stderr
    assert session.stdout.split() == ["closing", "ended"]
    assert "Traceback" not in session.stderr
    assert "QThread" not in session.stderr
    assert time.monotonic() - began < 90
    if name == "Train":  # to be gone on with
        (run,) = (library / "training").iterdir()
        assert {"state.pt", "last.safetensors"} <= {file.name for file in run.iterdir()}
