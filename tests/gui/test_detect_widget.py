"""The widget "Detect nuclei" in a real viewer, with the real engine: what a user does, and what they must then see."""

import gc
import json
import logging
import runpy
from pathlib import Path

import numpy as np
import pytest
from detection.keras_files import write_folder
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QPushButton

from napari_mpt_deblur import detect
from napari_mpt_deblur.widgets.detect.controller import Export
from napari_mpt_deblur.widgets.detect.request import TruthKind

from .conftest import Desk

GapMeter = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "event_loop.py"))["GapMeter"]


class DetectDesk(Desk):
    """A viewer with the Detect panel, and what the user was told."""

    def __init__(self, viewer, qtbot, folder):
        self.viewer, self.qtbot = viewer, qtbot
        self.dock, self.panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Detect nuclei")
        self.wait(lambda: self.panel.controller.is_ready)
        self.panel.choose_folder(folder)
        self._told_before = len(notification_manager.records)

    def detect(self):
        self.run("_detect")

    def choose_truth(self, kind):
        entries = self.panel._truth._entries
        self.panel._truth.setCurrentIndex([entry.value.kind for entry in entries].index(kind))

    @property
    def comparison(self):
        return self.panel._outcome.comparison


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("detectors") / "tiny-star", {"prob": 0.6, "nms": 0.3})


@pytest.fixture
def make_desk(make_desk, make_napari_viewer, qtbot, detector):  # the other's settings and clean-up, another panel
    return lambda: DetectDesk(make_napari_viewer(show=False), qtbot, detector)


@pytest.fixture
def desk(make_desk):
    return make_desk()


@pytest.fixture
def pair(desk, nuclei):
    """An image and another of the same nuclei, rotated and calibrated."""
    options = {"scale": (3, 0.5, 0.5), "rotate": (0, 0, 10), "units": "um", "axis_labels": ("z", "y", "x")}
    before = desk.viewer.add_image(nuclei, name="blurred", **options)
    record = {"mpt_deblur": {"source": "blurred"}}
    after = desk.viewer.add_image(nuclei[:, ::-1].copy(), name="restored", metadata=record, **options)
    assert (desk.panel._before.chosen, desk.panel._after.chosen) == (before, after)
    return before, after


def many_tiles(desk, size=512, planes=24):
    """Stacks that keep the engine busy for a while."""
    rng = np.random.default_rng(0)
    return desk.viewer.add_image(rng.integers(0, 4000, (planes, size, size)).astype(np.uint16), name="big")


def start(desk):
    desk.panel._detect.click()
    desk.wait(lambda: "plane 1" in desk.panel._status.text())


def test_open_sample_and_detect_before_and_after(desk, detector):
    sharp, stack = desk.viewer.open_sample("napari-mpt-deblur", "out_of_focus_nuclei")
    assert desk.panel._before.chosen is stack
    assert not desk.panel._truth.isEnabled()
    stack.data = stack.data[2:5, :96, :128]
    sharp.data = sharp.data[:96, :128]
    desk.detect()
    assert desk.names() == [sharp.name, stack.name, f"{stack.name} nuclei"]
    labels = desk.viewer.layers[-1]
    assert isinstance(labels, Labels)
    expected = detect(np.asarray(stack.data), detector, axes="ZYX")
    np.testing.assert_array_equal(labels.data > 0, expected > 0)
    after = desk.viewer.add_image(stack.data[::-1].copy(), name="after", scale=stack.scale, units=stack.units)
    desk.panel._after.setCurrentText("after")
    assert desk.panel._truth.isEnabled()
    desk.choose_truth(TruthKind.SHARP_IMAGE)
    desk.panel._truth.setCurrentText(f"Reference: {sharp.name}")
    desk.detect()
    assert desk.told == []
    assert desk.comparison.truth == "reference"
    assert {f"{after.name} nuclei", f"{stack.name} nuclei [1]"} <= set(desk.names())
    desk.choose_truth(TruthKind.SHARPEST_PLANE)
    desk.detect()
    assert desk.comparison.truth == "pseudo-reference"
    assert "Z = 1" in desk.panel._notes.text()  # the plane in focus
    assert desk.told == []


def test_two_labels_layers_with_their_sources_places(desk, pair):
    desk.detect()
    assert desk.names() == ["blurred", "blurred nuclei", "restored", "restored nuclei"]
    for source in pair:
        layer = desk.viewer.layers[f"{source.name} nuclei"]
        for point in ((0, 0, 0), (1, 30, 40)):
            np.testing.assert_allclose(layer.data_to_world(point), source.data_to_world(point))
        planes = [set(np.unique(plane[plane > 0])) for plane in layer.data]
        assert all(planes)
        assert not planes[0] & planes[1]
        assert set(layer.features["index"]) == set().union(*planes)
        assert isinstance(layer.colormap, DirectLabelColormap)
    desk.panel._by_fate.setChecked(False)
    assert not isinstance(layer.colormap, DirectLabelColormap)
    assert desk.told == []


def test_the_table_is_that_of_the_comparison(desk, pair):
    desk.choose_truth(TruthKind.SHARPEST_PLANE)
    desk.detect()
    table, comparison = desk.panel._table, desk.comparison
    rows = {table.verticalHeaderItem(row).text(): row for row in range(table.rowCount())}
    columns = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount())]
    assert columns == ["IoU 0.5", "IoU 0.7", "IoU 0.9", "Mean"]
    assert len(rows) == 9
    for column, score in enumerate(comparison.scores):
        texts = {name: table.item(row, column).text() for name, row in rows.items()}
        assert texts["AP before"] == f"{score.before:.3f}"
        assert texts["AP after"] == f"{score.after:.3f}"
        gain = score.gain_percent
        assert texts["Gain"] == ("none" if gain is None else f"{gain:+.{0 if abs(gain) >= 100 else 1}f} %")
        for side, counts in (("before", score.counts_before), ("after", score.counts_after)):
            for name in ("tp", "fp", "fn"):
                assert texts[f"{name.upper()} {side}"] == str(getattr(counts, name))
    before, after, _ = comparison.means
    assert before > after
    assert [table.item(row, 3).text() for row in (0, 1)] == [f"{before:.3f}", f"{after:.3f}"]
    assert desk.panel._tabs.currentIndex() == 1
    assert "pseudo-reference" in desk.panel._notes.text()


def test_a_click_on_a_row_goes_to_the_nucleus(desk, pair):
    desk.detect()
    ledger, model = desk.panel._ledger, desk.panel._ledger.model()
    nuclei = [*desk.comparison.ledger.before, *desk.comparison.ledger.after]
    assert model.rowCount() == len(nuclei)
    desk.panel._tabs.setCurrentIndex(2)
    desk.viewer.scene.camera.zoom = 0.01
    row = len(nuclei) - 1
    nucleus = nuclei[row]
    assert (nucleus.image, nucleus.plane) == ("after", 2)
    index = model.index(row, 2)
    assert index.data() == str(nucleus.label)
    ledger.scrollTo(index)
    desk.qtbot.mouseClick(ledger.viewport(), Qt.MouseButton.LeftButton, pos=ledger.visualRect(index).center())
    layer = desk.viewer.layers["restored nuclei"]
    world = layer.data_to_world((nucleus.plane, nucleus.y, nucleus.x))
    assert desk.viewer.dims.current_step[0] == 2
    np.testing.assert_allclose(desk.viewer.scene.camera.center[-2:], world[1:])
    assert desk.viewer.scene.camera.zoom > 1
    assert layer.selected_label == nucleus.label
    assert desk.viewer.layers.selection.active is layer


def test_the_ledger_can_be_sorted_and_filtered(desk, pair):
    desk.detect()
    model = desk.panel._ledger.model()
    nuclei = [*desk.comparison.ledger.before, *desk.comparison.ledger.after]
    titles = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]
    for title, value in (("Area", lambda n: n.area_px), ("Evidence", lambda n: n.evidence)):
        desk.panel._ledger.sortByColumn(titles.index(title), Qt.SortOrder.DescendingOrder)
        values = [value(nucleus) for nucleus in model.nuclei]
        known = [number for number in values if number is not None]
        assert known == sorted(known, reverse=True)
        assert values[: len(known)] == known
        assert len(values) == len(nuclei)
    lost = sum(nucleus.fate == "lost" for nucleus in nuclei)
    assert lost
    desk.panel._show.setCurrentText("Lost")
    assert model.rowCount() == lost
    assert f"{lost}&nbsp;lost" in desk.panel._totals.text()


def test_exports(desk, pair, tmp_path, monkeypatch):
    assert not any(save.isEnabled() for save in desk.panel._saves.values())
    desk.choose_truth(TruthKind.SHARPEST_PLANE)
    desk.detect()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda parent, title, name, kinds: (str(tmp_path / name), kinds)
    )
    for save in desk.panel._saves.values():
        save.click()
    assert len(list(tmp_path.iterdir())) == len(Export)
    assert json.loads((tmp_path / Export.FIGURES).read_text())["truth"] == "pseudo-reference"
    assert (tmp_path / Export.LEDGER).read_text() == desk.comparison.ledger.to_csv()
    assert len((tmp_path / Export.TABLE).read_text().splitlines()) == 12
    plot = QImage(str(tmp_path / Export.PLOT))
    assert (plot.width(), plot.height()) == (1440, 960)
    colours = {plot.pixelColor(x, y).name() for x in range(0, 1440) for y in range(0, 960, 3)}
    assert {"#d55e00", "#0072b2", "#ffffff"} <= colours
    assert desk.told == []


def test_cancel_leaves_the_viewer_as_it_was(desk):
    layer = many_tiles(desk)
    camera, step = desk.viewer.scene.camera.center, desk.viewer.dims.current_step
    start(desk)
    assert not desk.panel._detect.isEnabled()
    desk.panel._cancel.click()
    assert not desk.panel._cancel.isEnabled()
    desk.wait_idle()
    assert desk.panel._detect.isEnabled()
    assert list(desk.viewer.layers) == [layer]
    assert desk.panel._status.text() == "Cancelled."
    assert (desk.viewer.scene.camera.center, desk.viewer.dims.current_step) == (camera, step)
    assert desk.told == []


def test_removing_the_source_mid_run_is_quiet(desk):
    layer = many_tiles(desk)
    start(desk)
    desk.viewer.layers.remove(layer)
    desk.wait_idle()
    assert len(desk.viewer.layers) == 0
    assert not desk.panel._detect.isEnabled()
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
    assert QThreadPool.globalInstance().waitForDone(20_000)
    desk.qtbot.wait(50)
    assert desk.told == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    if how == "dock":
        assert desk.names() == ["big"]
    desk.panel = desk.dock = None
    gc.collect()


def test_a_failure_is_one_notification(desk, nuclei, tmp_path):
    desk.viewer.add_image(nuclei)
    desk.panel.choose_folder(write_folder(tmp_path / "rgb", n_channel_in=3))
    desk.detect()
    assert len(desk.told) == 1
    assert "choose a model for grey images" in desk.told[0]
    desk.panel.choose_folder(tmp_path)
    desk.detect()
    assert len(desk.told) == 2
    assert "config.json" in desk.told[1]
    assert len(desk.viewer.layers) == 1


def test_whatever_breaks_is_one_notification(desk, nuclei, monkeypatch, caplog):
    def breaks(*_, **__):
        raise RuntimeError("shape mismatch\nat line 3")

    monkeypatch.setattr("napari_mpt_deblur.detection.run.predict_tiles", breaks)
    desk.viewer.add_image(nuclei)
    desk.detect()
    assert len(desk.told) == 1
    assert "\n" not in desk.told[0]
    assert "Traceback" in caplog.text
    assert desk.panel._detect.isEnabled()


def test_thresholds_percentiles_and_diameter_reach_the_engine(desk, nuclei, detector):
    desk.viewer.add_image(nuclei[0], name="plane")
    desk.panel._prob.setValue(0.8)
    desk.panel._nms.setValue(0.1)
    desk.panel._low.setValue(5)
    desk.panel._high.setValue(95)
    desk.detect()
    expected = detect(nuclei[0], detector, prob=0.8, nms=0.1, percentiles=(5, 95))
    np.testing.assert_array_equal(desk.viewer.layers[-1].data, expected)
    desk.panel._diameter.setValue(12)
    desk.detect()
    assert len(desk.told) == 1  # the tiny model knows no diameter
    assert "nucleus diameter" in desk.told[0]


def test_models_are_listed_and_a_folder_can_be_loaded(desk, detector, monkeypatch, tmp_path):
    texts = [desk.panel._model.itemText(row) for row in range(desk.panel._model.count())]
    assert "2D_versatile_fluo (fetched when first used)" in texts
    assert texts[-1] == "tiny-star"
    assert desk.panel._model.chosen == detector
    other = write_folder(tmp_path / "other")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(other))
    desk.panel._load.click()
    assert desk.panel._model.chosen == other
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")  # cancelled
    desk.panel._load.click()
    assert desk.panel._model.chosen == other
    desk.panel.controller.survey()
    desk.wait(lambda: desk.panel.controller._survey is None)
    assert desk.panel._model.chosen == other


def test_every_field_explains_itself_and_the_rule_of_measuring_is_told(desk):
    for field in desk.panel.findChildren(QComboBox):
        assert field.toolTip()
    for field in desk.panel.findChildren(QPushButton):
        assert field.toolTip()
    texts = " ".join(label.text() for label in desk.panel.findChildren(QLabel))
    assert "restored intensities are for finding nuclei, not for measuring" in texts


def test_two_panels_in_one_viewer(desk, nuclei):
    """Deblur and Detect follow the same layers."""
    _, deblur = desk.viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Deblur")
    desk.wait(lambda: deblur.controller.is_ready)
    deblur.choose_model("tiny")
    source = desk.viewer.add_image(nuclei, name="cells")
    deblur._deblur.click()
    desk.wait(lambda: not deblur.controller.is_running)
    result = desk.viewer.layers["cells deblurred"]
    assert (desk.panel._before.chosen, desk.panel._after.chosen) == (source, result)
    desk.detect()
    assert desk.names() == ["cells", "cells nuclei", "cells deblurred", "cells deblurred nuclei"]
    assert desk.told == []


def test_nothing_is_clipped_at_the_usual_width(desk, pair):
    desk.choose_truth(TruthKind.SHARPEST_PLANE)
    desk.detect()
    desk.dock.setFloating(True)
    desk.dock.show()
    desk.dock.resize(360, 700)
    desk.wait(lambda: desk.panel.width() <= 360)
    for page in range(3):
        desk.panel._tabs.setCurrentIndex(page)
        desk.qtbot.wait(20)
        fields = [*desk.panel.findChildren(QLabel), *desk.panel.findChildren(QPushButton)]
        seen = [field for field in fields if field.isVisible()]
        assert len(seen) > 6
        for field in seen:
            assert field.width() >= field.minimumSizeHint().width(), field.text()
            assert field.mapTo(desk.panel, field.rect().topRight()).x() <= 360
    desk.panel._tabs.setCurrentIndex(1)
    desk.qtbot.wait(20)
    table = desk.panel._table
    assert table.horizontalScrollBar().maximum() == table.verticalScrollBar().maximum() == 0
    metrics = table.fontMetrics()
    for row in range(table.rowCount()):
        for column in range(table.columnCount()):
            item = table.item(row, column)
            assert metrics.horizontalAdvance(item.text()) < table.columnWidth(column), item.text()
    assert desk.panel.minimumSizeHint().height() < 900  # fits a screen of 1080 with napari's own bars


def test_what_says_nothing_takes_no_room(desk, pair, nuclei):
    model, ledger = desk.panel._ledger.model(), desk.panel._ledger
    titles = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]

    def hidden():
        return {title for column, title in enumerate(titles) if ledger.isColumnHidden(column)}

    assert desk.panel._table.isHidden()
    desk.detect()
    assert hidden() == {"Right"}
    assert desk.panel._plot.isHidden()
    desk.choose_truth(TruthKind.SHARPEST_PLANE)
    desk.panel._planes.setCurrentIndex(1)
    desk.detect()
    assert hidden() == {"Plane"}
    assert not desk.panel._table.isHidden()
    assert not desk.panel._plot.isHidden()


def test_the_event_loop_stays_live(desk):
    many_tiles(desk, size=512, planes=3)
    desk.viewer.add_image(desk.viewer.layers["big"].data[::-1], name="after")
    desk.panel._before.setCurrentText("big")
    desk.panel._after.setCurrentText("after")
    desk.choose_truth(TruthKind.SHARPEST_PLANE)
    desk.panel._prob.setValue(0.8)
    desk.panel._detect.click()
    with GapMeter() as gaps:
        desk.wait_idle()
    print(gaps, desk.panel._status.text())
    assert len(desk.viewer.layers) == 4
    assert gaps.p99_ms < 100
