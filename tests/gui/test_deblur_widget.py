"""The Deblur widget in a real viewer, with the real engine: what a user does, and what they must then see."""

import gc
import logging
import runpy
import warnings
from pathlib import Path

import napari
import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton

from napari_mpt_deblur.restoration import Deblurrer
from napari_mpt_deblur.widgets.deblur.import_dialog import ImportDialog
from napari_mpt_deblur.widgets.deblur.request import ImportRequest, Scope

GapMeter = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "event_loop.py"))["GapMeter"]


def choose_scope(panel, scope):
    panel._scope.setCurrentIndex([Scope.STACK, Scope.PLANE, Scope.SHAPE].index(scope))


def many_tiles(desk, size=256, planes=16):
    """A stack that keeps the engine busy for a while, in tiles of 64 pixels."""
    rng = np.random.default_rng(0)
    layer = desk.viewer.add_image(rng.integers(0, 4000, (planes, size, size)).astype(np.uint16), name="big")
    desk.panel._tile.setValue(64)
    return layer


def start(desk):
    desk.panel._deblur.click()
    desk.wait(lambda: "Tile " in desk.panel._status.text() and not desk.panel._status.text().startswith("Tile 0 "))


def test_open_sample_preview_and_deblur(desk):
    truth, stack = desk.viewer.open_sample("napari-mpt-deblur", "out_of_focus_nuclei")
    assert truth.data.shape == stack.data.shape[1:]
    for layer in (truth, stack):
        assert {str(unit) for unit in layer.units} == {"micrometer"}
        assert layer.axis_labels == ("z", "y", "x")[-layer.ndim :]
    np.testing.assert_allclose(truth.scale, stack.scale[1:])
    assert desk.panel._image.chosen is stack
    assert desk.panel._axes.currentText() == "z-stack: Z, Y, X (auto)"
    stack.data = stack.data[:, :96, :128]
    before = stack.data.copy()
    desk.run("_preview")
    assert desk.names() == [truth.name, stack.name, "Deblur preview"]
    desk.run("_deblur")
    assert desk.names() == [truth.name, stack.name, f"{stack.name} deblurred"]
    result = desk.viewer.layers[-1]
    assert result.data.shape == before.shape
    assert result.data.dtype == before.dtype
    assert (result.data != before).any()
    np.testing.assert_array_equal(stack.data, before)
    record = result.metadata["mpt_deblur"]
    assert record["model"]["name"] == "tiny"
    assert len(record["model"]["sha256"]) == 64
    assert record["axes"] == "ZYX"
    assert record["source"] == stack.name
    assert record["pixel_size_um"] == pytest.approx(0.65)
    assert {"normalization", "tiles", "device", "versions", "seconds"} <= set(record)
    assert f"on {record['device']}" in desk.panel._status.text()
    assert desk.told == []


def test_the_result_is_that_of_the_engine(desk, nuclei):
    from napari_mpt_deblur import deblur

    desk.viewer.add_image(nuclei)
    desk.run()
    np.testing.assert_array_equal(desk.viewer.layers[-1].data, deblur(nuclei, "tiny", axes="ZYX"))


def test_parts_show_what_the_full_run_gives(desk, nuclei):
    layer = desk.viewer.add_image(nuclei, name="nuclei", scale=(3, 0.5, 0.5), rotate=(0, 0, 10))
    desk.run()
    whole = desk.viewer.layers["nuclei deblurred"]
    desk.viewer.dims.set_current_step(0, 2)
    choose_scope(desk.panel, Scope.PLANE)
    desk.run()
    plane = desk.viewer.layers["nuclei deblurred [1]"]
    np.testing.assert_array_equal(plane.data[0], whole.data[2])
    np.testing.assert_allclose(plane.data_to_world((0, 4, 5)), layer.data_to_world((2, 4, 5)))
    corners = np.array([layer.data_to_world((0, y, x))[1:] for y, x in ((10, 20), (10, 80), (60, 80), (60, 20))])
    desk.viewer.add_shapes([corners], shape_type="polygon")
    choose_scope(desk.panel, Scope.SHAPE)
    desk.run()
    box = desk.viewer.layers["nuclei deblurred [2]"]
    assert box.data.shape == (3, 51, 61)
    np.testing.assert_array_equal(box.data, whole.data[:, 10:61, 20:81])
    np.testing.assert_allclose(box.data_to_world((1, 0, 0)), layer.data_to_world((1, 10, 20)), atol=1e-9)
    assert desk.told == []


def test_the_panel_lists_what_there_is(desk):
    models = desk.panel._model
    texts = [models.itemText(row) for row in range(models.count())]
    assert "tiny" in texts
    broken = texts.index("broken (cannot be used)")
    assert not models.model().item(broken).isEnabled()
    devices = [desk.panel._device.itemText(row) for row in range(desk.panel._device.count())]
    assert devices[0].startswith("Automatic (")
    assert "cpu" in devices
    desk.panel._device.setCurrentText("cpu")
    precisions = [desk.panel._precision.itemText(row) for row in range(desk.panel._precision.count())]
    assert precisions == ["Automatic", "float32", "bfloat16"]
    for field in desk.panel.findChildren(QComboBox):
        assert field.toolTip()


def test_another_reading_of_the_axes_is_used(desk, nuclei):
    desk.viewer.add_image(nuclei)
    desk.panel._axes.setCurrentText("channels: C, Y, X")
    assert "channels: C, Y, X" in desk.panel._axes.toolTip()
    desk.run()
    record = desk.viewer.layers[-1].metadata["mpt_deblur"]
    assert record["axes"] == "CYX"
    assert len(record["normalization"]["low"]) == 3  # each channel has its own


def test_a_model_that_was_added_since_appears_when_the_list_is_opened(desk, model_folder):
    added = model_folder / "added.safetensors"
    added.write_bytes((model_folder / "tiny.safetensors").read_bytes())
    try:
        desk.panel._model.showPopup()
        desk.wait(lambda: desk.panel._model.findText("added") >= 0)
        assert desk.panel._model.currentText() == "tiny"
        desk.panel._model.hidePopup()
    finally:
        added.unlink()


def test_cancel_leaves_the_viewer_as_it_was(desk):
    layer = many_tiles(desk)
    camera, step = desk.viewer.scene.camera.center, desk.viewer.dims.current_step
    start(desk)
    assert not desk.panel._deblur.isEnabled()
    assert not desk.panel._preview.isEnabled()
    assert desk.panel._cancel.isEnabled()
    desk.panel._cancel.click()
    assert not desk.panel._cancel.isEnabled()
    desk.wait_idle()
    assert desk.panel._deblur.isEnabled()
    assert list(desk.viewer.layers) == [layer]
    assert desk.panel._status.text() == "Cancelled."
    assert not desk.panel._progress.isVisible()
    assert (desk.viewer.scene.camera.center, desk.viewer.dims.current_step) == (camera, step)
    assert desk.told == []


def test_removing_the_source_mid_run_is_quiet(desk):
    layer = many_tiles(desk)
    start(desk)
    desk.viewer.layers.remove(layer)
    desk.wait_idle()
    assert len(desk.viewer.layers) == 0
    assert not desk.panel._deblur.isEnabled()
    assert desk.told == []


@pytest.mark.parametrize("how", ["viewer", "dock"])
def test_closing_mid_run_is_quiet(make_desk, how, caplog):
    desk = make_desk()
    many_tiles(desk)
    start(desk)
    if how == "viewer":
        desk.viewer.close()
    else:
        desk.dock.destroyOnClose()
    assert QThreadPool.globalInstance().waitForDone(5000)
    desk.qtbot.wait(50)
    assert desk.told == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    if how == "dock":
        assert desk.names() == ["big"]
    desk.panel = desk.dock = None
    gc.collect()


def test_a_refusal_is_one_notification(desk):
    desk.viewer.add_image(np.ones((8, 8), bool))
    desk.run()
    assert len(desk.told) == 1
    assert "grey-level image" in desk.told[0]
    assert len(desk.viewer.layers) == 1


def test_whatever_breaks_is_one_notification(desk, nuclei, monkeypatch, caplog):
    desk.viewer.add_image(nuclei)
    for number, error in enumerate([RuntimeError("shape mismatch\nat line 3"), KeyError("x"), MemoryError()]):

        def breaks(*_, error=error, **__):
            yield from ()
            raise error

        caplog.clear()
        monkeypatch.setattr(Deblurrer, "run", breaks)
        desk.run()
        assert len(desk.told) == 2 * number + 1
        assert "\n" not in desk.told[-1]
        assert "Traceback" in caplog.text
        assert desk.panel._deblur.isEnabled()
        desk.run()
        assert len(desk.told) == 2 * number + 2


def test_warnings_of_the_engine_are_not_notifications(desk, nuclei, monkeypatch):
    run = Deblurrer.run

    def warns(self, *args, **kwargs):
        warnings.warn("what a library mutters", UserWarning, stacklevel=1)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Deblurrer, "run", warns)
    desk.viewer.add_image(nuclei)
    desk.run()
    assert len(desk.viewer.layers) == 2
    assert desk.told == []


@pytest.mark.parametrize(
    ("shape", "dtype", "rgb"),
    [
        ((40, 50), np.uint8, False),
        ((40, 50, 3), np.uint8, True),
        ((2, 40, 50, 4), np.uint8, True),
        ((2, 2, 2, 40, 50), np.float32, False),
        ((3, 40, 50), ">u2", False),
        ((1, 1), np.float64, False),
    ],
)
def test_kinds_of_layers(desk, shape, dtype, rgb):
    data = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    layer = desk.viewer.add_image(data, rgb=rgb)
    for button in ("_deblur", "_preview"):
        desk.run(button)
        result = desk.viewer.layers[-1]
        assert isinstance(result, Image)
        assert result.rgb == rgb
        assert result.ndim == layer.ndim
    assert desk.viewer.layers[1].data.shape == shape
    assert desk.told == []


def test_three_dimensional_display(desk, nuclei):
    desk.viewer.add_image(nuclei)
    desk.viewer.dims.ndisplay = 3
    desk.run("_preview")
    assert desk.viewer.layers["Deblur preview"].data.shape == (1, 96, 128)
    desk.run("_deblur")
    assert desk.viewer.layers[-1].data.shape == nuclei.shape
    assert desk.viewer.dims.ndisplay == 3
    assert desk.told == []


def test_a_dask_layer_is_read_plane_by_plane(desk, nuclei):
    import dask.array as da

    largest = []

    def plane(block):
        largest.append(block.size)
        return block

    lazy = da.from_array(nuclei, chunks=(1, 96, 128)).map_blocks(plane, dtype=nuclei.dtype, meta=nuclei[:0])
    desk.viewer.add_image(lazy, contrast_limits=(0, 3000))
    desk.run()
    assert max(largest) == 96 * 128
    assert desk.viewer.layers[-1].data.shape == nuclei.shape
    assert desk.told == []


def test_two_viewers_at_once(make_desk, nuclei):
    one, two = make_desk(), make_desk()
    one.viewer.add_image(nuclei, name="one")
    two.viewer.add_image(nuclei[:2], name="two")
    one.panel._deblur.click()
    two.panel._deblur.click()
    one.wait_idle()
    two.wait_idle()
    assert one.names() == ["one", "one deblurred"]
    assert two.names() == ["two", "two deblurred"]
    assert two.viewer.layers[1].data.shape[0] == 2


def test_side_by_side_with_the_real_canvas(make_desk, nuclei):
    desk = make_desk()
    source = desk.viewer.add_image(nuclei, name="nuclei", scale=(2, 0.5, 0.5))
    other = desk.viewer.add_labels(np.zeros(nuclei.shape, int))
    assert not desk.panel._side_by_side.isEnabled()
    desk.run()
    result = desk.viewer.layers["nuclei deblurred"]
    desk.viewer.scene.camera.zoom, desk.viewer.scene.camera.center = 2.5, (0, 11, 13)
    desk.panel._side_by_side.click()
    assert desk.panel._side_by_side.isChecked()
    assert desk.viewer.canvas.grid.actual_shape(desk.viewer.layers) == (1, 2)
    assert (source.visible, result.visible, other.visible) == (True, True, False)
    desk.panel._side_by_side.click()
    assert not desk.viewer.canvas.grid.enabled
    assert other.visible
    assert (desk.viewer.scene.camera.zoom, desk.viewer.scene.camera.center) == (2.5, (0, 11, 13))


def test_nothing_is_clipped_at_the_usual_width(desk):
    desk.dock.setFloating(True)
    desk.dock.show()
    desk.panel.show_progress(0.4, "Tile 3 of 7, about 12 s left")
    desk.dock.resize(340, 500)
    desk.wait(lambda: desk.panel.width() <= 340)
    fields = [*desk.panel.findChildren(QLabel), *desk.panel.findChildren(QPushButton)]
    assert len(fields) > 10
    for field in fields:
        assert field.width() >= field.minimumSizeHint().width(), field.text()
        assert field.geometry().right() <= 340


def test_the_event_loop_stays_live(desk):
    many_tiles(desk, size=512, planes=4)
    desk.panel._image.setCurrentText("big")
    desk.panel._deblur.click()
    with GapMeter() as gaps:
        desk.wait_idle()
    print(gaps)
    assert desk.names() == ["big", "big deblurred"]
    assert gaps.p99_ms < 100
    assert gaps.longest_ms < 500


def test_the_widget_is_in_the_menu():
    from napari.plugins import _initialize_plugins
    from npe2 import PluginManager

    _initialize_plugins()
    contributions = [w for w in PluginManager.instance().iter_widgets() if w.plugin_name == "napari-mpt-deblur"]
    assert [widget.display_name for widget in contributions] == ["Deblur", "Detect nuclei", "Train"]
    samples = dict(PluginManager.instance().iter_sample_data())["napari-mpt-deblur"]
    assert [sample.display_name for sample in samples] == ["Out-of-focus nuclei (focus stack)"]
    assert napari.current_viewer() is None


def test_importing_asks_for_what_no_file_tells(desk):
    dialog = ImportDialog(Path("Their weights.pth"), desk.panel)
    assert dialog.request == ImportRequest(Path("Their weights.pth"), "Their-weights")
    dialog.name.setText(" theirs ")
    dialog.intensities.setCurrentIndex(1)
    dialog.clip.setChecked(False)
    dialog.scales.setText(" 1 / 8, 1/4,1  1,1,1 1,1,1   1,1,1 ")
    stages = ("1/8,1/4,1", "1,1,1", "1,1,1", "1,1,1")
    assert dialog.request == ImportRequest(Path("Their weights.pth"), "theirs", "full", False, stages)
