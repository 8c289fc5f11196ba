"""The controller: what a click, the engine and the viewer make it do. No Qt is involved."""

import inspect
import logging
from pathlib import Path

import numpy as np
import pytest

from napari_mpt_deblur.errors import AxesError, OutOfMemoryError
from napari_mpt_deblur.widgets.deblur.job import Outlook, import_steps
from napari_mpt_deblur.widgets.deblur.panel import DeblurWidget
from napari_mpt_deblur.widgets.deblur.request import ImportRequest, Scope
from napari_mpt_deblur.widgets.deblur.view import DeblurView
from napari_mpt_deblur.widgets.stages import Failure, Stage
from napari_mpt_deblur.words import describe_seconds

from .conftest import Listener, answer


def stack(shape=(3, 20, 30), seed=0):
    return np.random.default_rng(seed).integers(1, 1000, shape).astype(np.int32)


def test_the_panel_is_a_view():
    for name, wanted in inspect.getmembers(DeblurView, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(DeblurWidget, name)).parameters == inspect.signature(wanted).parameters


def test_deblur_adds_a_layer_just_above_its_source(bench):
    data = stack()
    bench.viewer.add_image(data, name="cells", scale=(2, 0.5, 0.5), units="um", colormap="green", gamma=0.7)
    bench.viewer.add_image(stack(seed=1), name="other")
    bench.choose(layer=bench.viewer.layers["cells"])
    before = data.copy()
    bench.controller.deblur()
    assert bench.state == {"running": True, "cancelling": False, "can_start": False}
    assert bench.names() == ["cells", "other"]
    bench.job.run()
    assert bench.names() == ["cells", "cells deblurred", "other"]
    np.testing.assert_array_equal(bench.viewer.layers[1].data, -before)
    np.testing.assert_array_equal(data, before)
    assert bench.viewer.layers["cells"].data is data
    assert bench.state == {"running": False, "cancelling": False, "can_start": True}
    assert bench.viewer.layers.selection.active is bench.viewer.layers[1]
    assert bench.settings.layer is bench.viewer.layers["cells"]  # the choice stays with the source
    bench.view.show_message.assert_called_with(
        "Done in 1.2 s on cpu (float32), model nuclei (0a1b2c3d). Smaller tiles."
    )
    assert bench.errors == []


def test_a_second_click_starts_nothing(bench):
    bench.viewer.add_image(stack())
    bench.controller.deblur()
    bench.controller.deblur()
    bench.controller.preview()
    assert len(bench.runs) == 1


def test_progress_by_tile_with_time_left(bench):
    bench.viewer.add_image(stack())
    bench.controller.deblur()
    bench.job.step()
    bench.view.show_progress.assert_called_with(None, "Reading the model...")
    bench.now = 3.0
    bench.job.step()
    bench.view.show_progress.assert_called_with(0.0, "Measuring intensities...")
    bench.now = 5.0
    bench.job.step()
    bench.view.show_progress.assert_called_with(0.0, "Restoring tile 1 of 3...")
    bench.now = 15.0
    bench.job.step()
    bench.view.show_progress.assert_called_with(pytest.approx(1 / 3), "Tile 1 of 3, about 20 s left")


def test_cancel_takes_effect_at_the_next_tile_and_leaves_the_viewer_as_it_was(bench):
    layer = bench.viewer.add_image(stack(), name="cells")
    bench.controller.deblur()
    bench.job.step()
    bench.job.step()
    bench.controller.cancel()
    assert bench.job.asked_to_quit
    assert bench.state == {"running": True, "cancelling": True, "can_start": False}
    bench.job.step()
    assert bench.job.is_done
    assert bench.state == {"running": False, "cancelling": False, "can_start": True}
    assert list(bench.viewer.layers) == [layer]
    assert bench.errors == []


def test_a_result_that_arrives_after_cancel_is_stale(bench):
    bench.viewer.add_image(stack(), name="cells")
    bench.controller.deblur()
    old = bench.job
    bench.controller.cancel()
    old.asked_to_quit = False  # the last tile was already done when Cancel was clicked
    old.run()
    assert bench.names() == ["cells"]
    bench.controller.deblur()
    assert bench.job is not old
    bench.job.run()
    assert bench.names() == ["cells", "cells deblurred"]


def test_removing_the_source_ends_the_run_quietly(bench):
    bench.viewer.add_image(stack(), name="cells")
    bench.viewer.add_image(stack(), name="other")
    bench.choose(layer=bench.viewer.layers["cells"])
    bench.controller.deblur()
    bench.job.step()
    bench.viewer.layers.remove("cells")
    assert bench.job.asked_to_quit
    bench.job.run()
    assert bench.names() == ["other"]
    assert bench.errors == []
    assert bench.settings.layer is bench.viewer.layers["other"]
    assert bench.state["can_start"]


def test_removing_another_layer_does_not_disturb_the_run(bench):
    bench.viewer.add_image(stack(), name="cells")
    bench.viewer.add_image(stack(), name="other")
    bench.choose(layer=bench.viewer.layers["cells"])
    bench.controller.deblur()
    bench.viewer.layers.remove("other")
    bench.job.run()
    assert bench.names() == ["cells", "cells deblurred"]


def test_closing_mid_run_is_quiet(bench):
    bench.viewer.add_image(stack(), name="cells")
    bench.controller.deblur()
    bench.job.step()
    bench.controller.close()
    calls = len(bench.view.mock_calls)
    assert bench.job.asked_to_quit
    bench.job.asked_to_quit = False
    bench.job.run()
    bench.viewer.add_image(stack())
    bench.viewer.layers.clear()
    assert len(bench.view.mock_calls) == calls  # the panel is gone: nobody may touch it
    assert bench.errors == []


def test_a_failure_is_one_notification(make_bench):
    def fail(request):
        yield Stage("...")
        return Failure(str(OutOfMemoryError("Too big: choose a smaller tile.")))

    bench = make_bench(fail)
    bench.controller.open()
    bench.viewer.add_image(stack(), name="cells")
    bench.controller.deblur()
    bench.job.run()
    assert bench.errors == ["Too big: choose a smaller tile."]
    assert bench.names() == ["cells"]
    assert bench.state["can_start"]


def test_a_result_that_is_no_image_is_one_notification(make_bench, caplog):
    def nonsense(request):
        yield Stage("...")
        return "nonsense"

    bench = make_bench(nonsense)
    bench.controller.open()
    bench.viewer.add_image(stack(), name="cells")
    bench.controller.deblur()
    with caplog.at_level(logging.ERROR, "napari_mpt_deblur"):
        bench.job.run()
    assert len(bench.errors) == 1
    assert "report it" in bench.errors[0]
    assert "\n" not in bench.errors[0]
    assert "Traceback" in caplog.text
    bench.view.show_message.assert_called_with(bench.errors[0])
    assert bench.state["can_start"]


@pytest.mark.parametrize("action", ["deblur", "preview"])
def test_without_an_image_nothing_can_start(bench, action):
    bench.viewer.add_labels(np.zeros((8, 8), int))
    bench.viewer.add_points()
    assert bench.state == {"running": False, "cancelling": False, "can_start": False}
    getattr(bench.controller, action)()
    assert bench.runs == []
    assert bench.errors == ["There is no image to deblur: open one, or choose its layer in the list 'Image'."]


def test_axes_that_do_not_fit_are_refused_before_the_run(bench):
    bench.viewer.add_image(stack())
    bench.choose(axes="TZYX")
    bench.controller.deblur()
    assert bench.runs == []
    assert len(bench.errors) == 1
    assert AxesError.__name__ not in bench.errors[0]
    bench.view.show_message.assert_called_with(bench.errors[0])  # not what the run before came to


def test_current_plane_lies_at_its_own_plane_only(bench):
    layer = bench.viewer.add_image(stack((4, 20, 30)), scale=(2, 0.5, 0.5), translate=(100, 0, 0))
    bench.viewer.dims.set_current_step(0, 2)
    bench.choose(scope=Scope.PLANE)
    bench.controller.deblur()
    bench.job.run()
    result = bench.viewer.layers[1]
    assert result.data.shape == (1, 20, 30)
    np.testing.assert_array_equal(result.data[0], -layer.data[2])
    np.testing.assert_allclose(result.data_to_world((0, 3, 4)), layer.data_to_world((2, 3, 4)))
    assert bench.viewer.dims.current_step[0] == 2
    assert bench.viewer.dims.nsteps[0] == 4


def test_a_drawn_box_is_restored_in_all_planes(bench):
    layer = bench.viewer.add_image(stack((2, 20, 30)), scale=(2, 0.5, 0.5))
    bench.viewer.add_shapes([[2, 3], [6, 10]], shape_type="rectangle")
    bench.choose(scope=Scope.SHAPE)
    bench.controller.deblur()
    bench.job.run()
    result = bench.viewer.layers[1]
    np.testing.assert_array_equal(result.data, -layer.data[:, 4:13, 6:21])
    np.testing.assert_allclose(result.data_to_world((1, 0, 0)), layer.data_to_world((1, 4, 6)))


def test_a_box_without_a_shape_is_refused(bench):
    bench.viewer.add_image(stack())
    bench.choose(scope=Scope.SHAPE)
    bench.controller.deblur()
    assert bench.runs == []
    assert "draw a rectangle" in bench.errors[0]


def test_preview_is_of_the_view_and_replaces_the_preview_before(bench):
    layer = bench.viewer.add_image(stack((3, 200, 300)), name="cells")
    bench.viewer.canvas.size = (50, 60)
    bench.viewer.scene.camera.center = (0, 100, 150)
    bench.viewer.scene.camera.zoom = 1
    bench.viewer.dims.set_current_step(0, 1)
    bench.controller.preview()
    bench.job.run()
    assert bench.names() == ["cells", "Deblur preview"]
    first = bench.viewer.layers[1]
    np.testing.assert_array_equal(first.data, -layer.data[1:2, 75:126, 120:181])
    assert bench.settings.layer is layer  # a preview is no image to deblur
    bench.viewer.dims.set_current_step(0, 2)
    bench.controller.preview()
    bench.job.run()
    assert bench.names() == ["cells", "Deblur preview"]
    assert bench.viewer.layers[1] is not first
    bench.controller.deblur()
    bench.job.run()
    assert bench.names() == ["cells", "cells deblurred"]  # the real result takes the preview's place
    bench.controller.preview()
    bench.job.run()
    bench.viewer.layers.remove("Deblur preview")
    bench.view.show_side_by_side.assert_called_with(available=True, on=False)  # with the result that is left


def test_side_by_side_shows_the_two_and_puts_the_view_back(bench):
    source = bench.viewer.add_image(stack(), name="cells")
    hidden = bench.viewer.add_image(stack(), name="hidden", visible=False)
    shown = bench.viewer.add_labels(np.zeros((20, 30), int), name="labels")
    bench.choose(layer=source)
    bench.view.show_side_by_side.assert_called_with(available=False, on=False)
    bench.controller.deblur()
    bench.job.run()
    bench.view.show_side_by_side.assert_called_with(available=True, on=False)
    result = bench.viewer.layers["cells deblurred"]
    camera, grid = bench.viewer.scene.camera, bench.viewer.canvas.grid
    camera.zoom, camera.center = 3.25, (0, 7, 9)
    grid.shape, grid.stride = (2, 3), 2
    bench.controller.toggle_side_by_side(True)
    assert (grid.enabled, grid.stride, grid.actual_shape(bench.viewer.layers)) == (True, 1, (1, 2))
    assert [layer.visible for layer in (source, result, hidden, shown)] == [True, True, False, False]
    assert grid.position(bench.viewer.layers.index(source), bench.viewer.layers) == (0, 0)
    assert grid.position(bench.viewer.layers.index(result), bench.viewer.layers) == (0, 1)
    bench.view.show_side_by_side.assert_called_with(available=True, on=True)
    bench.controller.toggle_side_by_side(False)
    assert (grid.enabled, grid.stride, grid.shape) == (False, 2, (2, 3))
    assert (camera.zoom, camera.center) == (3.25, (0, 7, 9))
    assert [layer.visible for layer in (source, result, hidden, shown)] == [True, True, False, True]


@pytest.mark.parametrize(("ndisplay", "order"), [(2, (0, 1, 2)), (3, (0, 1, 2)), (2, (1, 0, 2))])
def test_side_by_side_of_an_image_beside_a_stack(bench, ndisplay, order):
    """The viewer has three dimensions then, its two layers have two."""
    source = bench.viewer.add_image(stack((20, 30)), name="cells")
    other = bench.viewer.add_image(stack(), name="stack")
    bench.viewer.dims.order = order
    bench.viewer.dims.ndisplay = ndisplay
    bench.choose(layer=source)
    bench.controller.deblur()
    bench.job.run()
    bench.controller.toggle_side_by_side(True)
    bench.view.show_side_by_side.assert_called_with(available=True, on=True)
    assert bench.viewer.canvas.grid.enabled
    bench.controller.toggle_side_by_side(False)
    bench.view.show_side_by_side.assert_called_with(available=True, on=False)
    assert other.visible
    assert not bench.viewer.canvas.grid.enabled


def test_a_new_result_takes_its_place_side_by_side(bench):
    source = bench.viewer.add_image(stack(), name="cells")
    other = bench.viewer.add_image(stack(), name="other")
    bench.choose(layer=source)
    bench.controller.preview()
    bench.job.run()
    bench.controller.toggle_side_by_side(True)
    bench.controller.deblur()
    bench.job.run()
    result = bench.viewer.layers["cells deblurred"]
    visible = [layer for layer in bench.viewer.layers if layer.visible]
    assert visible == [source, result]
    assert bench.viewer.canvas.grid.enabled
    bench.controller.toggle_side_by_side(False)
    assert other.visible
    assert not bench.viewer.canvas.grid.enabled


@pytest.mark.parametrize("gone", ["cells", "cells deblurred"])
def test_side_by_side_ends_when_one_of_the_two_is_removed(bench, gone):
    bench.viewer.add_image(stack(), name="cells")
    other = bench.viewer.add_image(stack(), name="other")
    bench.choose(layer=bench.viewer.layers["cells"])
    bench.controller.deblur()
    bench.job.run()
    bench.controller.toggle_side_by_side(True)
    assert not other.visible
    bench.viewer.layers.remove(gone)
    assert other.visible
    assert not bench.viewer.canvas.grid.enabled
    bench.view.show_side_by_side.assert_called_with(available=False, on=False)


def test_the_list_of_images_follows_the_viewer(bench):
    bench.viewer.add_image(stack(), name="a")
    bench.viewer.add_labels(np.zeros((8, 8), int))
    bench.viewer.add_image(stack(), name="b")
    assert [name for name, _ in bench.view.show_layers.call_args.args[0]] == ["a", "b"]
    assert bench.settings.layer is bench.viewer.layers["b"]  # opened last
    bench.viewer.add_image(stack(), name="hidden", visible=False)
    assert bench.settings.layer is bench.viewer.layers["b"]
    bench.viewer.layers.remove("hidden")
    bench.choose(layer=bench.viewer.layers["a"])
    bench.viewer.add_image(stack(), name="c")
    assert bench.settings.layer is bench.viewer.layers["a"]  # what the user chose stays
    bench.viewer.layers.remove("c")
    bench.viewer.layers["a"].name = "renamed"
    assert [name for name, _ in bench.view.show_layers.call_args.args[0]] == ["renamed", "b"]
    bench.viewer.layers.remove("renamed")
    assert bench.settings.layer is bench.viewer.layers["b"]
    bench.viewer.layers.clear()
    assert bench.settings.layer is None
    assert not bench.state["can_start"]


def test_axes_are_shown_in_words_and_an_override_is_kept_for_its_layer_only(bench):
    first = bench.viewer.add_image(stack())
    bench.view.show_axes.assert_called_with(
        "z-stack: Z, Y, X",
        [("z-stack: Z, Y, X", "ZYX"), ("time series: T, Y, X", "TYX"), ("channels: C, Y, X", "CYX")],
        keep=False,
    )
    bench.viewer.add_labels(np.zeros((8, 8), int))
    assert bench.view.show_axes.call_args.kwargs == {"keep": True}
    bench.viewer.add_image(stack())
    assert bench.view.show_axes.call_args.kwargs == {"keep": False}
    bench.choose(layer=first)
    assert bench.view.show_axes.call_args.kwargs == {"keep": False}


def test_machinery_is_looked_up_once_when_the_panel_opens(bench):
    assert bench.runner.surveys == 1
    assert bench.view.show_machinery.call_args.args[0].default_device == "cpu"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "about 1 s"), (42.4, "about 42 s"), (200, "about 3 min"), (9000, "about 2.5 h")]
)
def test_durations_in_words(seconds, words):
    assert describe_seconds(seconds) == words


# -- weights of others -------------------------------------------------------------------------------------------------


def test_what_is_imported_is_listed_by_every_panel(bench):
    listener = Listener()
    request = ImportRequest(Path("theirs.pth"), "theirs", "minmax")
    bench.controller.import_model(request)
    (job,) = bench.runner.of(import_steps)
    assert job.steps.args == (request,)
    bench.controller.import_model(request)  # a second click
    assert len(bench.runner.of(import_steps)) == 1
    assert "try again" in bench.view.show_message.call_args.args[0]
    answer(job, Path("theirs.safetensors"))
    bench.view.show_message.assert_called_with("Imported as 'theirs'.")
    assert listener.heard == 1
    assert bench.errors == []


def test_what_cannot_be_imported_is_told_once(bench):
    listener = Listener()
    bench.controller.import_model(ImportRequest(Path("theirs.pth"), "theirs"))
    answer(bench.runner.of(import_steps)[0], Failure("It holds code."))
    bench.view.show_message.assert_called_with("It holds code.")
    assert bench.errors == ["It holds code."]
    assert listener.heard == 0


# -- estimates -----------------------------------------------------------------------------------------------------


def test_what_a_run_takes_is_shown_before_it_starts(bench):
    bench.viewer.add_image(stack())
    bench.view.show_outlook.assert_called_with("Estimating time and memory...")
    answer(bench.estimates[-1], Outlook("3 tiles, about 8 s and 0.2 GB of memory"))
    bench.view.show_outlook.assert_called_with("Takes 3 tiles, about 8 s and 0.2 GB of memory.")
    bench.choose(scope=Scope.PLANE)
    assert bench.estimates[-1].steps.args[0].plane_index == (1,)
    assert not bench.controller.is_running


def test_an_estimate_gives_way_to_a_run_and_comes_back_after_it(bench):
    bench.viewer.add_image(stack())
    bench.controller.deblur()
    assert bench.estimates[-1].asked_to_quit
    answer(bench.estimates[-1], Outlook("no more wanted"))
    bench.view.show_outlook.assert_called_with("")
    count = len(bench.estimates)
    bench.choose(tile_px=128)
    assert len(bench.estimates) == count
    bench.job.run()
    assert len(bench.estimates) == count + 1
    assert bench.estimates[-1].steps.args[0].tile_px == 128


def test_without_an_image_there_is_nothing_to_estimate(bench):
    bench.viewer.add_image(stack())
    answer(bench.estimates[-1], Failure("The model is damaged."))
    bench.view.show_outlook.assert_called_with("The model is damaged.")
    assert bench.errors == []
    bench.viewer.layers.clear()
    bench.view.show_outlook.assert_called_with("")
