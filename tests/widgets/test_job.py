"""The job: what it yields and returns, and that nothing is ever thrown."""

import re

import numpy as np
import pytest
import torch

import napari_mpt_deblur.checkpoints as checkpoints
from napari_mpt_deblur.errors import ModelError, OutOfMemoryError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.restoration import Progress, Restored
from napari_mpt_deblur.widgets.deblur.job import (
    Machinery,
    Outlook,
    deblur_steps,
    estimate_steps,
    import_steps,
    survey_steps,
)
from napari_mpt_deblur.widgets.deblur.request import DeblurRequest, ImportRequest
from napari_mpt_deblur.widgets.stages import Failure, Stage, failure


def run(steps):
    """What a generator yields, and what it returns."""
    yielded = []
    while True:
        try:
            yielded.append(next(steps))
        except StopIteration as stop:
            return yielded, stop.value


def request(data, model="tiny", plane=None, region=None, **kwargs):
    axes = Axes("ZYX"[-data.ndim :])
    values = {"device": "cpu", "precision": "float32", "tile_px": None} | kwargs
    return DeblurRequest(
        generation=1,
        source_name="cells",
        data=data,
        axes=axes,
        pixel_size_um=0.5,
        nucleus_diameter_px=12.0,
        model=model,
        plane_index=plane,
        region_px=region,
        **values,
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    from napari_mpt_deblur.networks.config import MPTConfig
    from napari_mpt_deblur.networks.mpt import MPT

    config = MPTConfig.tiny()
    model_config = checkpoints.ModelConfig(config)
    checkpoints.save_model(tmp_path / "tiny.safetensors", MPT(config), model_config)
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path))
    return tmp_path


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 999, (3, 40, 50)).astype(np.uint16)


def test_stages_then_tiles_then_the_result(tiny, image):
    steps, restored = run(deblur_steps(request(image)))
    stages = [step for step in steps if isinstance(step, Stage)]
    tiles = [step for step in steps if isinstance(step, Progress)]
    assert steps == stages + tiles
    assert [(step.done, step.measuring) for step in tiles[:2]] == [(0, True), (0, False)]
    assert tiles[-1].done == tiles[-1].total == 3  # small planes go in one batch
    assert isinstance(restored, Restored)
    assert restored.array.shape == image.shape
    assert restored.record["pixel_size_um"] == 0.5
    assert restored.record["nucleus_diameter_px"] == 12.0


def test_a_plane_and_a_region(tiny, image):
    wanted = request(image, plane=(2,), region=(5, 6, 25, 36))
    _, part = run(deblur_steps(wanted))
    _, whole = run(deblur_steps(request(image)))
    np.testing.assert_array_equal(part.array.reshape(wanted.shape), whole.array[2:3, 5:25, 6:36])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"model": "nowhere"}, "Unknown model 'nowhere'"),
        ({"precision": "float7"}, "choose auto"),
        ({"device": "abacus"}, "device"),
        ({"tile_px": -3}, "tile must be"),
    ],
)
def test_what_the_user_can_mend_is_told_in_one_line(tiny, image, kwargs, words):
    _, outcome = run(deblur_steps(request(image, **kwargs)))
    assert isinstance(outcome, Failure)
    assert words in outcome.message
    assert "\n" not in outcome.message


def test_own_errors_speak_for_themselves_and_leave_no_traceback(caplog):
    assert failure(OutOfMemoryError("Choose a smaller tile.")).message == "Choose a smaller tile."
    assert caplog.text == ""


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), ZeroDivisionError(), MemoryError("17 GB")])
def test_other_errors_say_what_to_do_and_go_into_the_log(caplog, error):
    try:
        raise error
    except Exception as caught:
        message = failure(caught).message
    assert "\n" not in message
    assert any(words in message for words in ("Try again", "restore the current plane"))
    assert "Traceback" in caplog.text


def test_the_survey_finds_devices_and_models(tiny):
    (tiny / "broken.safetensors").write_bytes(b"no model")
    _, machinery = run(survey_steps())
    assert isinstance(machinery, Machinery)
    assert "float32" in machinery.precisions["cpu"]
    assert machinery.default_device in machinery.precisions
    problems = {model.name: bool(model.problem) for model in machinery.models}
    assert problems["broken"]
    assert not problems["tiny"]


def test_a_model_that_breaks_on_loading_does_not_break_the_survey(tiny, monkeypatch):
    def refused(*_):
        raise ModelError("damaged")

    monkeypatch.setattr("napari_mpt_deblur.checkpoints.loading.load_model", refused)
    _, machinery = run(survey_steps())
    assert isinstance(machinery, Machinery)


def test_an_estimate_says_tiles_time_and_memory_of_what_was_asked_for(tiny, image):
    words = r"{} tiles?, about \d+ s and 0\.\d GB of memory"
    for asked, tiles in ((request(image), 3), (request(image, plane=(1,)), 1)):
        _, outlook = run(estimate_steps(asked))
        assert isinstance(outlook, Outlook)
        assert re.fullmatch(words.format(tiles), outlook.text)


def test_a_model_is_loaded_again_only_where_its_file_is_another(tiny, image, monkeypatch):
    from napari_mpt_deblur.checkpoints import loading

    load_model, loaded = loading.load_model, []
    monkeypatch.setattr(loading, "load_model", lambda name, **given: loaded.append(name) or load_model(name, **given))
    for tile in (None, 64):
        run(estimate_steps(request(image, plane=(0,), tile_px=tile)))
    _, first = run(deblur_steps(request(image, plane=(0,))))
    assert loaded == ["tiny"]
    changed = load_model("tiny", device="cpu")
    with torch.no_grad():
        changed.network.output.weight.fill_(0.1)
    checkpoints.save_model(tiny / "tiny.safetensors", changed.network, changed.config, overwrite=True)
    _, second = run(deblur_steps(request(image, plane=(0,))))
    assert loaded == ["tiny"] * 2
    assert first.record["model"]["sha256"] != second.record["model"]["sha256"]
    assert second.record["model"]["sha256"] == load_model("tiny", device="cpu").sha256
    assert not np.array_equal(first.array, second.array)


def test_an_estimate_that_cannot_be_made_says_why(tiny, image):
    _, outlook = run(estimate_steps(request(image, model="nobody")))
    assert isinstance(outlook, Failure)
    assert "nobody" in outlook.message


def test_what_was_asked_of_an_import_is_what_it_does(tiny, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("napari_mpt_deblur.checkpoints.importing.import_checkpoint", lambda *a, **b: asked.update(b))
    asking = ImportRequest(tmp_path / "a.pth", "a", "full", False, ("1/2,1", "1,1", "1,1", "1,1"))
    assert run(import_steps(asking))[1] is None
    assert asked == {"intensities": "full", "clip": False, "scales": ((0.5, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))}
    _, outcome = run(import_steps(ImportRequest(tmp_path / "a.pth", "a", scales=("1/0",))))
    assert "1/8,1/4,1" in outcome.message


def test_weights_of_others_become_a_model(tiny, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save({"code": 1}, path)
    yielded, outcome = run(import_steps(ImportRequest(path, "theirs")))
    assert yielded == [Stage("Importing theirs.pth...")]
    assert isinstance(outcome, Failure)
    assert "theirs.pth" in outcome.message
    assert not list(tmp_path.glob("theirs*.safetensors"))
