"""Models that only StarDist itself can run, with a StarDist that is none in place of TensorFlow's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_mpt_deblur import detect
from napari_mpt_deblur.detection import available_detectors, detection_steps, folder, library, load_detector
from napari_mpt_deblur.detection.detected import Detected
from napari_mpt_deblur.detection.through_tensorflow import TensorFlowDetector
from napari_mpt_deblur.errors import ModelError, ParameterError
from napari_mpt_deblur.images import ImageView

Make = Callable[..., Path]


class Model:
    """What is brighter than the threshold and in one piece is a nucleus."""

    def __init__(self, config: None, *, name: str, basedir: str) -> None:
        assert (Path(basedir) / name / "config.json").is_file()
        print("Loading network weights")  # as StarDist does
        self.thresholds = SimpleNamespace(prob=0.6, nms=0.3)
        self.config = SimpleNamespace(n_channel_in=3 if name == "colours" else 1)
        self.seen: list[tuple[str, Any]] = []

    def predict_instances(self, image: np.ndarray, *, axes: str, n_tiles: Any, **options: Any) -> Any:
        assert len(axes) == image.ndim == len(n_tiles)
        assert options == {"prob_thresh": 0.6, "nms_thresh": 0.3, "show_tile_progress": False}
        self.seen.append((axes, n_tiles))
        grey = image.mean(axis=-1) if axes.endswith("C") else image
        labels, count = ndimage.label(grey > 0.6)
        centres = ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))
        points = np.array(centres).reshape(count, labels.ndim)
        return labels, {"prob": np.full(count, 0.9), "points": points}


@pytest.fixture
def stardist(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow is there, it seems."""
    module = ModuleType("stardist.models")
    module.StarDist2D = module.StarDist3D = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stardist.models", module)
    for user in (folder, library):
        monkeypatch.setattr(user, "has_tensorflow", lambda: True)


@pytest.fixture
def volumes(make_folder: Make) -> Path:
    return make_folder("volumes", n_dim=3, axes="ZYXC", backbone="resnet")


def blocks(*shape: int) -> np.ndarray:
    """(..., Z, Y, X) with a nucleus through planes 0 and 1, one through 1 and 2, and one in 2."""
    image = np.zeros((4, 20, 24), np.uint16)
    image[0:2, 2:6, 2:6], image[1:3, 10:15, 3:8], image[2, 3:7, 15:20] = 900, 800, 700
    return np.broadcast_to(image, (*shape, 4, 20, 24)).copy()


def drained(detector: Any, view: Any) -> tuple[list[tuple[int, int]], Detected]:
    steps, seen = detection_steps(view, detector), []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return seen, end.value
        seen.append((step.done, step.total))


def test_without_tensorflow_it_is_refused_by_name(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "has_tensorflow", lambda: False)
    monkeypatch.setitem(sys.modules, "stardist.models", None)
    with pytest.raises(ModelError, match=r"for 3D images.*napari-mpt-deblur\[tensorflow\]"):
        load_detector(volumes, "cpu")


def test_a_nucleus_of_a_volume_has_one_number_in_all_planes(
    stardist: None, volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = load_detector(volumes, "cpu")
    assert isinstance(detector, TensorFlowDetector)
    assert (detector.n_dim, detector.thresholds.prob, len(detector.sha256)) == (3, 0.6, 64)
    steps, detected = drained(detector, ImageView.of(blocks(2), "TZYX"))
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(detected.labels[1], ndimage.label(blocks() > 0)[0])
    np.testing.assert_array_equal(detected.labels[0], detected.labels[1])
    assert (detected.labels.dtype, detected.axes, detected.count) == (np.int32, "TZYX", 6)
    assert steps == [(4, 8), (8, 8)]
    assert list(detected.planes) == list(np.ndindex(2, 4))
    assert detected.probabilities[1, 2] == pytest.approx(0.9)
    assert np.shares_memory(detected.planes[1, 2].labels, detected.labels)
    assert detector.model.seen == [("ZYX", (1, 1, 1))] * 2
    np.testing.assert_array_equal(detect(blocks(), volumes, axes="ZYX"), detected.labels[0])


def test_planes_and_colours(stardist: None, make_folder: Make) -> None:
    flat = load_detector(make_folder("flat", unet_activation="mish"), "cpu")
    assert isinstance(flat, TensorFlowDetector)
    assert flat.n_dim == 2
    steps, detected = drained(flat, ImageView.of(blocks(), "ZYX"))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [int(plane.max()) for plane in detected.labels] == [1, 2, 2, 0]
    assert detected.count == 5
    colours = make_folder("colours", unet_activation="mish", n_channel_in=3)
    rgb = np.repeat(blocks()[1][..., None] // 4, 3, -1).astype(np.uint8)
    np.testing.assert_array_equal(detect(rgb, colours), detected.labels[1])


def test_large_images_go_through_in_tiles(stardist: None, volumes: Path) -> None:
    detector = load_detector(volumes, "cpu")
    drained(detector, ImageView.of(np.random.default_rng(0).random((2, 300, 20)), "ZYX"))
    assert detector.model.seen == [("ZYX", (1, 2, 1))]


@pytest.mark.parametrize("image", [np.zeros((3, 20, 24)), np.full((3, 20, 24), 7, np.uint8)])
def test_a_constant_volume_has_no_nuclei(stardist: None, volumes: Path, image: np.ndarray) -> None:
    assert not detect(image, volumes, axes="ZYX").any()


def test_what_cannot_be_is_said_in_a_line(stardist: None, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="one for volumes: give it a z-stack"):
        detect(blocks()[0], volumes, axes="YX")
    with pytest.raises(ParameterError, match="does not say for which nucleus diameter"):
        detect(blocks(), volumes, axes="ZYX", nucleus_diameter_px=9.0)

    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("OOM when allocating\ntensor")

    monkeypatch.setattr(Model, "predict_instances", breaks)
    with pytest.raises(ModelError, match="RuntimeError: OOM when allocating") as caught:
        detect(blocks(), volumes, axes="ZYX")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(Model, "__init__", breaks)
    with pytest.raises(ModelError, match="StarDist itself cannot load the model"):
        load_detector(volumes, "cpu")


def test_it_is_listed_as_usable_where_tensorflow_is(
    stardist: None, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path))
    (tmp_path / "detection").mkdir()
    volumes.rename(tmp_path / "detection" / "mine")
    (info,) = (info for info in available_detectors() if info.name == "mine")
    assert (info.problem, info.description) == ("", None)
    monkeypatch.setattr(library, "has_tensorflow", lambda: False)
    (info,) = (info for info in available_detectors() if info.name == "mine")
    assert "3D" in info.problem
