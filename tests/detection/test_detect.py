"""`detect`: axes, scales, thresholds, images without nuclei and images of another kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_mpt_deblur
from napari_mpt_deblur.detection import (
    Detected,
    DetectionProgress,
    DetectionSettings,
    Detector,
    detection_steps,
    load_folder,
)
from napari_mpt_deblur.detection.detect import detect
from napari_mpt_deblur.errors import AxesError, ModelError, ParameterError
from napari_mpt_deblur.images import ImageView

Make = Callable[..., Path]


@pytest.fixture
def detector(make_folder: Make) -> Detector:
    return load_folder(make_folder(), "cpu")


@pytest.fixture
def prob(detector: Detector, image: np.ndarray) -> float:
    """A threshold that a good part of the image passes."""
    from napari_mpt_deblur.detection.prediction import predict

    low, high = np.percentile(image, (1, 99.8))
    return float(np.quantile(predict(detector.network, (image[None] - low) / (high - low))[0], 0.7))


def drained(steps: Generator[DetectionProgress, None, Detected]) -> Detected:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_it_is_the_package_s_own() -> None:
    assert napari_mpt_deblur.detect is detect
    assert napari_mpt_deblur.detect is detect, "and stays so once its module was imported"


def test_planes_are_images_of_their_own(detector: Detector, image: np.ndarray, prob: float) -> None:
    alone = detect(image, detector, prob=prob)
    assert (alone.shape, alone.dtype) == ((75, 61), np.int32)
    assert alone.max() > 5
    stack = np.stack([image * 1000, image[::-1] * 3 + 100])
    labels = detect(stack, detector, axes="ZYX", prob=prob)
    np.testing.assert_array_equal(labels[0], alone)
    np.testing.assert_array_equal(labels[1], detect(image[::-1], detector, prob=prob))
    assert not np.array_equal(labels[1], alone[::-1])


@pytest.mark.parametrize("axes", ["TYX", "CYX"])
def test_every_channel_and_time_too(detector: Detector, image: np.ndarray, prob: float, axes: str) -> None:
    labels = detect(np.stack([image] * 2), detector, axes=axes, prob=prob)
    np.testing.assert_array_equal(labels[0], labels[1])
    assert labels.max() > 5


@pytest.mark.parametrize("tile", [8, 33])
def test_tiles_do_not_matter(detector: Detector, image: np.ndarray, prob: float, tile: int) -> None:
    np.testing.assert_array_equal(detect(image, detector, prob=prob, tile=tile), detect(image, detector, prob=prob))


def test_thresholds_may_be_numbers_of_numpy(detector: Detector, image: np.ndarray, prob: float) -> None:
    expected = detect(image, detector, prob=prob, nms=0.5)
    np.testing.assert_array_equal(detect(image, detector, prob=np.float64(prob), nms=np.float32(0.5)), expected)


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_a_constant_plane_has_no_nuclei(detector: Detector, image: np.ndarray, prob: float, value: float) -> None:
    labels = detect(np.stack([np.full_like(image, value), image]), detector, prob=prob)
    assert not labels[0].any()
    assert labels[1].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3)])
def test_tiny_images(detector: Detector, shape: tuple[int, int]) -> None:
    labels = detect(np.random.default_rng(0).random(shape), detector, prob=0.01)
    assert labels.shape == shape


def test_pixels_that_are_not_finite_do_not_spread(detector: Detector, image: np.ndarray, prob: float) -> None:
    holed = image.copy()
    holed[:3, :3] = np.nan
    far = np.s_[60:, 50:]
    expected = detect(np.where(np.isnan(holed), np.nanpercentile(holed, 1), holed), detector, prob=prob)
    np.testing.assert_array_equal(detect(holed, detector, prob=prob)[far] > 0, expected[far] > 0)


def test_the_thresholds_are_the_model_s_unless_told(make_folder: Make, image: np.ndarray, prob: float) -> None:
    own = load_folder(make_folder("own", thresholds={"prob": prob, "nms": 0.3}), "cpu")
    np.testing.assert_array_equal(detect(image, own), detect(image, own, prob=prob, nms=0.3))
    assert not detect(image, own, prob=0.9999).any()
    assert detect(image, own, nms=0.9).max() > detect(image, own).max()


def test_the_image_is_brought_to_the_model_s_scale(detector: Detector, image: np.ndarray, prob: float) -> None:
    """An enlarged image with enlarged nuclei has the same nuclei, enlarged."""
    knowing = replace(detector, description=replace(detector.description, nucleus_diameter_px=10.0, pixel_size_um=0.5))
    image = image[:72, :60]
    large = image.repeat(2, 0).repeat(2, 1)
    expected = detect(image, knowing, prob=prob)
    for settings in ({"nucleus_diameter_px": 20.0}, {"pixel_size_um": 0.25}):
        labels = detect(large, knowing, prob=prob, **settings)
        assert labels.shape == large.shape
        agreement = ((labels > 0)[::2, ::2] == (expected > 0)).mean()
        assert agreement > 0.8
        assert abs(int(labels.max()) - int(expected.max())) <= 0.25 * expected.max()
    same = detect(image, knowing, prob=prob, nucleus_diameter_px=10.0)
    np.testing.assert_array_equal(same, expected)


@pytest.mark.parametrize(
    ("stated_um", "scale"), [(None, 1), (0.5, 1), (0.3, 1), (1.0, 1), (0.2, 0.4), (1.5, 3), (500.0, 1), (0.01, 1)]
)
def test_a_stated_pixel_size_counts_where_it_is_far_from_the_model_s(
    detector: Detector, image: np.ndarray, stated_um: float | None, scale: float
) -> None:
    knowing = replace(detector, description=replace(detector.description, pixel_size_um=0.5))
    view = ImageView.of(image, pixel_size_um=stated_um)
    assert drained(detection_steps(view, knowing)).scale == pytest.approx(scale)
    assert drained(detection_steps(view, detector)).scale == 1  # a model that knows no scale
    told = DetectionSettings(pixel_size_um=0.25)
    assert drained(detection_steps(view, knowing, told)).scale == pytest.approx(0.5)  # what was said comes first


@pytest.mark.parametrize("setting", [{"nucleus_diameter_px": 20.0}, {"pixel_size_um": 0.3}])
def test_a_model_that_knows_no_scale_says_so(detector: Detector, image: np.ndarray, setting: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="does not say for which"):
        detect(image, detector, **setting)


def test_a_slip_of_the_pen_is_no_scale(detector: Detector, image: np.ndarray) -> None:
    knowing = replace(detector, description=replace(detector.description, nucleus_diameter_px=10.0))
    with pytest.raises(ParameterError, match="check its nucleus_diameter_px"):
        detect(image, knowing, nucleus_diameter_px=0.1)


def test_colours_go_in_together(make_folder: Make, image: np.ndarray) -> None:
    detector = load_folder(make_folder("colours", n_channel_in=3), "cpu")
    rgb = np.stack([image, image[::-1], image[:, ::-1]], -1)
    labels = detect((255 * rgb).astype(np.uint8), detector, prob=0.3)
    assert labels.shape == image.shape
    channels = detect(np.moveaxis((255 * rgb).astype(np.uint8), -1, 0), detector, axes="CYX", prob=0.3)
    np.testing.assert_array_equal(labels, channels)
    assert labels.any()
    alpha = np.concatenate([(255 * rgb).astype(np.uint8), np.zeros((75, 61, 1), np.uint8)], -1)
    np.testing.assert_array_equal(detect(alpha, detector, prob=0.3), labels)


def test_an_image_of_another_kind_is_refused(make_folder: Make, detector: Detector, image: np.ndarray) -> None:
    colours = load_folder(make_folder("colours", n_channel_in=3), "cpu")
    with pytest.raises(ModelError, match=r"takes RGB images.*2D_versatile_fluo"):
        detect(image, colours)
    with pytest.raises(ModelError, match=r"takes grey images.*2D_versatile_he"):
        detect(np.stack([image] * 3, -1), detector, axes="YXS")
    with pytest.raises(ModelError, match="has 2 channels"):
        detect(np.stack([image] * 2), colours, axes="CYX")


@pytest.mark.parametrize(
    "settings",
    [
        {"prob": 0.0},
        {"prob": 1.0},
        {"nms": -1},
        {"nms": float("nan")},
        {"percentiles": (50.0, 50.0)},
        {"percentiles": (1.0, 101.0)},
        {"nucleus_diameter_px": 0.0},
        {"pixel_size_um": float("inf")},
        {"tile": 0},
        {"model": 7},
    ],
)
def test_nonsense_is_refused(detector: Detector, image: np.ndarray, settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        detect(image, **({"model": detector} | settings))


def test_axes_that_do_not_fit_are_refused(detector: Detector, image: np.ndarray) -> None:
    with pytest.raises(AxesError):
        detect(image, detector, axes="ZYX")


def test_steps_count_the_tiles_of_all_planes(detector: Detector, image: np.ndarray) -> None:
    view = ImageView.of(np.stack([image] * 3))
    steps = detection_steps(view, detector, DetectionSettings(tile_px=32))
    assert [(step.done, step.total) for step in steps] == [(n + 1, 18) for n in range(18)]


def test_a_run_can_be_left(detector: Detector, image: np.ndarray) -> None:
    with closing(detection_steps(np.stack([image] * 3), detector, DetectionSettings(tile_px=32))) as steps:
        assert next(steps).done == 1


def test_objects_come_with_their_probability_and_place(detector: Detector, image: np.ndarray, prob: float) -> None:
    detected = drained(detection_steps(np.stack([image] * 2), detector, DetectionSettings(prob=prob)))
    assert detected.axes == "ZYX"
    plane = detected.planes[(1,)]
    assert np.shares_memory(plane.labels, detected.labels)
    assert (plane.prob > prob).all()
    assert (np.diff(plane.prob) <= 0).all()
    assert len(plane.prob) == len(plane.points) == len(plane.dist) >= plane.labels.max() > 5
    visible = [i for i in range(len(plane.prob)) if plane.labels[tuple(plane.points[i].astype(int))] == i + 1]
    assert len(visible) > 0.5 * len(plane.prob)


def test_no_tensorflow_is_imported(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    program = (
        "import sys, numpy\n"
        "for name in ('tensorflow', 'keras', 'stardist.models', 'csbdeep.models'): sys.modules[name] = None\n"
        "from napari_mpt_deblur import detect\n"
        "labels = detect(numpy.random.default_rng(0).random((64, 64)), sys.argv[1], prob=0.1)\n"
        "assert labels.any()\n"
        "loaded = {name.partition('.')[0] for name, module in sys.modules.items() if module is not None}\n"
        "assert not loaded & {'tensorflow', 'keras'}, loaded\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("module", ["detection", "detection.library", "detection.config", "detection.layout"])
def test_listing_models_does_not_wait_for_torch(module: str) -> None:
    program = (
        f"import sys, napari_mpt_deblur.{module}\n"
        "from napari_mpt_deblur.detection import available_detectors\n"
        "available_detectors()\n"
        "print(*({'torch', 'h5py', 'stardist', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "\n", done.stderr
