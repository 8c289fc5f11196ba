"""Draw the README's pictures of the widgets: the sample deblurred, its nuclei before and after, a model trained on it.

    xvfb-run -s "-screen 0 1600x1200x24" python scripts/make_screenshots.py [--model NAME] [--output docs/images]

Run it again when a model in the box or a panel changes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from napari.settings import get_settings
from PIL import Image
from qtpy.QtWidgets import QApplication, QDockWidget

WINDOW_PX = (1440, 780)
PLANE = 1  # of the sample: well out of focus
ZOOM = 1.7  # so that nuclei can be seen
ITERATIONS = 100  # of the training in the picture
MOST_BYTES = 400_000


def main() -> None:
    """Drive the widgets as a user would, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="by default the one that the widget offers first")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    options = parser.parse_args()

    get_settings().application.open_history = []  # nothing personal in the picture
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(*WINDOW_PX)
    viewer.open_sample("napari-mpt-deblur", "out_of_focus_nuclei")
    dock = picture_deblur(viewer, options.model, options.output / "widget.png")
    viewer.window.remove_dock_widget(dock)
    dock = picture_detect(viewer, options.output / "detect.png")
    viewer.window.remove_dock_widget(dock)
    with tempfile.TemporaryDirectory() as library:  # a run of earlier pictures would be gone on with
        os.environ["MPT_DEBLUR_MODELS"] = library
        picture_train(viewer, options.output / "train.png")
    viewer.close()


def picture_deblur(viewer: napari.Viewer, model: str | None, path: Path) -> QDockWidget:
    """The sample and its deblurred copy side by side; returns the dock, to be removed."""
    dock, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Deblur")
    wait(lambda: panel.controller.is_ready)
    if model:
        panel.choose_model(model)
    panel.controller.deblur()
    wait(lambda: not panel.controller.is_running)
    if len(viewer.layers) != 3:
        raise SystemExit("There is no result to show; see the message above.")
    viewer.dims.set_current_step(0, PLANE)
    panel.controller.toggle_side_by_side(True)
    viewer.scene.camera.zoom *= ZOOM
    settle()
    wait(lambda: not panel.controller.is_estimating)
    save(viewer.window.screenshot(canvas_only=False, flash=False), path)
    panel.controller.toggle_side_by_side(False)
    return dock


def picture_detect(viewer: napari.Viewer, path: Path) -> QDockWidget:
    """The nuclei of the sample before and after, coloured by fate, and the precision of both; returns the dock."""
    dock, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Detect nuclei")
    wait(lambda: panel.controller.is_ready)
    panel.controller.detect()
    wait(lambda: not panel.controller.is_running)
    viewer.dims.set_current_step(0, PLANE)
    settle()
    save(viewer.window.screenshot(canvas_only=False, flash=False), path)
    return dock


def picture_train(viewer: napari.Viewer, path: Path) -> None:
    """A model fine-tuned on the sample: the curves, and a plane before and after."""
    while len(viewer.layers) > 2:
        viewer.layers.pop()  # results of the pictures before
    _, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Train")
    wait(lambda: panel.controller.is_ready)
    panel.form.budget.set_iterations(ITERATIONS)
    panel.show_page("Progress")
    panel.controller.train()
    wait(lambda: not panel.controller.is_running)
    panel.controller.toggle_side_by_side(True)
    viewer.scene.camera.zoom *= ZOOM
    settle()
    wait(lambda: not panel.controller.is_estimating)
    save(viewer.window.screenshot(canvas_only=False, flash=False), path)


def wait(condition: Callable[[], bool], patience_s: float = 600) -> None:
    """Run the event loop until something holds."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("Waited in vain; is the machine very busy?")
        QApplication.processEvents()
        time.sleep(0.01)


def settle() -> None:
    """Let everything be drawn."""
    end = time.monotonic() + 1
    wait(lambda: time.monotonic() > end)


def save(pixels: np.ndarray, path: Path) -> None:
    """Write a PNG of few colours: the canvas is grey, and the panel has few."""
    path.parent.mkdir(parents=True, exist_ok=True)
    few = Image.fromarray(pixels[..., :3]).quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"The picture is larger than {MOST_BYTES / 1000:.0f} kB: make the window smaller.")


if __name__ == "__main__":
    main()
