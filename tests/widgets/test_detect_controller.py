"""The controller of "Detect nuclei": what a click, the engine and the viewer make it do. No Qt is involved."""

import inspect
import json
from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.colormaps import DirectLabelColormap
from scipy import ndimage

from napari_mpt_deblur.detection.comparison import compare
from napari_mpt_deblur.detection.ledger import ledger
from napari_mpt_deblur.widgets.detect.controller import DetectController, Export
from napari_mpt_deblur.widgets.detect.export import table_csv
from napari_mpt_deblur.widgets.detect.job import survey_steps
from napari_mpt_deblur.widgets.detect.outcome import DetectMachinery, DetectStep, Found, Outcome
from napari_mpt_deblur.widgets.detect.panel import DetectWidget
from napari_mpt_deblur.widgets.detect.request import DetectSettings, Planes, TruthChoice, TruthKind
from napari_mpt_deblur.widgets.detect.result import FATE_COLOURS
from napari_mpt_deblur.widgets.detect.view import DetectView
from napari_mpt_deblur.widgets.stages import Failure, Stage

from .conftest import FakeRunner

MACHINERY = DetectMachinery(("cpu",), "cpu", ())


def bright(picture, index):
    """The engine of these tests: what is bright and in one piece is a nucleus."""
    picture = picture if index is None else picture.plane(index)
    return ndimage.label(np.asarray(picture.data) > 500)[0].astype(np.int32)


def threshold(request):
    yield Stage("Reading the model...")
    for done in (0, 1, 2):
        yield DetectStep(done, 2, f"Before: plane {done} of 2")
    before = bright(request.before, request.plane_index)
    axes = request.before.axes.text
    record = {"device": "cpu", "seconds": 1.25}
    if request.after is None:
        features = ledger(before, before).features("before")
        return Outcome(Found(before, axes, features), None, None, record)
    after = bright(request.after, request.plane_index)
    truth = None if request.truth is None else np.asarray(request.truth.data)
    comparison = compare(before, after, truth=truth, truth_is="truth" if truth is None else request.truth_kind.value)
    sides = (
        Found(labels, axes, comparison.ledger.features(side)) for side, labels in (("before", before), ("after", after))
    )
    return Outcome(*sides, comparison, record)


class Bench:
    """Everything a controller test holds in its hands."""

    def __init__(self, steps=threshold):
        self.viewer = ViewerModel()
        self.view = create_autospec(DetectView, instance=True)
        self.settings = DetectSettings(before=None, model="nuclei")
        self.view.settings.side_effect = lambda: self.settings
        self.view.show_layers.side_effect = self._show_layers
        self.view.plot_png.return_value = b"a picture"
        self.runner = FakeRunner(survey_steps, MACHINERY)
        self.errors = []
        self.now = 0.0
        self.controller = DetectController(
            self.viewer, self.view, self.runner, self.errors.append, steps=steps, clock=lambda: self.now
        )

    def _show_layers(self, images, truths, before, after):
        self.settings = replace(self.settings, before=before, after=after)

    def choose(self, **settings):
        self.settings = replace(self.settings, **settings)
        self.controller.choose_layers()

    def run(self):
        self.controller.detect()
        self.job.run()

    @property
    def job(self):
        return self.runner.jobs[-1]

    @property
    def state(self):
        return self.view.show_state.call_args.kwargs

    @property
    def outcome(self):
        return self.view.show_outcome.call_args.args[0]

    def names(self):
        return [layer.name for layer in self.viewer.layers]


@pytest.fixture
def make_bench():
    return Bench


@pytest.fixture
def bench():
    bench = Bench()
    bench.controller.open()
    yield bench
    bench.controller.close()


def cells(*boxes, shape=(3, 40, 50)):
    """Bright boxes (plane, y, x) of 6 x 6 pixels."""
    data = np.full(shape, 100, np.uint16)
    for plane, y, x in boxes:
        data[plane, y : y + 6, x : x + 6] = 1000
    return data


@pytest.fixture
def pair(bench):
    """An image and its restored copy: one nucleus is kept, one lost, one gained."""
    transforms = {"scale": (2, 0.5, 0.5), "translate": (10, 1, 2), "units": "um", "axis_labels": ("z", "y", "x")}
    before = bench.viewer.add_image(cells((0, 5, 5), (1, 20, 30)), name="blurred", **transforms)
    after = bench.viewer.add_image(cells((0, 5, 5), (2, 10, 20)), name="restored", **transforms)
    bench.choose(before=before, after=after)
    return before, after


def test_the_panel_is_a_view():
    for name, wanted in inspect.getmembers(DetectView, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(DetectWidget, name)).parameters == inspect.signature(wanted).parameters


def test_two_labels_layers_just_above_their_images(bench, pair):
    bench.controller.detect()
    assert bench.state == {"running": True, "cancelling": False, "can_start": False}
    assert bench.names() == ["blurred", "restored"]
    bench.job.run()
    assert bench.names() == ["blurred", "blurred nuclei", "restored", "restored nuclei"]
    for source in pair:
        layer = bench.viewer.layers[f"{source.name} nuclei"]
        np.testing.assert_array_equal(layer.data > 0, source.data > 500)
        np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), source.data_to_world((1, 2, 3)))
        assert (layer.units, layer.axis_labels) == (source.units, source.axis_labels)
    assert list(bench.viewer.layers[1].features["fate"]) == ["kept", "lost"]
    assert list(bench.viewer.layers[3].features["fate"]) == ["kept", "gained"]
    assert list(bench.viewer.layers[3].features["index"]) == [1, 2]
    assert bench.viewer.layers.selection.active is bench.viewer.layers[3]
    assert bench.outcome.comparison.ledger.totals()["after"]["gained"] == 1
    bench.view.show_message.assert_called_with("Done in 1.2 s on cpu: 2 nuclei before, 2 after.")
    assert bench.state == {"running": False, "cancelling": False, "can_start": True}
    assert bench.errors == []


def test_one_image_alone(bench):
    bench.viewer.add_image(cells((0, 5, 5), (1, 20, 30)), name="only")
    bench.run()
    assert bench.names() == ["only", "only nuclei"]
    bench.view.show_message.assert_called_with("Done in 1.2 s on cpu: 2 nuclei.")
    assert bench.outcome.comparison is None
    assert not isinstance(bench.viewer.layers[1].colormap, DirectLabelColormap)


def test_the_current_plane_lies_at_its_own_plane_only(bench, pair):
    bench.viewer.dims.set_current_step(0, 1)
    bench.settings = replace(bench.settings, planes=Planes.CURRENT)
    bench.run()
    layer = bench.viewer.layers["blurred nuclei"]
    assert layer.data.shape == (1, 40, 50)
    np.testing.assert_allclose(layer.data_to_world((0, 20, 30)), pair[0].data_to_world((1, 20, 30)))
    nucleus = bench.outcome.comparison.ledger.before[0]
    bench.controller.go_to(nucleus)
    assert bench.viewer.dims.current_step[0] == 1


def test_labels_are_coloured_by_fate_and_back(bench, pair):
    bench.run()
    before, after = (bench.viewer.layers[f"{source.name} nuclei"] for source in pair)

    def hexes(layer):
        return ["#" + "".join(f"{round(255 * v):02x}" for v in layer.colormap.map(n)[:3]) for n in (1, 2)]

    assert hexes(before) == [FATE_COLOURS["kept"], FATE_COLOURS["lost"]]
    assert hexes(after) == [FATE_COLOURS["kept"], FATE_COLOURS["gained"]]
    assert after.colormap.map(0)[3] == 0
    bench.controller.colour_by_fate(False)
    assert not isinstance(before.colormap, DirectLabelColormap)
    assert not isinstance(after.colormap, DirectLabelColormap)
    bench.controller.colour_by_fate(True)
    assert hexes(after) == [FATE_COLOURS["kept"], FATE_COLOURS["gained"]]


def test_a_row_goes_to_its_nucleus(bench, pair):
    bench.run()
    gained = bench.outcome.comparison.ledger.after[1]
    layer = bench.viewer.layers["restored nuclei"]
    layer.visible = False
    bench.controller.go_to(gained)
    assert bench.viewer.dims.current_step[0] == 2
    np.testing.assert_allclose(bench.viewer.scene.camera.center[-2:], layer.data_to_world((2, 12.5, 22.5))[1:])
    assert layer.visible
    assert layer.selected_label == gained.label
    assert bench.viewer.layers.selection.active is layer
    bench.viewer.layers.remove(layer)
    bench.controller.go_to(gained)
    bench.view.show_message.assert_called_with("The labels after were removed: detect again.")
    assert bench.errors == []


def test_the_image_after_does_not_cover_a_nucleus_before(bench, pair):
    bench.run()
    names = ("blurred", "blurred nuclei", "restored", "restored nuclei")
    bench.controller.go_to(bench.outcome.comparison.ledger.before[1])
    assert [bench.viewer.layers[name].visible for name in names] == [True, True, False, False]
    bench.controller.go_to(bench.outcome.comparison.ledger.after[1])
    assert [bench.viewer.layers[name].visible for name in names] == [False, False, True, True]
    bench.viewer.canvas.grid.enabled = True
    bench.viewer.layers["blurred"].visible = True
    bench.controller.go_to(bench.outcome.comparison.ledger.after[1])
    assert bench.viewer.layers["blurred"].visible
    assert bench.errors == []


def test_a_second_run_lies_above_the_first_which_it_hides(bench, pair):
    bench.run()
    bench.run()
    assert [(layer.name, layer.visible) for layer in bench.viewer.layers] == [
        ("blurred", True),
        ("blurred nuclei", False),
        ("blurred nuclei [1]", True),
        ("restored", True),
        ("restored nuclei", False),
        ("restored nuclei [1]", True),
    ]


def test_progress_says_where_it_is_and_how_long_it_takes(bench, pair):
    bench.controller.detect()
    bench.job.step()
    bench.view.show_progress.assert_called_with(None, "Reading the model...")
    bench.now = 3.0
    bench.job.step()
    bench.view.show_progress.assert_called_with(0.0, "Detecting nuclei...")
    bench.now = 13.0
    bench.job.step()
    bench.view.show_progress.assert_called_with(0.5, "Before: plane 1 of 2, about 10 s left")


def test_cancel_leaves_the_viewer_as_it_was(bench, pair):
    bench.controller.detect()
    bench.job.step()
    bench.controller.cancel()
    assert bench.state == {"running": True, "cancelling": True, "can_start": False}
    bench.job.run()
    assert list(bench.viewer.layers) == list(pair)
    bench.view.show_outcome.assert_not_called()
    bench.view.show_message.assert_called_with("Cancelled.")
    assert bench.errors == []


def test_a_result_that_arrives_after_cancel_is_stale(bench, pair):
    bench.controller.detect()
    bench.controller.cancel()
    bench.job.asked_to_quit = False
    bench.job.run()
    assert list(bench.viewer.layers) == list(pair)
    bench.run()
    assert len(bench.viewer.layers) == 4


@pytest.mark.parametrize("which", ["blurred", "restored", "truth"])
def test_removing_a_layer_of_the_run_ends_it_quietly(bench, pair, which):
    truth = bench.viewer.add_labels(np.zeros((3, 40, 50), int), name="truth")
    bench.choose(truth=TruthChoice(TruthKind.LABELS, truth))
    bench.controller.detect()
    bench.job.step()
    bench.viewer.layers.remove(which)
    assert bench.job.asked_to_quit
    bench.job.run()
    assert len(bench.viewer.layers) == 2
    assert bench.errors == []


def test_closing_mid_run_is_quiet(bench, pair):
    bench.controller.detect()
    bench.job.step()
    bench.controller.close()
    calls = len(bench.view.mock_calls)
    assert bench.job.asked_to_quit
    bench.job.asked_to_quit = False
    bench.job.run()
    bench.viewer.layers.clear()
    assert len(bench.view.mock_calls) == calls
    assert bench.errors == []


def test_a_failure_is_one_notification(make_bench):
    def fail(request):
        yield Stage("...")
        return Failure("No such model: choose another.")

    bench = make_bench(fail)
    bench.controller.open()
    bench.viewer.add_image(cells())
    bench.run()
    assert bench.errors == ["No such model: choose another."]
    assert len(bench.viewer.layers) == 1
    assert bench.state["can_start"]


def test_nonsense_is_one_notification(make_bench):
    def nonsense(request):
        yield Stage("...")
        return "nonsense"

    bench = make_bench(nonsense)
    bench.controller.open()
    bench.viewer.add_image(cells())
    bench.run()
    assert len(bench.errors) == 1
    assert bench.errors[0].startswith("Detection stopped unexpectedly")
    assert bench.state["can_start"]


def refusals():
    stack, other = cells(), cells(shape=(3, 40, 60))
    yield "no image", (None, None, TruthChoice()), "There is no image to detect nuclei in"
    yield "one layer twice", (stack, stack, TruthChoice()), "Before and after are the same layer"
    yield "other shape", (stack, other, TruthChoice()), "differ in shape"
    yield "no stack", (stack[0], stack[1], TruthChoice(TruthKind.SHARPEST_PLANE)), "no z-stack"
    yield "percentiles", (stack, None, TruthChoice()), "percentiles"


@pytest.mark.parametrize(("layers", "words"), [case[1:] for case in refusals()], ids=[case[0] for case in refusals()])
def test_what_makes_no_sense_is_refused_before_the_run(bench, layers, words):
    before, after, truth = layers
    added = {id(data): bench.viewer.add_image(data) for data in (before, after) if data is not None}
    bench.choose(before=added.get(id(before)), after=added.get(id(after)), truth=truth)
    if words == "percentiles":
        bench.choose(percentiles=(99.0, 1.0))
    bench.controller.detect()
    assert bench.runner.jobs == []
    assert len(bench.errors) == 1
    assert words in bench.errors[0]


def test_truth_of_another_shape_is_refused_and_one_plane_of_it_is_not(bench, pair):
    wrong = bench.viewer.add_labels(np.zeros((2, 40, 50), int), name="wrong")
    bench.choose(truth=TruthChoice(TruthKind.LABELS, wrong))
    bench.controller.detect()
    assert "'wrong' (2 x 40 x 50) and 'blurred' (3 x 40 x 50) differ in shape" in bench.errors[0]
    plane = bench.viewer.add_labels(np.zeros((40, 50), int))
    bench.choose(truth=TruthChoice(TruthKind.LABELS, plane))
    bench.controller.detect()
    assert len(bench.runner.jobs) == 1


def test_a_restored_layer_is_compared_with_its_source(bench):
    source = bench.viewer.add_image(cells(), name="cells")
    assert (bench.settings.before, bench.settings.after) == (source, None)
    record = {"mpt_deblur": {"source": "cells"}}
    crop = bench.viewer.add_image(cells()[:1], name="part", metadata=record)
    assert (bench.settings.before, bench.settings.after) == (crop, None)  # of another shape
    result = bench.viewer.add_image(cells(), name="cells deblurred", metadata=record)
    assert (bench.settings.before, bench.settings.after) == (source, result)
    bench.viewer.add_labels(np.zeros((40, 50), int))
    assert (bench.settings.before, bench.settings.after) == (source, result)
    bench.viewer.layers.remove(result)
    assert (bench.settings.before, bench.settings.after) == (source, None)


def test_what_the_user_chose_stays(bench):
    first = bench.viewer.add_image(cells(), name="first")
    second = bench.viewer.add_image(cells(), name="second")
    bench.choose(before=first, after=second)
    bench.viewer.add_image(cells(), name="third")
    assert (bench.settings.before, bench.settings.after) == (first, second)
    bench.viewer.layers.remove("second")
    assert (bench.settings.before, bench.settings.after) == (first, None)


def test_truths_that_are_offered(bench):
    image = bench.viewer.add_image(cells(), name="image")
    labels = bench.viewer.add_labels(np.zeros((40, 50), int), name="labels")
    bench.viewer.add_points()
    offered = bench.view.show_layers.call_args.args[1]
    assert offered == [
        ("labels", TruthChoice(TruthKind.LABELS, labels)),
        ("image", TruthChoice(TruthKind.SHARP_IMAGE, image)),
    ]


@pytest.fixture
def scored(bench, pair):
    truth = bench.viewer.add_labels(bright_labels(pair[1].data), name="truth")
    bench.choose(truth=TruthChoice(TruthKind.LABELS, truth))
    bench.run()
    assert bench.errors == []
    return bench


def bright_labels(data):
    return ndimage.label(data > 500)[0]


def test_everything_is_saved_whole(scored, tmp_path):
    comparison = scored.outcome.comparison
    for what in Export:
        scored.controller.save(what, tmp_path / what.value)
        scored.view.show_message.assert_called_with(f"Saved {tmp_path / what.value}.")
    assert (tmp_path / "average precision.csv").read_text() == table_csv(comparison)
    assert (tmp_path / "average precision.png").read_bytes() == b"a picture"
    assert (tmp_path / "nuclei.csv").read_text() == comparison.ledger.to_csv()
    figures = json.loads((tmp_path / "nuclei.json").read_text())
    assert figures["nuclei"] == {"before": 2, "after": 2}
    assert figures["mean_ap"] == {"before": pytest.approx(1 / 3), "after": 1.0}
    assert figures["run"]["seconds"] == 1.25
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(what.value for what in Export)
    assert scored.errors == []


def test_the_table_holds_every_threshold_and_the_mean(scored):
    lines = table_csv(scored.outcome.comparison).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("IoU,AP_before,AP_after,gain_percent,TP_before")
    assert lines[1] == f"0.5,{1 / 3},1.0,{100 * (1 - 1 / 3) / (1 / 3)},1,2,1,0,1,0"
    assert lines[11].startswith("mean,0.333")


def test_what_cannot_be_saved_is_one_notification_and_leaves_what_was_there(scored, tmp_path):
    scored.controller.save(Export.LEDGER, tmp_path / "missing" / "nuclei.csv")
    assert len(scored.errors) == 1
    assert "its folder does not exist" in scored.errors[0]
    old = tmp_path / "plot.png"
    old.write_bytes(b"old")
    scored.view.plot_png.side_effect = RuntimeError("no picture")
    scored.controller.save(Export.PLOT, old)
    assert len(scored.errors) == 2
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_saving_what_is_not_there_says_what_to_do(bench, pair, tmp_path):
    bench.controller.save(Export.FIGURES, tmp_path / "a")
    assert "detect nuclei first" in bench.errors[-1]
    bench.run()
    bench.controller.save(Export.TABLE, tmp_path / "a")
    assert "Without truth" in bench.errors[-1]
    bench.choose(after=None)
    bench.run()
    bench.controller.save(Export.LEDGER, tmp_path / "a")
    assert "One image alone" in bench.errors[-1]
    assert list(tmp_path.iterdir()) == []


def test_machinery_is_looked_up_when_the_panel_opens(bench):
    bench.view.show_machinery.assert_called_once_with(MACHINERY)
    assert bench.controller.is_ready
