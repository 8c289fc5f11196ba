"""The job of "Train" against an engine that the test plays, and what the panel says as the engine takes it."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mpt_deblur.checkpoints import ModelConfig, save_model
from napari_mpt_deblur.errors import DivergedError, OutOfMemoryError, ParameterError
from napari_mpt_deblur.images.writing import write_image
from napari_mpt_deblur.training import events
from napari_mpt_deblur.training.events import Estimate, Finished, Losses, Preview, Scores, Started, Step
from napari_mpt_deblur.training.request import FocusStacks, ImagePairs, OpenLayer, SharpImages
from napari_mpt_deblur.widgets.stages import Failure, Stage
from napari_mpt_deblur.widgets.train import job as train_job
from napari_mpt_deblur.widgets.train.folder import EarlierRun, earlier_run, run_folder
from napari_mpt_deblur.widgets.train.job import Before, Comparing, Paused, train_steps
from napari_mpt_deblur.widgets.train.request import make_train_request
from napari_mpt_deblur.widgets.train.result import preview_pixels
from napari_mpt_deblur.widgets.train.settings import PairKind, PairsChoice, TrainSettings

from .train_bench import NETWORK, NUCLEI, Restored

SCORES = Scores(0, 24.0, 20.0, 0.8, 0.7)
STARTED = Started(0, 2, SCORES, Estimate(1.0, 2.0, 1000), (), "cpu", "float32")
FINISHED = Finished(2, "done", Path("best.safetensors"), Path("last.safetensors"), SCORES, SCORES)
LOSSES = Losses(1.0, 1.0)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def layer(viewer):
    return viewer.add_image(np.arange(3 * 70 * 80, dtype=np.uint16).reshape(3, 70, 80), name="my cells!")


@pytest.fixture
def ask(viewer, layer, tmp_path, monkeypatch):
    """A request with these settings; the library is empty but for the model "nuclei"."""
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "models"))

    def make(**settings):
        base = TrainSettings(layer=layer, base=NUCLEI, patch_px=NETWORK.size_multiple)
        return make_train_request(viewer, replace(base, **settings), 1)

    return make


class Engine:
    """Plays `napari_mpt_deblur.training.session`, and `deblur_steps`."""

    def __init__(self, monkeypatch):
        self.requests, self.stops, self.closed, self.models = [], [], threading.Event(), []
        self.error = None
        module = ModuleType("session")
        module.train = self.train
        monkeypatch.setitem(sys.modules, "napari_mpt_deblur.training.session", module)
        monkeypatch.setattr(train_job, "deblur_steps", self.deblur)

    def train(self, request, stop):
        self.requests.append(request)
        try:
            yield events.Stage("Reading...")
            yield STARTED
            for iteration in (1, 2):
                if self.error is not None:
                    raise self.error
                yield Step(iteration, LOSSES, 1e-4)
            return replace(FINISHED, reason="stopped" if stop.is_set() else "done")
        finally:
            self.closed.set()

    def deblur(self, request):
        self.models.append(request.model)
        yield Stage("Reading the model...")
        yield type("Progress", (), {"done": 1, "total": 2})()
        return Restored(np.zeros(request.shape), {"model": request.model})


@pytest.fixture
def engine(monkeypatch):
    return Engine(monkeypatch)


def drive(steps):
    """All that a generator yields, and what it returns."""
    told = []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            return told, end.value


def test_a_run_trains_and_then_restores_the_plane_before_and_after(ask, engine):
    told, outcome = drive(train_steps(ask()))
    assert [type(event) for event in told] == [
        *(Stage, Stage, Stage, Started, Step, Step, Finished),
        *(Comparing, Before, Comparing),
    ]
    assert told[2] == Stage("Reading...")
    assert engine.models == ["nuclei", "best.safetensors"]
    assert (told[-2].restored.record, outcome.record) == ({"model": "nuclei"}, {"model": "best.safetensors"})
    (request,) = engine.requests
    assert request.base == "nuclei"
    assert isinstance(request.pairs, OpenLayer)
    assert request.unlabelled == (request.pairs.image,)
    assert not request.restart


def test_from_scratch_there_is_no_before(ask, engine):
    told, outcome = drive(train_steps(ask(base=None, patch_px=128)))
    assert not any(isinstance(event, Before) for event in told)
    assert outcome.record == {"model": "best.safetensors"}
    assert engine.models == ["best.safetensors"]


def test_a_pause_asks_the_engine_for_nothing(ask, engine):
    request = ask()
    steps = train_steps(request)
    for event in steps:
        if isinstance(event, Started):
            break
    request.control.pause()
    assert [next(steps) for _ in range(3)] == [Paused()] * 3
    request.control.resume()
    assert next(steps) == Step(1, LOSSES, 1e-4)
    request.control.pause()
    request.control.stop.set()  # ends a pause, too
    told, _ = drive(steps)
    assert next(event for event in told if isinstance(event, Finished)).reason == "stopped"


def test_closing_the_job_closes_the_engine_which_saves(ask, engine):
    steps = train_steps(ask())
    for event in steps:
        if isinstance(event, Step):
            break
    assert not engine.closed.is_set()
    steps.close()
    assert engine.closed.is_set()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError("Choose a smaller patch."), "Choose a smaller patch."),
        (MemoryError(), "The memory is full: choose a smaller patch or batch, or remove other layers."),
        (RuntimeError("shape\nmismatch"), "Training stopped unexpectedly (RuntimeError: shape mismatch)."),
    ],
)
def test_no_exception_leaves_a_run(ask, engine, error, message):
    engine.error = error
    told, outcome = drive(train_steps(ask()))
    assert isinstance(told[-1], Started)
    assert isinstance(outcome, Failure)
    assert outcome.message.startswith(message)
    assert engine.closed.is_set()


def test_what_was_learnt_before_the_loss_was_no_number_can_be_used(ask, engine):
    engine.error = DivergedError("The loss is not finite.")
    assert drive(train_steps(ask()))[1] == Failure("The loss is not finite.")  # nothing was learnt
    engine.error.kept = replace(FINISHED, reason="diverged")
    told, outcome = drive(train_steps(ask()))
    assert engine.error.kept in told
    assert outcome.record == {"model": "best.safetensors"}


def test_a_comparison_that_fails_comes_after_what_was_learnt(ask, engine, monkeypatch):
    def fails(request):
        yield Stage("Reading the model...")
        return Failure("The memory is full.")

    monkeypatch.setattr(train_job, "deblur_steps", fails)
    told, outcome = drive(train_steps(ask()))
    assert isinstance(told[-1], Finished)
    assert outcome == Failure("The memory is full.")


# -- the request ---------------------------------------------------------------------------------------------------


def folder_of(tmp_path, name, count=2):
    folder = tmp_path / name
    folder.mkdir()
    for i in range(count):
        write_image(folder / f"{i}.tif", np.full((70, 80), i, np.uint16), "YX")
    return folder


def test_pairs_of_every_kind_as_the_engine_takes_them(ask, viewer, layer, tmp_path):
    sharp = viewer.add_image(np.zeros((70, 80)), name="sharp")
    folder, other = folder_of(tmp_path, "a"), folder_of(tmp_path, "b")

    def pairs(kind, *images):
        return ask(pairs=PairsChoice(kind, images)).resolve(tmp_path).pairs

    layers = pairs(PairKind.PAIRS, layer, sharp)
    assert isinstance(layers, ImagePairs)
    assert [source.name for source in (*layers.blurred, *layers.sharp)] == ["my cells!", "sharp"]
    folders = pairs(PairKind.PAIRS, folder, other)
    assert isinstance(folders, ImagePairs)
    assert [source.path for source in folders.sharp] == [other / "0.tif", other / "1.tif"]
    images = pairs(PairKind.SHARP, folder)
    assert isinstance(images, SharpImages)
    assert len(images.images) == 2
    stacks = pairs(PairKind.STACK, layer)
    assert isinstance(stacks, FocusStacks)
    assert stacks.stacks[0].view.axes.text == "ZYX"


def test_extra_data_and_unlabelled_images_go_with_their_methods_only(ask, layer, tmp_path):
    folder = folder_of(tmp_path, "a")
    extra = PairsChoice(PairKind.SHARP, (folder,))
    request = ask(method="efcrex_labelled", extra=extra).resolve(tmp_path)
    assert isinstance(request.extra, SharpImages)
    assert request.unlabelled == ()
    request = ask(method="efcrex", extra=extra, unlabelled=folder).resolve(tmp_path)
    assert request.extra is None
    assert [source.path for source in request.unlabelled] == [folder / "0.tif", folder / "1.tif"]
    for method in ("efcr", "pixel"):
        request = ask(method=method).resolve(tmp_path)
        assert (request.extra, request.unlabelled) == (None, ())
        assert request.config.contrast.method == method


def test_numbers_reach_the_configuration(ask, tmp_path):
    request = ask(iterations=8, learning_rate=3e-4, beta=0.5, patch_px=128, batch=3, minutes=2.0, go_on=False)
    training = request.resolve(tmp_path)
    config = training.config
    assert (config.iterations, config.learning_rate, config.contrast.beta) == (8, 3e-4, 0.5)
    assert (config.patch_px, config.batch, config.network) == ((128,), (3,), NETWORK)
    assert (training.minutes, training.fill_minutes, training.restart) == (2.0, True, True)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pairs": PairsChoice(PairKind.PAIRS, (None, None))}, "Choose the blurred side of the labelled pairs"),
        ({"pairs": PairsChoice(PairKind.STACK, (None,))}, "Choose a focus stack for the labelled pairs"),
        ({"pairs": PairsChoice(PairKind.PAIRS, (Path("a"), Path("a")))}, "are the same"),
        ({"method": "efcrex_labelled"}, "needs extra data"),
        ({"method": "efcrex_labelled", "extra": PairsChoice(PairKind.SHARP, (None,))}, "sharp images for the extra"),
        ({"base": replace(NUCLEI, problem="it is damaged.")}, "cannot be used: it is damaged"),
        ({"layer": None}, "There is no image to train for"),
    ],
)
def test_what_is_missing_is_told(ask, settings, reason):
    with pytest.raises(ParameterError, match=reason):
        ask(**settings)


def test_a_layer_and_a_folder_make_no_pairs(ask, layer, tmp_path):
    with pytest.raises(ParameterError, match="two layers or two folders"):
        ask(pairs=PairsChoice(PairKind.PAIRS, (layer, tmp_path)))


def test_an_empty_folder_is_told_by_the_run_before_it_begins(ask, engine, tmp_path):
    (tmp_path / "empty").mkdir()
    told, outcome = drive(train_steps(ask(pairs=PairsChoice(PairKind.SHARP, (tmp_path / "empty",)))))
    assert "holds no image" in outcome.message
    assert not engine.requests
    assert all(isinstance(event, Stage) for event in told)


def test_the_preview_is_the_middle_of_what_is_in_view(viewer, ask):
    big = viewer.add_image(np.zeros((2, 1200, 900), np.uint8), name="big")
    viewer.dims.set_current_step(0, 1)
    viewer.fit_to_view()
    request = ask(layer=big)
    y0, x0, y1, x1 = request.preview.region
    assert (y1 - y0, x1 - x0) == (512, 512)
    assert request.preview.plane_index == (1,)
    assert request.preview_plane.region_px == request.preview.region
    assert request.whole_plane.region_px is None
    assert request.whole_plane.shape == (1, 1200, 900)


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "expected"),
    [
        (np.uint8, (2, 70, 80), 300.4, 255),
        (np.int16, (2, 70, 80), -3.6, -4),
        (np.float32, (70, 80), 0.25, 0.25),
        (np.uint8, (70, 80, 3), 7.6, 8),
        (np.uint8, (70, 80, 4), 7.6, 8),
    ],
)
def test_previews_have_the_dtype_of_their_image(viewer, ask, dtype, shape, value, expected):
    request = ask(layer=viewer.add_image(np.ones(shape, dtype), name="other"))
    colours = (3,) if shape[-1] in (3, 4) else ()
    pixels = preview_pixels(Preview(1, np.full((1, 70, 80, *colours), value, np.float32)), request)
    assert pixels.dtype == dtype
    assert pixels.shape == request.preview_plane.shape
    assert (pixels[..., :3] == dtype(expected)).all()
    if shape[-1] == 4:
        assert (pixels[..., 3] == 255).all()


# -- the folder of a run -------------------------------------------------------------------------------------------


def test_the_same_settings_on_the_same_images_find_the_same_folder(ask, viewer, layer, tmp_path):
    folder = run_folder(ask())
    assert folder.parent == tmp_path / "models" / "training"
    assert folder.name.startswith("my-cells-")
    assert run_folder(ask(iterations=3, minutes=5.0, device="cpu", go_on=False)) == folder
    images = folder_of(tmp_path, "a")
    settings = [{"learning_rate": 1e-3}, {"batch": 1}, {"method": "efcr"}, {"base": None, "patch_px": 128}]
    settings += [{"axes": "TYX"}, {"unlabelled": images}, {"pairs": PairsChoice(PairKind.STACK, (layer,))}]
    folders = {folder, *(run_folder(ask(**others)) for others in settings)}
    write_image(images / "0.tif", np.full((70, 81), 5, np.uint16), "YX", overwrite=True)
    folders.add(run_folder(ask(unlabelled=images)))
    layer.data = layer.data + 1  # another image of that name and size
    folders.add(run_folder(ask()))
    assert len(folders) == 1 + len(settings) + 2


def test_an_earlier_run_is_found_by_what_it_wrote(tmp_path):
    from napari_mpt_deblur.networks.mpt import MPT

    assert earlier_run(tmp_path) is None
    (tmp_path / "state.pt").write_bytes(b"state")
    assert earlier_run(tmp_path) is None
    recipe = {"iterations": 230, "config": {"iterations": 500}}
    save_model(tmp_path / "last.safetensors", MPT(NETWORK), ModelConfig(NETWORK, training=recipe))
    assert earlier_run(tmp_path) == EarlierRun(230, 500)
    (tmp_path / "last.safetensors").write_bytes(b"damaged")
    assert earlier_run(tmp_path) is None
