"""Detection as a job: what it yields and returns, and that nothing is ever thrown."""

import json
from dataclasses import replace

import numpy as np
import pytest
from detection.keras_files import write_folder
from napari.components import ViewerModel

from napari_mpt_deblur import average_precision, detect
from napari_mpt_deblur.detection import detection_steps
from napari_mpt_deblur.detection.comparison import compare
from napari_mpt_deblur.errors import FileError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets.detect.job import detect_steps, survey_steps
from napari_mpt_deblur.widgets.detect.outcome import DetectMachinery, DetectStep, Outcome
from napari_mpt_deblur.widgets.detect.request import (
    DetectSettings,
    Planes,
    TruthChoice,
    TruthKind,
    make_detect_request,
)
from napari_mpt_deblur.widgets.stages import Failure, Stage

from .test_job import run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("models") / "tiny", {"prob": 0.6, "nms": 0.3})


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 999, (3, 60, 70)).astype(np.uint16)


def request(model, before, after=None, truth=None, kind=TruthKind.NONE, step=(), **settings):
    """What the panel would ask, with layers of these pixels."""
    viewer = ViewerModel()
    layers = [
        None if data is None else viewer.add_image(data, name=name) for name, data in (("a", before), ("b", after))
    ]
    layer = None
    if truth is not None:
        layer = (viewer.add_labels if kind is TruthKind.LABELS else viewer.add_image)(truth, name="truth")
    for axis, value in enumerate(step):
        viewer.dims.set_current_step(axis, value)
    choice = TruthChoice(kind, layer)
    asked = DetectSettings(layers[0], model, after=layers[1], truth=choice, device="cpu", **settings)
    return make_detect_request(viewer, asked, 1)


def outcome_of(asked):
    _, outcome = run(detect_steps(asked))
    assert isinstance(outcome, Outcome), outcome
    return outcome


def as_one_plane_each(labels):
    """Numbers that begin anew in every plane."""
    return np.stack([np.where(plane > 0, plane - max(plane[plane > 0].min() - 1, 0), 0) for plane in labels])


def test_labels_are_those_of_detect_and_unique_in_the_layer(tiny, image):
    outcome = outcome_of(request(tiny, image))
    labels = outcome.before.labels
    np.testing.assert_array_equal(as_one_plane_each(labels), detect(image, tiny, axes="ZYX", device="cpu"))
    seen = [set(np.unique(plane[plane > 0])) for plane in labels]
    assert all(seen)
    assert not seen[0] & seen[1] | seen[1] & seen[2]
    assert outcome.after is None
    assert outcome.comparison is None
    features = outcome.before.features
    np.testing.assert_array_equal(features["index"], np.unique(labels[labels > 0]))
    assert not set(features) & {"fate", "partners", "unsupported", "right"}
    for number in features["index"][::7]:
        row = np.flatnonzero(features["index"] == number)[0]
        assert features["area_px"][row] == (labels == number).sum()
        assert features["mean_intensity"][row] == pytest.approx(image[labels == number].mean())
        assert features["probability"][row] > 0.6
    assert outcome.record["thresholds"] == {"prob": 0.6, "nms": 0.3}
    json.dumps(outcome.record, allow_nan=False)


def test_steps_count_planes_and_tiles(tiny, image):
    steps, _ = run(detect_steps(request(tiny, image, image[::-1])))
    done = [step for step in steps if isinstance(step, DetectStep)]
    assert [step.done for step in done] == [0, 1, 2, 3, 4, 5, 6]
    assert {step.total for step in done} == {6}
    assert done[-1].text == "After: plane 3 of 3"
    assert all(isinstance(step, (Stage, DetectStep)) for step in steps)


def test_the_comparison_is_that_of_compare(tiny, image):
    after, truth = image[::-1].copy(), detect(image[1], tiny, axes="YX", device="cpu")
    outcome = outcome_of(request(tiny, image, after, truth, TruthKind.LABELS, pooled=False))
    before_labels, after_labels = outcome.before.labels, outcome.after.labels
    spread = np.broadcast_to(truth, image.shape)
    expected = compare(before_labels, after_labels, image, truth=spread, pooled=False)
    assert outcome.comparison.curve == expected.curve
    assert outcome.comparison.ledger.totals() == expected.ledger.totals()
    by = average_precision(spread, before_labels, (0.5,), by="image")[0]
    assert outcome.comparison.curve[0].before == pytest.approx(by)
    assert by >= 1 / 3
    for side, found in (("before", outcome.before), ("after", outcome.after)):
        np.testing.assert_array_equal(
            found.features["fate"], [n.fate for n in getattr(outcome.comparison.ledger, side)]
        )
    assert all(nucleus.probability > 0.6 for nucleus in outcome.comparison.ledger.after)


def test_the_current_plane_alone(tiny, image):
    outcome = outcome_of(request(tiny, image, image[::-1], step=(2,), planes=Planes.CURRENT))
    assert outcome.before.labels.shape == (1, 60, 70)
    np.testing.assert_array_equal(outcome.before.labels[0], detect(image[2], tiny, device="cpu"))
    np.testing.assert_array_equal(outcome.after.labels[0], detect(image[0], tiny, device="cpu"))
    assert outcome.record["plane"] == [2]


def test_a_sharp_image_is_a_reference_of_one_plane_for_all(tiny, image):
    outcome = outcome_of(request(tiny, image, image[::-1], image[1], TruthKind.SHARP_IMAGE))
    assert outcome.comparison.truth == "reference"
    truth = np.broadcast_to(detect(image[1], tiny, device="cpu"), image.shape)
    np.testing.assert_allclose(
        [score.before for score in outcome.comparison.scores], average_precision(truth, outcome.before.labels)
    )


@pytest.mark.parametrize("planes", list(Planes))
def test_the_sharpest_plane_is_a_pseudo_reference(tiny, image, planes):
    smooth = image // 10 + 400
    smooth[2] = image[2]
    asked = request(tiny, smooth, smooth[::-1], kind=TruthKind.SHARPEST_PLANE, step=(1,), planes=planes)
    comparison = outcome_of(asked).comparison
    assert comparison.truth == "pseudo-reference"
    assert "plane Z = 2 of 'a'" in comparison.notes[0]
    labels = outcome_of(asked).before.labels
    truth = np.broadcast_to(detect(image[2], tiny, device="cpu"), labels.shape)
    np.testing.assert_allclose([s.before for s in comparison.scores], average_precision(truth, labels))


def test_each_time_has_its_own_sharpest_plane(tiny, image):
    dull = image // 10 + 400
    series = np.stack([np.stack([image[0], dull[1]]), np.stack([dull[0], image[1]])])
    comparison = outcome_of(request(tiny, series, series.copy(), kind=TruthKind.SHARPEST_PLANE)).comparison
    assert "plane Z = 0, 1 of 'a'" in comparison.notes[0]
    assert comparison.plane_count == 4


def test_channels_that_a_model_takes_together_have_one_sharpest_plane(tmp_path, image):
    model = write_folder(tmp_path / "rgb", {"prob": 0.5, "nms": 0.4}, n_channel_in=3)
    dull = image[:2] // 10 + 400
    channels = np.stack([dull, np.stack([dull[0], image[1]]), dull])  # (C, Z, Y, X): sharp in one channel of Z = 1
    asked = request(model, channels, channels.copy(), kind=TruthKind.SHARPEST_PLANE, planes=Planes.CURRENT)
    asked = replace(
        asked, before=replace(asked.before, axes=Axes("CZYX")), after=replace(asked.after, axes=Axes("CZYX"))
    )
    outcome = outcome_of(asked)
    assert outcome.before.labels.shape == (1, 60, 70)
    assert "plane Z = 1 of 'a'" in outcome.comparison.notes[0]


def test_all_images_are_seen_at_one_scale(tiny, image, monkeypatch):
    """Only the image after states the size of its pixels, which all share."""
    seen = []

    def steps(view, detector, settings):
        seen.append(view.pixel_size_um)
        return (yield from detection_steps(view, detector, settings))

    monkeypatch.setattr("napari_mpt_deblur.detection.run.detection_steps", steps)
    asked = request(tiny, image, image.copy(), image[1], TruthKind.SHARP_IMAGE)
    asked = replace(asked, after=replace(asked.after, pixel_size_um=0.5))
    outcome = outcome_of(asked)
    assert seen == [0.5] * 3
    first = outcome.comparison.ledger.before[0]
    assert first.area_um2 == first.area_px * 0.25


def test_a_mask_is_no_truth(tiny, image):
    mask = np.zeros((60, 70), int)
    mask[5:10, 5:10] = mask[30:40, 30:40] = 1
    _, outcome = run(detect_steps(request(tiny, image, image.copy(), mask, TruthKind.LABELS)))
    assert isinstance(outcome, Failure)
    assert "truth are a mask of 0 and 1" in outcome.message


def test_colours_and_a_model_that_takes_them(tmp_path, image):
    model = write_folder(tmp_path / "rgb", {"prob": 0.5, "nms": 0.4}, n_channel_in=3)
    rgb = np.stack([image[0], image[1], image[2]], axis=-1).astype(np.uint8)
    outcome = outcome_of(request(model, rgb))
    assert outcome.before.labels.shape == (60, 70)
    number = outcome.before.features["index"][0]
    expected = rgb.mean(axis=-1)[outcome.before.labels == number].mean()
    assert outcome.before.features["mean_intensity"][0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("nowhere/at-all", {}, "Cannot read the detection model"),
        (None, {"device": "abacus"}, "device"),
        (None, {"nucleus_diameter_px": 12.0}, "nucleus diameter"),
    ],
)
def test_what_the_user_can_mend_is_told_in_one_line(tiny, image, model, settings, words):
    asked = replace(request(tiny, image), **({} if model is None else {"model": model}))
    if "device" in settings:
        asked = replace(asked, **settings)
    else:
        asked = replace(asked, settings=replace(asked.settings, **settings))
    _, outcome = run(detect_steps(asked))
    assert isinstance(outcome, Failure)
    assert words in outcome.message
    assert "\n" not in outcome.message


def test_a_published_model_is_fetched_and_without_a_network_that_is_one_line(image, tmp_path, monkeypatch):
    def offline(name):
        raise FileError(f"Cannot fetch {name}: without a network, put that file there.")

    monkeypatch.setenv("MPT_DEBLUR_CACHE", str(tmp_path))
    monkeypatch.setattr("napari_mpt_deblur.detection.published.fetch", offline)
    steps, outcome = run(detect_steps(request("2D_demo", image)))
    assert steps[-1] == Stage("Fetching the model '2D_demo'...")
    assert outcome == Failure("Cannot fetch 2D_demo: without a network, put that file there.")


def test_what_breaks_is_told_with_what_to_do(tiny, image, monkeypatch, caplog):
    def breaks(*_, **__):
        raise RuntimeError("shape\nmismatch")

    monkeypatch.setattr("napari_mpt_deblur.detection.run.predict_tiles", breaks)
    _, outcome = run(detect_steps(request(tiny, image)))
    assert outcome.message.startswith("Detection stopped unexpectedly (RuntimeError: shape mismatch). Try again on the")
    assert "Traceback" in caplog.text


def test_an_image_of_nothing_gives_no_nuclei(tiny):
    flat = np.full((2, 40, 50), 7, np.uint8)
    outcome = outcome_of(request(tiny, flat, flat.copy(), np.zeros((40, 50), int), TruthKind.LABELS))
    assert outcome.before.count == outcome.after.count == 0
    assert [score.after for score in outcome.comparison.scores] == [1, 1, 1]


def test_the_survey_finds_devices_and_models(monkeypatch, tmp_path):
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path))
    (tmp_path / "detection").mkdir()
    write_folder(tmp_path / "detection" / "mine")
    (tmp_path / "detection" / "broken.safetensors").write_bytes(b"no model")
    _, machinery = run(survey_steps())
    assert isinstance(machinery, DetectMachinery)
    assert "cpu" in machinery.devices
    problems = {model.name: bool(model.problem) for model in machinery.models}
    assert problems["broken"]
    assert not problems["mine"]
    assert not problems["2D_versatile_fluo"]
