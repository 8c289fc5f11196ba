"""The controller of "Train": what a click, the engine and the viewer make it do. No Qt is involved."""

import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from napari_mpt_deblur.training.events import Estimate
from napari_mpt_deblur.widgets import model_news
from napari_mpt_deblur.widgets.stages import Failure, Stage
from napari_mpt_deblur.widgets.train.folder import EarlierRun
from napari_mpt_deblur.widgets.train.job import Outlook, save_steps
from napari_mpt_deblur.widgets.train.panel import TrainWidget
from napari_mpt_deblur.widgets.train.result import PREVIEW
from napari_mpt_deblur.widgets.train.view import TrainView

from .conftest import Listener, answer
from .train_bench import ITERATIONS, Bench, learn


def stack(shape=(3, 70, 80), seed=0):
    return np.random.default_rng(seed).integers(1, 1000, shape).astype(np.uint16)


@pytest.fixture
def bench():
    bench = Bench()
    bench.controller.open()
    yield bench
    bench.controller.close()


@pytest.fixture
def image(bench):
    layer = bench.viewer.add_image(
        stack(), name="cells", scale=(2, 0.5, 0.5), units="um", axis_labels=("z", "y", "x"), colormap="green"
    )
    bench.viewer.dims.set_current_step(0, 1)
    return layer


def advance(bench, until):
    """Let the run go on until a call of the panel, or the state of the run, is as told."""
    for _ in range(30):
        if until():
            return
        bench.job.step()
    raise AssertionError("never came")


def test_the_panel_is_a_view():
    for name, wanted in inspect.getmembers(TrainView, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(TrainWidget, name)).parameters == inspect.signature(wanted).parameters


def test_a_run_draws_its_curves_reports_and_leaves_before_and_after(bench, image):
    bench.viewer.add_image(stack(seed=1), name="other")
    bench.choose(layer=image)
    assert bench.controls == {"can_pause": False, "paused": False, "can_stop": False, "can_save": False}
    bench.train()
    assert bench.state == {"running": True, "cancelling": False, "can_start": False}
    bench.job.run()
    curves = bench.view.show_curves.call_args.args[0]
    assert curves.loss("total", 100) == [(i, 0.1 / i) for i in range(1, ITERATIONS + 1)]
    assert curves.loss("extra", 100) == [(i, 0.2) for i in range(1, ITERATIONS + 1)]
    assert curves.psnr == [(0, 24.0), (4, 25.0)]
    first, last = (call.args[0] for call in bench.view.show_report.call_args_list)
    assert first == "Training on cpu (float32). Nothing is sharp."
    assert "24.00 dB before, 25.00 dB after training (+1.00 dB)" in last
    assert bench.view.show_report.call_args.kwargs == {"warning": ""}
    assert bench.message == "Done after 4 iterations. Save the model to use it."
    assert bench.names() == ["cells", "cells before training", "cells after training", "other"]
    for name, value in (("cells before training", 7), ("cells after training", 9)):
        layer = bench.viewer.layers[name]
        np.testing.assert_array_equal(layer.data, np.full((1, 70, 80), value))
        np.testing.assert_allclose(layer.data_to_world((0, 3, 4)), image.data_to_world((1, 3, 4)))
        assert (layer.units, layer.colormap.name) == (image.units, "green")
        np.testing.assert_allclose(layer.contrast_limits, image.contrast_limits)
    assert bench.viewer.layers.selection.active is layer
    assert bench.settings.layer is image
    assert bench.controls == {"can_pause": False, "paused": False, "can_stop": False, "can_save": True}
    assert bench.state == {"running": False, "cancelling": False, "can_start": True}
    assert bench.errors == []


def test_progress_counts_iterations_and_tells_the_time_left(bench, image):
    bench.train()
    bench.job.step()
    assert bench.progress == (None, "Looking at the images...")
    bench.job.step()
    assert bench.progress == (0.0, "Training, about 8 s left")
    bench.job.step()
    assert bench.progress == (0.25, "Iteration 1 of 4, about 6 s left")


def test_minutes_bound_the_time_left(bench, image):
    bench.choose(minutes=0.05)
    bench.train()
    assert bench.job.steps.args[0].minutes == 0.05
    advance(bench, lambda: "Iteration 1" in bench.progress[1])
    assert bench.progress[1] == "Iteration 1 of 4, about 1 s left"  # not 6


def test_curves_are_not_drawn_at_every_step_but_at_every_validation(bench, image):
    bench.train()
    advance(bench, lambda: "Iteration 1" in bench.progress[1])
    drawn = bench.view.show_curves.call_count
    advance(bench, lambda: "Iteration 3" in bench.progress[1])
    assert bench.view.show_curves.call_count == drawn
    advance(bench, lambda: "Iteration 4" in bench.progress[1])
    assert bench.view.show_curves.call_count == drawn + 1
    bench.now = 5.0
    bench.job.run()


def test_the_preview_is_one_layer_that_changes_in_place_and_goes(bench, image):
    bench.train()
    advance(bench, lambda: PREVIEW in bench.names())
    preview = bench.viewer.layers[PREVIEW]
    assert bench.names()[-1] == PREVIEW
    assert preview.data.dtype == np.uint16
    np.testing.assert_array_equal(preview.data, np.full((1, 70, 80), 102))
    np.testing.assert_allclose(preview.data_to_world((0, 3, 4)), image.data_to_world((1, 3, 4)))
    advance(bench, lambda: preview.data[0, 0, 0] == 103)
    assert bench.settings.layer is image
    assert PREVIEW not in [name for name, _ in bench.view.show_layers.call_args.args[0]]
    bench.job.run()
    assert PREVIEW not in bench.names()


def test_a_preview_that_the_user_removed_does_not_come_back(bench, image):
    bench.train()
    advance(bench, lambda: PREVIEW in bench.names())
    bench.viewer.layers.remove(PREVIEW)
    advance(bench, lambda: "Iteration 4" in bench.progress[1])
    bench.job.step()
    assert PREVIEW not in bench.names()
    bench.job.run()
    assert "cells after training" in bench.names()
    assert bench.errors == []


def test_pause_and_resume(bench, image):
    bench.train()
    bench.controller.toggle_pause()
    assert not bench.job.steps.args[0].control.is_paused  # nothing to pause yet
    advance(bench, lambda: "Iteration 1" in bench.progress[1])
    assert bench.controls["can_pause"]
    bench.controller.toggle_pause()
    assert bench.progress == (0.25, "Pausing after this step...")
    assert bench.controls["paused"]
    for _ in range(5):
        bench.job.step()
    assert bench.progress == (0.25, "Paused.")
    bench.controller.toggle_pause()
    assert bench.progress == (0.25, "Iteration 1 of 4, about 6 s left")
    assert not bench.controls["paused"]
    bench.job.run()
    assert bench.message.startswith("Done after 4")


@pytest.mark.parametrize("paused", [False, True])
def test_stop_keeps_what_was_learnt(bench, image, paused):
    bench.train()
    advance(bench, lambda: "Iteration 2" in bench.progress[1])
    if paused:
        bench.controller.toggle_pause()
        bench.job.step()
    bench.controller.stop()
    assert bench.progress == (0.5, "Stopping after this step...")
    assert bench.controls == {"can_pause": False, "paused": paused, "can_stop": False, "can_save": False}
    bench.controller.stop()
    bench.controller.toggle_pause()
    bench.job.run()
    assert bench.message == "Stopped after 2 iterations. Save the model to use it."
    assert bench.controls["can_save"]
    assert "cells after training" in bench.names()


def test_stop_before_the_first_step_just_stops(bench, image):
    bench.train()
    bench.job.step()
    bench.controller.stop()
    assert bench.job.asked_to_quit
    bench.job.run()
    assert bench.message == "Stopped before training began."
    assert not bench.controls["can_save"]
    assert bench.names() == ["cells"]


def test_stop_after_the_last_step_leaves_the_comparison_out(bench, image):
    bench.train()
    advance(bench, lambda: bench.progress[1].startswith("Restoring"))
    assert bench.progress[0] == 0.25
    assert bench.controls == {"can_pause": False, "paused": False, "can_stop": True, "can_save": True}
    bench.controller.stop()
    bench.job.run()
    assert bench.names() == ["cells"]
    assert bench.message == "Done after 4 iterations. Save the model to use it."
    assert bench.controls["can_save"]


def test_without_a_base_model_only_the_trained_one_is_shown(bench, image):
    bench.choose(base=None, patch_px=128)
    bench.train()
    bench.job.run()
    assert bench.names() == ["cells", "cells after training"]
    bench.controller.toggle_side_by_side(True)
    assert [layer.name for layer in bench.viewer.layers if layer.visible] == ["cells", "cells after training"]


def test_side_by_side_shows_before_and_after(bench, image):
    assert bench.view.show_side_by_side.call_args.kwargs == {"available": False, "on": False}
    bench.train()
    bench.job.run()
    assert bench.view.show_side_by_side.call_args.kwargs == {"available": True, "on": False}
    bench.controller.toggle_side_by_side(True)
    shown = [layer.name for layer in bench.viewer.layers if layer.visible]
    assert shown == ["cells before training", "cells after training"]
    assert bench.viewer.canvas.grid.enabled
    bench.viewer.layers.remove("cells before training")
    assert not bench.viewer.canvas.grid.enabled
    assert bench.view.show_side_by_side.call_args.kwargs == {"available": False, "on": False}


def test_validation_that_got_worse_is_a_plain_warning():
    bench = Bench(partial(learn, gain_db=-0.5))
    bench.controller.open()
    bench.viewer.add_image(stack(), name="cells")
    bench.train().run()
    warning = bench.view.show_report.call_args.kwargs["warning"]
    assert warning.startswith("Validation got worse by 0.50 dB")
    assert "lower learning rate" in warning
    assert bench.message == "Done after 4 iterations. Validation got worse."
    assert bench.controls["can_save"]  # it is the user's to decide
    bench.controller.close()


def test_a_run_that_diverged_warns_plainly_and_can_be_saved():
    bench = Bench(partial(learn, ends="diverged"))
    bench.controller.open()
    bench.viewer.add_image(stack(), name="cells")
    bench.train().run()
    warning = bench.view.show_report.call_args.kwargs["warning"]
    assert warning.startswith("The loss was no number any more: training ended, and went back to iteration 4.")
    assert "lower learning rate" in warning
    assert "got worse" not in warning
    assert bench.message.startswith("Training diverged and went back to the weights after 4 iterations. Save")
    assert bench.controls["can_save"]
    assert bench.errors == []
    bench.controller.close()


def test_a_run_that_fails_does_not_offer_the_weights_of_the_run_before(bench, image):
    def fails(request):
        yield from list(learn(request))[:3]
        return Failure("The memory is full: close something.")

    bench.train().run()
    assert bench.controls["can_save"]
    bench.controller._steps = fails
    bench.train().run()
    assert bench.errors == ["The memory is full: close something."]
    assert not bench.controls["can_save"]  # they lay in the same folder


def test_a_failure_is_one_notification_and_what_was_learnt_before_it_stays(bench, image):
    def fails(request):
        yield from learn(request)
        return Failure("The memory is full: close something.")

    bench.controller._steps = fails
    bench.train().run()
    assert bench.errors == ["The memory is full: close something."]
    assert bench.message == bench.errors[0]
    assert bench.controls["can_save"]
    assert bench.names() == ["cells", "cells before training"]  # no preview is left


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"minutes": 0}, "minutes"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"patch_px": 3}, "64"),
        ({"axes": "CYX?"}, "axes"),
    ],
)
def test_what_makes_no_sense_is_told_at_the_click_and_beside_the_estimate(bench, image, settings, reason):
    bench.choose(**settings)
    text, earlier = bench.view.show_outlook.call_args.args
    assert reason in text.lower()
    assert earlier is None
    bench.controller.train()
    assert bench.errors == [text]
    assert not bench.controller.is_running


def test_without_an_image_nothing_starts(bench):
    assert bench.state["can_start"] is False
    bench.controller.train()
    assert bench.errors == ["There is no image to train for: open one, or choose its layer in the list 'Image'."]


def test_removing_the_image_stops_and_keeps_what_was_learnt(bench, image):
    bench.train()
    advance(bench, lambda: "Iteration 2" in bench.progress[1])
    bench.viewer.layers.remove(image)
    assert bench.progress[1] == "Stopping after this step..."
    bench.job.run()
    assert bench.errors == []
    assert bench.names() == []
    assert bench.controls["can_save"]


def test_closing_mid_run_is_quiet_and_ends_the_job(bench, image):
    bench.train()
    advance(bench, lambda: "Iteration 2" in bench.progress[1])
    calls = bench.view.show_progress.call_count
    bench.controller.close()
    assert bench.job.asked_to_quit
    bench.job.run()
    assert bench.view.show_progress.call_count == calls
    assert bench.errors == []
    bench.controller.open()
    assert bench.state["can_start"]


# -- estimates -----------------------------------------------------------------------------------------------------


OUTLOOK = Outlook(Estimate(0.5, 250.0, 1_300_000_000), None)


def test_an_estimate_is_shown_before_it_starts(bench, image):
    answer(bench.estimates[-1], OUTLOOK)
    text = "Takes about 4 min (0.5 s an iteration) and 1.3 GB of memory."
    bench.view.show_outlook.assert_called_with(text, "")
    bench.choose(minutes=10)
    answer(bench.estimates[-1], Outlook(Estimate(0.5, 300.0, 200_000_000), None))
    text = "In 10 min there is time for about 1000 iterations; they take 200 MB of memory."
    bench.view.show_outlook.assert_called_with(text, "")


def test_settings_that_change_meanwhile_are_estimated_anew_and_one_at_a_time(bench, image):
    count = len(bench.estimates)
    bench.settings = replace(bench.settings, iterations=1000)
    bench.controller.estimate()
    bench.controller.estimate()
    assert len(bench.estimates) == count
    assert bench.estimates[-1].asked_to_quit
    answer(bench.estimates[-1], OUTLOOK)
    assert len(bench.estimates) == count + 1
    bench.view.show_outlook.assert_called_with("Estimating time and memory...", None)  # not the stale one
    assert bench.estimates[-1].steps.args[0].config.iterations == 1000
    answer(bench.estimates[-1], OUTLOOK)
    assert len(bench.estimates) == count + 1


def test_a_run_that_can_be_gone_on_with_is_offered(bench, image):
    answer(bench.estimates[-1], replace(OUTLOOK, earlier=EarlierRun(230, 500)))
    assert bench.view.show_outlook.call_args.args[1] == "Go on from iteration 230, where it stopped"
    bench.controller.estimate()
    answer(bench.estimates[-1], replace(OUTLOOK, earlier=EarlierRun(500, 500)))
    assert bench.view.show_outlook.call_args.args[1] == "Keep the finished run (500 iterations)"
    assert bench.train().steps.args[0].go_on
    bench.job.run()
    bench.choose(go_on=False)
    assert not bench.train().steps.args[0].go_on


def test_of_a_run_that_is_gone_on_with_the_estimate_is_of_what_is_left(bench, image):
    def told(settings, earlier):
        bench.choose(**settings)
        for _ in range(2):  # one that was under way is made anew
            answer(bench.estimates[-1], replace(OUTLOOK, earlier=earlier))
        return bench.view.show_outlook.call_args.args[0]

    half, done = EarlierRun(250, 500), EarlierRun(500, 500)
    left = "The 250 iterations that are left take about 2 min and 1.3 GB of memory."
    assert told({"iterations": 500}, half) == left
    assert told({"iterations": 500}, done).startswith("Nothing is left to train")
    assert told({"iterations": 500, "minutes": 10}, half) == left
    assert told({"minutes": 1}, half).startswith("In 1 min there is time for about 120 iterations")
    assert told({"minutes": None, "go_on": False}, half).startswith("Takes about 4 min")


@pytest.mark.parametrize(
    ("earlier", "offer"),
    [(EarlierRun(300, 300), "Keep the finished run"), (EarlierRun(600, 1000), "Go on from iteration 600")],
)
def test_by_the_minute_a_run_has_the_iterations_that_it_was_to_have(bench, image, earlier, offer):
    bench.choose(minutes=10, iterations=500)
    answer(bench.estimates[-1], replace(OUTLOOK, earlier=earlier))
    if len(bench.estimates) > 1:  # one that was under way is made anew
        answer(bench.estimates[-1], replace(OUTLOOK, earlier=earlier))
    assert bench.view.show_outlook.call_args.args[1].startswith(offer)


def test_nothing_is_estimated_while_a_run_is_on(bench, image):
    bench.train()
    assert bench.estimates[-1].asked_to_quit
    answer(bench.estimates[-1], OUTLOOK)
    count = len(bench.estimates)
    bench.choose(iterations=7)
    assert len(bench.estimates) == count
    bench.job.run()
    assert len(bench.estimates) == count + 1


def test_an_estimate_that_fails_is_told_in_its_place_and_not_as_an_error(bench, image):
    answer(bench.estimates[-1], Failure("Choose a smaller patch."))
    bench.view.show_outlook.assert_called_with("Choose a smaller patch.", None)
    assert bench.errors == []


# -- saving --------------------------------------------------------------------------------------------------------


def test_save_puts_the_weights_into_the_library_and_tells_every_panel(bench, image):
    listener = Listener()
    bench.controller.save("mine")
    assert not bench.runner.of(save_steps)  # there is nothing yet
    bench.train().run()
    assert bench.controller.suggested_name == "nuclei-cells"
    bench.controller.save("mine")
    bench.controller.save("mine")
    (job,) = bench.runner.of(save_steps)
    assert job.steps.args == (Path("best.safetensors"), "mine")
    job.yielded(Stage("Saving..."))
    answer(job, Path("mine.safetensors"))
    assert listener.heard == 1
    assert bench.message == "Saved as 'mine'; the Deblur panel lists it now."
    bench.controller.save("nuclei")
    answer(bench.runner.of(save_steps)[-1], Failure("A bundled model has that name: choose another."))
    assert bench.errors == ["A bundled model has that name: choose another."]
    assert listener.heard == 1
    model_news.leave(listener.hear)


def test_listeners_that_are_gone_are_forgotten():
    class Listener:
        def hear(self):
            raise AssertionError("gone")

    model_news.listen(Listener().hear)
    model_news.announce()
