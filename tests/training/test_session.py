"""`train`: from a request to weights; what it tells on the way, how it is stopped, and what it refuses at once."""

import json
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from training.small import small_config, small_network, source, spots

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.errors import (
    DeblurError,
    DeviceError,
    DivergedError,
    FileError,
    OutOfMemoryError,
    ParameterError,
    TrainingError,
)
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.training import session
from napari_mpt_deblur.training.events import Estimate, Finished, Preview, Scores, Stage, Started, Step
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.request import (
    FocusStacks,
    ImagePairs,
    ImageSource,
    OpenLayer,
    PreviewPlane,
    SharpImages,
    TrainingRequest,
)
from napari_mpt_deblur.training.session import train


@pytest.fixture(autouse=True)
def no_trial(request, monkeypatch):
    """The estimate has tests of its own."""
    monkeypatch.setattr(session, "estimate", lambda config, device: Estimate(0.5, 0.5 * config.iterations, 10**6))


@pytest.fixture(scope="module")
def layer():
    sharp = spots((40, 60))
    return source("layer", np.stack([sharp, gaussian_filter(sharp, 1.5)]), "ZYX")


def ask(folder, pairs, method="pixel", **arguments):
    config = arguments.pop("config", None) or small_config(contrast=method, iterations=2)
    return TrainingRequest(config, pairs, folder, **arguments)


def drive(request, stop=None):
    events, steps = [], train(request, stop)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return events, end.value


def kinds(events):
    return [type(event) for event in events if not isinstance(event, Stage)]


def sources(layer):
    sharp = tuple(source(str(number), spots((40, 60), number)) for number in range(3))
    return {
        "sharp": SharpImages(sharp),
        "pairs": ImagePairs(sharp, sharp),
        "stack": FocusStacks((layer,)),
        "layer": OpenLayer(layer),
    }


@pytest.mark.parametrize("kind", ["sharp", "pairs", "stack", "layer"])
def test_every_source_trains_with_unlabelled_images(tmp_path, layer, kind):
    one = small_config(contrast="efcrex", iterations=1)
    events, finished = drive(ask(tmp_path, sources(layer)[kind], config=one, unlabelled=(layer,)))
    assert kinds(events) == [Started, Step]
    assert isinstance(events[0], Stage)
    assert finished.reason == "done"
    assert finished.weights.is_file()
    data = load_model(finished.weights, "cpu").config.training["data"]
    assert data["unlabelled"]["images"][0] == {"name": "layer", "axes": "ZYX", "shape": [2, 40, 60]}
    assert set(data) == {"pairs", "unlabelled"}


@pytest.mark.parametrize("kind", ["sharp", "pairs", "stack"])
def test_every_source_serves_as_extra_data_in_colour(tmp_path, layer, kind):
    one, sharp = small_config(contrast="efcrex_labelled", iterations=1), spots((40, 40))
    colour = np.stack([np.stack([gaussian_filter(sharp, sigma)] * 3, -1) for sigma in (1e-3, 1.5)])
    colours = {
        "sharp": SharpImages((source("c", colour[0], "YXS"),)),
        "pairs": ImagePairs((source("c", colour[0], "YXS"),), (source("d", colour[0], "YXS"),)),
        "stack": FocusStacks((source("c", colour, "ZYXS"),)),
    }
    events, finished = drive(ask(tmp_path, OpenLayer(layer), config=one, extra=colours[kind]))
    assert events[-1].losses.extra > 0
    assert load_model(finished.weights, "cpu").config.training["data"]["extra"]["count"] == 1


def test_a_colour_layer_trains_a_network_of_three_channels(tmp_path):
    colour = source("rgb", np.stack([spots((40, 60), seed) for seed in range(3)], -1), "YXS")
    config = small_config(network=small_network(in_channels=3), contrast="efcrex", iterations=1)
    _, finished = drive(ask(tmp_path, OpenLayer(colour), config=config, unlabelled=(colour,)))
    assert load_model(finished.weights, "cpu").config.network.in_channels == 3


def test_where_nothing_is_sharp_the_base_model_makes_the_sharp_side(tmp_path, base_model):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :144]
    discs = np.any([np.hypot(y - cy, x - cx) < 9 for cy, cx in rng.uniform(0, 1, (30, 2)) * (96, 144)], axis=0)
    blurred = source("blurred", gaussian_filter(1000.0 * discs, 6) + rng.normal(0, 1, discs.shape))
    config = small_config(iterations=1, patch_px=(48,), batch=(1,))
    events, finished = drive(ask(tmp_path / "a", OpenLayer(blurred), config=config, base=base_model))
    assert "as the model restores them" in finished.notes[0]
    kind = load_model(finished.weights, "cpu").config.training["data"]["pairs"]["kind"]
    assert kind == "regions of the image, restored and defocused"
    for name, pairs, base in (("b", OpenLayer(blurred), None), ("c", OpenLayer(blurred, restored=False), base_model)):
        _, without = drive(ask(tmp_path / name, pairs, config=config, base=base))
        assert "the image itself is the target" in without.notes[0]
    assert events[-1].losses.total > 0


def test_it_tells_what_it_begins_with_and_what_it_comes_to(tmp_path, layer, base_model):
    events, finished = drive(ask(tmp_path, OpenLayer(layer), config=small_config(contrast="efcr"), base=base_model))
    started = next(event for event in events if isinstance(event, Started))
    steps = [event for event in events if isinstance(event, Step)]
    assert (started.iteration, started.iterations, started.before.iteration) == (0, 4, 0)
    assert (started.device, started.precision) == ("cpu", "float32")
    assert started.estimate.seconds == pytest.approx(2.0)
    assert len(started.notes) == 1
    assert [step.iteration for step in steps] == [1, 2, 3, 4]
    assert [step.validation is not None for step in steps] == [False, True, False, True]
    assert all(step.losses.positive > 0 and step.losses.extra > 0 for step in steps)
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert finished.before == started.before
    assert finished.after == max((step.validation for step in steps if step.validation), key=lambda scores: scores.psnr)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in log] == [0, 2, 4]
    assert log[1]["positive"] == pytest.approx(np.mean([step.losses.positive for step in steps[:2]]))
    assert {"loss", "pixel", "contrast", "positive", "negative", "extra", "psnr", "ssim_blurred"} <= set(log[2])
    config = load_model(finished.weights, "cpu").config
    assert (config.intensity_rule, config.nucleus_diameter_px) == ((2.0, 99.0), (8, 20))  # the base model's


def test_worse_than_before_is_told():
    scores = {psnr: Scores(1, psnr, 20.0, 0.9, 0.8) for psnr in (29.0, 30.0)}
    finished = Finished(1, "done", None, None, scores[30.0], scores[29.0])
    assert finished.got_worse
    assert not replace(finished, after=scores[30.0]).got_worse


def test_closed_and_taken_up_again_equals_uninterrupted(tmp_path, layer):
    """With all streams of random numbers in use; `test_trainer` has every method."""
    extra, pairs = SharpImages((layer,)), FocusStacks((layer,))
    drive(ask(tmp_path / "whole", pairs, "efcrex_labelled", extra=extra))
    request = ask(tmp_path / "parts", pairs, "efcrex_labelled", extra=extra)
    steps = train(request)
    for event in steps:
        if isinstance(event, Step):
            steps.close()
    events, _ = drive(request)
    assert next(event for event in events if isinstance(event, Started)).iteration == 1
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    for part in ("network", "average"):
        assert all(torch.equal(whole[part][name], parts[part][name]) for name in whole[part])
    assert whole["scores"] == parts["scores"]


def test_stopping_keeps_what_was_learnt_with_its_figures(tmp_path, layer):
    stop, events = threading.Event(), []
    steps = train(ask(tmp_path, OpenLayer(layer)), stop)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            finished = end.value
            break
        if isinstance(events[-1], Step):
            stop.set()
    assert (finished.reason, finished.iteration, finished.after.iteration) == ("stopped", 1, 1)
    assert load_model(finished.weights, "cpu").config.training["iterations"] == 1


def test_pauses_do_not_count_as_time(tmp_path, layer, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    request = ask(tmp_path, OpenLayer(layer), minutes=1.0)
    seconds = []
    for event in train(request):
        now[0] += 3600  # the consumer waits
        if isinstance(event, Step):
            seconds.append(event.seconds)
    assert seconds == [0, 0]


def test_the_time_is_a_limit(tmp_path, layer, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    step = Trainer.step

    def slow(trainer):
        now[0] += 40
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", slow)
    for minutes, reason, iteration in ((1.0, "time", 2), (2.0, "done", 4)):
        _, finished = drive(ask(tmp_path, OpenLayer(layer), config=small_config(), minutes=minutes))
        assert (finished.reason, finished.iteration) == (reason, iteration)


def test_iterations_fill_the_minutes_and_stay_what_they_were(tmp_path, layer, monkeypatch):
    monkeypatch.setattr(session.time, "monotonic", lambda: 0.0)
    config = small_config(iterations=100, warmup=10)
    request = ask(tmp_path, OpenLayer(layer), config=config, minutes=0.025, fill_minutes=True)  # half a second each
    events, finished = drive(request)
    started = next(event for event in events if isinstance(event, Started))
    assert (started.iterations, finished.iteration, started.estimate.seconds) == (3, 3, pytest.approx(1.5))
    longer = replace(request, minutes=10.0)
    assert next(event for event in drive(longer)[0] if isinstance(event, Started)).iterations == 3


def test_the_estimate_is_of_what_is_left_and_no_longer_than_the_minutes(tmp_path, layer):
    def started(**arguments):
        request = ask(tmp_path, OpenLayer(layer), config=small_config(), **arguments)
        return next(event for event in drive(request)[0] if isinstance(event, Started))

    assert started(minutes=1e-9).estimate.seconds == pytest.approx(6e-8)
    assert (resumed := started()).iteration == 1
    assert resumed.estimate.seconds == pytest.approx(1.5)  # three steps of half a second


def test_previews_show_the_plane_as_the_deblurrer_restores_it(tmp_path, layer, base_model):
    view = layer.view
    wanted = PreviewPlane(view, (1,), (4, 8, 24, 40), every_s=0)
    events, finished = drive(ask(tmp_path, OpenLayer(layer), base=base_model, preview=wanted))
    previews = [event for event in events if isinstance(event, Preview)]
    assert [preview.iteration for preview in previews] == [0, 1, 2, 2]
    assert all(preview.array.shape == (1, 20, 32) for preview in previews)
    from napari_mpt_deblur.restoration import Deblurrer

    steps = Deblurrer(load_model(finished.last, "cpu"), precision="float32").run(
        view, planes=wanted.planes, region=wanted.region, dtype="float32"
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            np.testing.assert_allclose(previews[-1].array, end.value.array, rtol=1e-4)
            break
    assert not np.allclose(previews[0].array, previews[-1].array)


def test_a_preview_of_a_single_colour_plane_has_its_colours(tmp_path):
    colour = source("rgb", np.stack([spots((40, 60), seed) for seed in range(3)], -1), "YXS")
    config = small_config(iterations=1)
    events, _ = drive(ask(tmp_path, OpenLayer(colour), config=config, preview=PreviewPlane(colour.view, ())))
    assert next(event for event in events if isinstance(event, Preview)).array.shape == (1, 40, 60, 3)


def test_unlabelled_images_that_are_validated_on_give_their_other_part_only(tmp_path, layer):
    array = spots((40, 80))
    array[:, 64:] += 1e5
    marked = source("marked", array)
    request = ask(tmp_path, ImagePairs((marked,), (marked,)), "efcrex", unlabelled=(marked,))
    data = session.open_data(request, request.config)
    brightest = float(data.unlabelled.batch(0, 200, 16).max())
    assert brightest < min(float(blurred.min()) for blurred, _ in data.validation)
    other = source("other", array.copy())
    data = session.open_data(replace(request, unlabelled=(other,)), request.config)
    assert float(data.unlabelled.batch(0, 200, 16).max()) > brightest


def drawn_from(request):
    """For each unlabelled image, the planes with what is drawn of them marked."""
    images = session.open_data(request, request.config).unlabelled
    marks = [np.zeros((len(field.groups), field.height, field.width), bool) for field in images.fields]
    for area in images._draw.areas:
        marks[area.field][area.group, area.y0 : area.y1, area.x0 : area.x1] = True
    return marks


def test_the_sharp_sides_of_pairs_that_are_validated_on_are_no_unlabelled_images(tmp_path):
    sharp = tuple(source(str(number), spots((40, 60), number)) for number in range(4))
    blurred = tuple(source(one.name, gaussian_filter(one.view.data, 1)) for one in sharp)
    for sides in ((blurred, sharp), (sharp, blurred)):
        request = ask(tmp_path, ImagePairs(*sides), "efcrex", unlabelled=sharp)
        assert [mark.all() for mark in drawn_from(request)] == [True, True, True, False]
        assert not drawn_from(request)[3].any()
    twin = source("twin", blurred[0].view.data.copy())
    shared = ImagePairs((blurred[0], twin), (sharp[0],) * 2)
    with pytest.raises(
        TrainingError, match="All unlabelled images are held out"
    ):  # one pair trains on it, one does not
        drawn_from(ask(tmp_path, shared, "efcrex", unlabelled=sharp[:1]))


def test_what_is_held_out_of_a_sharp_image_lies_where_registration_finds_it(tmp_path):
    field = spots((100, 60), sigma=2)
    sharp, blurred = source("sharp", field[:90]), source("blurred", gaussian_filter(field[6:96], 1))
    request = ask(tmp_path, ImagePairs((blurred,), (sharp,)), "efcrex", unlabelled=(sharp, blurred))
    on_sharp, on_blurred = (np.flatnonzero(mark[0].any(1)) for mark in drawn_from(request))
    assert (on_blurred[0], on_blurred[-1] + 1) == (6, 84 - 16)  # without the edge, and a strip
    assert list(on_sharp) == list(on_blurred + 6)


def test_sharp_images_that_are_validated_on_are_no_unlabelled_images(tmp_path):
    dark, bright, other = (source(name, spots((40, 60), seed)) for seed, name in enumerate("abc"))
    request = ask(tmp_path, SharpImages((dark,), (bright,)), "efcrex", unlabelled=(bright,))
    with pytest.raises(TrainingError, match="All unlabelled images are held out for validation: name others"):
        session.open_data(request, request.config)
    data = session.open_data(replace(request, unlabelled=(bright, other)), request.config)
    assert {data.unlabelled.fields[area.field].name for area in data.unlabelled._draw.areas} == {"c"}


@pytest.mark.parametrize("shape", [(60, 100), (12, 40, 60)], ids=["strip", "planes"])
def test_the_held_out_part_of_the_only_sharp_image_is_no_unlabelled_image(tmp_path, shape):
    array, drawn = spots(shape), np.zeros(shape, bool)
    held = np.s_[:, 80:] if len(shape) == 2 else np.s_[9]
    only = source("only", array)
    request = ask(tmp_path, SharpImages((only,)), "efcrex", unlabelled=(only,))
    for area in session.open_data(request, request.config).unlabelled._draw.areas:
        drawn.reshape(-1, *shape[-2:])[area.group, area.y0 : area.y1, area.x0 : area.x1] = True
    assert not drawn[held].any()
    drawn[held] = True
    assert drawn.all()  # all the rest


def test_what_is_left_of_the_only_sharp_image_must_hold_a_patch(tmp_path):
    wide, config = source("wide", spots((100, 96))), small_config(contrast="efcrex", patch_px=(96,))
    with pytest.raises(TrainingError, match="wide is too small: what is not held out of it is smaller than a patch"):
        session.open_data(ask(tmp_path, SharpImages((wide,)), config=config, unlabelled=(wide,)), config)


def test_a_failure_keeps_what_was_learnt_and_leaves_as_one_of_ours(tmp_path, layer, monkeypatch):
    step = Trainer.step

    def fail(trainer):
        if trainer.iteration == 1:
            raise RuntimeError("CUDA error:\n out of memory")
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", fail)
    with pytest.raises(OutOfMemoryError, match="smaller patch or batch"):
        drive(ask(tmp_path, OpenLayer(layer)))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == 1
    monkeypatch.setattr(Trainer, "step", lambda _: (_ for _ in ()).throw(RuntimeError("mat1 and mat2\ndo not fit")))
    with pytest.raises(DeblurError, match="mat1 and mat2 do not fit") as caught:
        drive(ask(tmp_path, OpenLayer(layer)))
    assert not isinstance(caught.value, RuntimeError)


def test_an_unwritable_folder_ends_the_run_in_one_line(tmp_path, layer, monkeypatch):
    request, steps = ask(tmp_path, OpenLayer(layer)), None
    drive(request)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".jsonl"}

    def refuse(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    steps = train(replace(request, config=replace(request.config, iterations=4)))
    with pytest.raises(FileError, match="permission denied: write elsewhere"):
        for _ in steps:
            pass
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".jsonl"} == before


def test_figures_of_other_validation_images_are_not_taken_up(tmp_path):
    """Whatever the images are called: none is compared with one of another image, nor best because of that."""
    first, second, held, other = (source("image", spots((40, 60), seed)) for seed in range(4))
    request = ask(tmp_path, SharpImages((first, second), (held,)))
    _, begun = drive(request)
    elsewhere = replace(
        request, pairs=SharpImages((first, second), (other,)), config=replace(request.config, iterations=4)
    )
    for event in train(elsewhere):
        if isinstance(event, Started):
            assert event.iteration == event.before.iteration == 2  # measured anew
            assert event.before.psnr_blurred != begun.before.psnr_blurred
            break  # the state is saved, beside the best weights and figures of the first image
    _, finished = drive(elsewhere)
    assert finished.before == event.before
    assert finished.after.psnr_blurred == finished.before.psnr_blurred
    figures = load_model(finished.weights, "cpu").config.training["figures"]
    assert figures["after"]["psnr_blurred"] == finished.before.psnr_blurred
    _, again = drive(elsewhere)
    assert (again.before, again.after) == (finished.before, finished.after)  # of the same images they are


def test_restart_forgets_the_run_before(tmp_path, layer):
    drive(ask(tmp_path, OpenLayer(layer)))
    events, finished = drive(ask(tmp_path, OpenLayer(layer), config=small_config(iterations=1), restart=True))
    assert next(event for event in events if isinstance(event, Started)).iteration == 0
    assert load_model(finished.weights, "cpu").config.training["iterations"] == 1
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in log] == [0, 1]


def test_a_restart_that_is_killed_before_it_saves_does_not_bring_the_run_before_back(tmp_path, layer):
    request = ask(tmp_path, OpenLayer(layer))
    drive(request)
    for event in train(replace(request, restart=True)):
        if isinstance(event, Started):
            assert not [path for path in tmp_path.iterdir() if path.suffix in (".pt", ".safetensors")]
            break


def test_a_run_that_began_with_another_model_is_not_gone_on_with(tmp_path, layer, base_model, monkeypatch):
    """Its sharp side, and so its figures, may be what that model made of the layer."""
    first = ask(tmp_path / "run", OpenLayer(layer), base=base_model)
    drive(first)
    other = replace(first, base=tmp_path / "run" / "last.safetensors")
    before = (tmp_path / "run" / "state.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(session, "open_data", None)  # no time is spent
        with pytest.raises(TrainingError, match=r"began with the model base, not with .*last.*begin anew"):
            drive(other)
        with pytest.raises(TrainingError, match=r"began with the model base, not with random weights"):
            drive(replace(first, base=None))
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert drive(first)[1].reason == "done"
    assert drive(replace(other, restart=True))[1].reason == "done"
    drive(ask(tmp_path / "random", OpenLayer(layer)))
    with pytest.raises(TrainingError, match=r"began with random weights, not with .*base"):
        drive(replace(first, folder=tmp_path / "random"))


def test_weights_that_lie_without_a_state_are_not_taken_for_this_runs(tmp_path, layer, monkeypatch):
    request = ask(tmp_path / "run", OpenLayer(layer))
    drive(request)
    (tmp_path / "run" / "state.pt").unlink()  # as the message about a damaged one says
    begin, found = Trainer.begin, []
    monkeypatch.setattr(
        Trainer, "begin", lambda self: found.append(list((tmp_path / "run").glob("*.safe*"))) or begin(self)
    )
    assert drive(request)[1].reason == "done"
    assert found[0] == []


def test_two_runs_in_one_folder_do_not_meet(tmp_path, layer, monkeypatch):
    request = ask(tmp_path / "run", OpenLayer(layer))
    first = train(request)
    while not isinstance(next(first), Step):
        pass
    opened, open_data = [], session.open_data
    monkeypatch.setattr(session, "open_data", lambda *given: opened.append(given) or open_data(*given))
    with pytest.raises(TrainingError, match=r"Another training is on in .*run: wait until it has ended"):
        drive(replace(request, restart=True))
    assert not opened  # no time was spent
    first.close()
    assert (tmp_path / "run" / "state.pt").is_file()
    assert drive(request)[1].reason == "done"


def test_what_a_process_left_that_was_killed_while_it_saved_is_deleted(tmp_path, layer):
    kill = (
        "import os, sys; from pathlib import Path; from napari_mpt_deblur.images.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'state.pt') as temporary:\n"
        "    temporary.write_bytes(b'half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", kill, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    others = [tmp_path / name for name in ("mine.partial", ".mine.partial", f"{left.name}.txt")]
    for path in others:
        path.touch()
    drive(ask(tmp_path, OpenLayer(layer), config=small_config(iterations=1)))
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_a_run_takes_over_from_a_process_that_was_killed(tmp_path, layer):
    hold = (
        "import sys, time; from pathlib import Path; from napari_mpt_deblur.training.lock import sole_run\n"
        "with sole_run(Path(sys.argv[1])): print('on', flush=True); time.sleep(600)"
    )
    request = ask(tmp_path, OpenLayer(layer))
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"on\n"
        with pytest.raises(TrainingError, match="Another training is on"):
            drive(request)
        process.kill()
    assert drive(request)[1].reason == "done"


def test_what_cannot_be_deleted_for_a_restart_is_told_in_one_line(tmp_path, layer, monkeypatch):
    request = ask(tmp_path, OpenLayer(layer))
    drive(request)
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, missing_ok: (_ for _ in ()).throw(OSError(13, "Denied")))
    with pytest.raises(FileError, match=r"Cannot delete .*state\.pt of the run before: Denied; choose"):
        drive(replace(request, restart=True))


def test_a_learning_rate_that_is_too_high_leaves_weights_that_serve(tmp_path, layer, base_model):
    wild = small_config(iterations=6, learning_rate=1e30, warmup=0, clip=1e30)
    with pytest.raises(DivergedError, match=r"at iteration \d: go on with a lower learning rate") as caught:
        drive(ask(tmp_path, OpenLayer(layer), config=wild, base=base_model))
    assert caught.value.kept is None  # nor does it say so
    with torch.no_grad():
        restored = load_model(tmp_path / "last.safetensors", "cpu").network(torch.rand(1, 1, 16, 16))
    assert torch.isfinite(restored).all()
    tame = replace(wild, learning_rate=1e-4, clip=0.5)
    _, finished = drive(ask(tmp_path, OpenLayer(layer), config=tame, base=base_model))
    assert (finished.reason, finished.iteration) == ("done", 6)


@pytest.mark.parametrize("good_steps", [0, 3])
def test_a_run_that_diverges_tells_the_figures_of_what_it_keeps(tmp_path, layer, base_model, monkeypatch, good_steps):
    step = Trainer.step

    def break_down(trainer):
        if trainer.iteration == good_steps:
            with torch.no_grad():
                trainer.network.output.weight.fill_(torch.nan)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", break_down)
    with pytest.raises(DivergedError, match=f"not finite at iteration {good_steps}") as caught:
        drive(ask(tmp_path, OpenLayer(layer), config=small_config(), base=base_model))
    kept = caught.value.kept
    assert ("what was learnt until iteration 2 is kept" in str(caught.value)) == (kept is not None)
    if not good_steps:
        assert kept is None
        return
    assert (kept.reason, kept.iteration, kept.after.iteration) == ("diverged", 2, 2)  # validated every other step
    assert load_model(kept.weights, "cpu").config.training["iterations"] == 2
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == 2


NAN = spots((40, 60))
COLOUR = source("c", np.stack([spots((40, 60))] * 3, -1), "YXS")
NAN[3, 3] = np.nan
BAD = {
    "sizes": (lambda good: ImagePairs((good,), (source("b", spots((40, 50))),)), TrainingError, "differ in size"),
    "colours": (lambda good: ImagePairs((COLOUR,), (good,)), TrainingError, "differ in colours"),
    "colours, sharp": (lambda good: ImagePairs((good,), (COLOUR,)), TrainingError, "differ in colours"),
    "numbers": (lambda good: ImagePairs((good, good), (good,)), TrainingError, "2 blurred images and 1 sharp ones"),
    "fields": (lambda good: ImagePairs((good,), (source("b", spots((40, 60), 9)),)), TrainingError, "same field"),
    "small layer": (lambda good: OpenLayer(source("a", spots((12, 60)))), TrainingError, "a is too small"),
    "small stack": (
        lambda good: FocusStacks((source("a", NAN[None, :12, :].repeat(2, 0)[..., 20:]),)),
        TrainingError,
        "too small",
    ),
    "not finite": (lambda good: OpenLayer(source("a", NAN)), TrainingError, "NaN or infinite"),
    "not finite, sharp": (lambda good: SharpImages((good, source("b", NAN))), TrainingError, "b: planes must be"),
    "constant": (lambda good: OpenLayer(source("a", np.ones((40, 60)))), TrainingError, "all its pixels are the same"),
    "one image": (lambda good: SharpImages((good,)), TrainingError, "at least two sharp images, or one of 80 pixels"),
    "shared": (lambda good: SharpImages((good,), (good,)), TrainingError, "both trained and validated on"),
    "none": (lambda good: FocusStacks(()), TrainingError, "no image to train on"),
    "no file": (lambda good: OpenLayer(ImageSource.of_file("missing.tif")), FileError, "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused_before_any_time_is_spent(tmp_path, monkeypatch, case):
    make, kind, message = BAD[case]
    monkeypatch.setattr(Trainer, "__init__", None)  # nothing is built
    monkeypatch.setattr(session, "estimate", None)
    with pytest.raises(kind, match=message) as caught:
        drive(ask(tmp_path / "run", make(source("good", spots((40, 60))))))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("array", "axes", "words"), [(np.eye(40) > 0, None, "mask"), (np.eye(40), "ZYX", "ZYX")], ids=["type", "axes"]
)
def test_a_file_that_is_no_such_image_is_refused_by_name(tmp_path, array, axes, words):
    tifffile.imwrite(tmp_path / "odd.tif", array)
    with pytest.raises(TrainingError, match=rf"Cannot train on odd\.tif: .*{words}"):
        drive(ask(tmp_path / "run", OpenLayer(ImageSource.of_file(tmp_path / "odd.tif", axes))))


def test_a_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"II*\0damaged")
    with pytest.raises(FileError, match=r"bad\.tif"):
        drive(ask(tmp_path / "run", OpenLayer(ImageSource.of_file(tmp_path / "bad.tif"))))
    tifffile.imwrite(tmp_path / "good.tif", spots((40, 60)))
    assert ImageSource.of_file(tmp_path / "good.tif", "YX").open().shape == (40, 60)


def test_a_request_that_makes_no_sense_is_refused_when_it_is_made(tmp_path, layer):
    for arguments, message in (
        ({"method": "efcrex"}, "efcrex needs unlabelled images"),
        ({"method": "vex1"}, "vex1 needs extra pairs"),
        ({"method": "efcr", "unlabelled": (layer,)}, "efcr takes no unlabelled images"),
        ({"method": "pixel", "extra": OpenLayer(layer)}, "pixel takes no extra pairs"),
        ({"minutes": 0.0}, "minutes must be"),
        ({"minutes": float("nan")}, "minutes must be"),
        ({"fill_minutes": True}, "say how many"),
    ):
        with pytest.raises(ParameterError, match=message):
            ask(tmp_path, OpenLayer(layer), **arguments)


def test_what_the_computer_cannot_do_is_refused_before_an_image_is_read(tmp_path, layer, base_model, monkeypatch):
    monkeypatch.setattr(session, "open_data", None)
    three = small_config(network=small_network(in_channels=3))
    wide = small_config(network=small_network(expansion=2.0))
    for arguments, kind, message in (
        ({"device": "warp"}, DeviceError, "warp"),
        ({"base": "nobody"}, DeblurError, "nobody"),
        ({"base": base_model, "config": three}, TrainingError, "takes 1 channels, the configuration's network 3"),
        ({"base": base_model, "config": wide}, TrainingError, "another network"),
        ({"preview": PreviewPlane(layer.view, (7,))}, ParameterError, "plane to preview"),
    ):
        with pytest.raises(kind, match=message):
            drive(ask(tmp_path / "run", OpenLayer(layer), **arguments))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000}))
    with pytest.raises(FileError, match="free some space"):
        drive(ask(tmp_path / "run", OpenLayer(layer)))
    assert not (tmp_path / "run").exists()


def test_a_view_is_never_written_to(tmp_path, layer):
    array = spots((40, 60))
    array.flags.writeable = False
    drive(ask(tmp_path, OpenLayer(ImageSource.of_layer("a", ImageView.of(array))), config=small_config(iterations=1)))
