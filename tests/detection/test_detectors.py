"""Detectors: from folders and from files of our own, and the library of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.detection import (
    Detector,
    available_detectors,
    find_detector,
    library,
    load_detector,
    load_folder,
    save_detector,
)
from napari_mpt_deblur.detection.config import Thresholds
from napari_mpt_deblur.detection.prediction import predict
from napari_mpt_deblur.errors import FileError, ModelError


@pytest.fixture
def detector(folder: Path) -> Detector:
    loaded = load_folder(folder, "cpu")
    return replace(loaded, description=replace(loaded.description, nucleus_diameter_px=20.0, licence="CC0"))


@pytest.fixture(autouse=True)
def empty_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("MPT_DEBLUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")


def test_a_folder_is_loaded(folder: Path) -> None:
    detector = load_folder(folder, "cpu")
    assert detector.name == "tiny"
    assert detector.thresholds == Thresholds(0.6, 0.3)
    assert detector.sha256 == hashlib.sha256((folder / "weights_best.h5").read_bytes()).hexdigest()
    assert not detector.network.training
    assert not any(parameter.requires_grad for parameter in detector.network.parameters())


def test_the_weights_that_stardist_would_load(folder: Path) -> None:
    """The newest of the best, or else the newest."""
    content = (folder / "weights_best.h5").read_bytes()
    (folder / "weights_last.h5").write_bytes(b"not these")
    os.utime(folder / "weights_best.h5", (1, 1))
    assert load_folder(folder, "cpu").sha256 == hashlib.sha256(content).hexdigest()
    (folder / "weights_best.h5").rename(folder / "weights_now.h5")
    with pytest.raises(ModelError, match="weights_last"):
        load_folder(folder, "cpu")


def test_a_folder_without_weights_is_said(folder: Path) -> None:
    (folder / "weights_best.h5").unlink()
    with pytest.raises(FileError, match="needs weights_best"):
        load_folder(folder, "cpu")


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 0.02)])
def test_a_saved_detector_computes_the_same(
    tmp_path: Path, detector: Detector, image: np.ndarray, half: bool, tolerance: float
) -> None:
    path = save_detector(tmp_path / "own.safetensors", detector, half=half)
    loaded = load_detector(path, "cpu")
    assert loaded.description == detector.description
    assert (loaded.name, loaded.sha256) == ("own", hashlib.sha256(path.read_bytes()).hexdigest())
    expected, found = (predict(each.network, image[None])[0] for each in (detector, loaded))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert all(values.dtype == torch.float32 for values in loaded.network.state_dict().values())


def test_weights_that_float16_cannot_hold_are_not_saved(tmp_path: Path, detector: Detector) -> None:
    detector.network.layers["prob"].conv.bias.data.fill_(1e6)
    with pytest.raises(ModelError, match="float16"):
        save_detector(tmp_path / "own.safetensors", detector, half=True)
    assert not (tmp_path / "own.safetensors").exists()


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["mpt_deblur_detector"])
    change(description)
    header["__metadata__"]["mpt_deblur_detector"] = json.dumps(description)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["config"].update(n_rays=16), "needs 16 x 6"),
        (lambda values: values["config"].update(unet_n_depth=9), "lacks"),
        (lambda values: values["config"].update(unet_n_depth=1), "unknown weights"),
        (lambda values: values["config"].update(n_dim=3), "3D"),
        (lambda values: values.update(format=2), "update"),
        (lambda values: values.update(colour="red"), "colour"),
        (lambda values: values.pop("config"), "not whole"),
        (lambda values: values.update(thresholds=7), "thresholds"),
        (lambda values: values.update(nucleus_diameter_px=-1), "nucleus_diameter_px"),
        (lambda values: values.update(licence=5), "licence"),
        (lambda values: values.update(training=[]), "training"),
    ],
)
def test_a_file_that_lies_is_refused(
    tmp_path: Path, detector: Detector, change: Callable[[dict[str, object]], object], message: str
) -> None:
    path = save_detector(tmp_path / "own.safetensors", detector)
    rewrite(path, change)
    with pytest.raises(ModelError, match=message) as caught:
        load_detector(path, "cpu")
    assert "\n" not in str(caught.value)


def test_the_other_kind_of_model_is_named(tmp_path: Path, detector: Detector) -> None:
    path = save_detector(tmp_path / "own.safetensors", detector)
    with pytest.raises(ModelError, match="detects nuclei"):
        load_model(path, device="cpu")
    bundled = next((Path(library.__file__).parent.parent / "models").glob("*.safetensors"))
    with pytest.raises(ModelError, match="deblurs"):
        load_detector(bundled, "cpu")


def test_the_library(tmp_path: Path, folder: Path, detector: Detector) -> None:
    own, bundled = tmp_path / "models" / "detection", tmp_path / "bundled"
    own.mkdir(parents=True)
    bundled.mkdir()
    save_detector(bundled / "nuclei.safetensors", detector)
    save_detector(own / "nuclei.safetensors", detector)
    (own / "broken.safetensors").write_bytes(b"x")
    folder.rename(own / "mine")
    (own / "no-model").mkdir()
    found = {(info.name, info.kind): info.problem for info in available_detectors()}
    assert found.pop(("nuclei", "bundled")) == ""
    assert "has its name" in found.pop(("nuclei", "own"))
    assert "safetensors" in found.pop(("broken", "own"))
    assert found.pop(("mine", "own")) == ""
    assert {kind for _, kind in found} == {"published"}
    assert len(found) == 4
    assert load_detector("nuclei", "cpu").description.nucleus_diameter_px == 20
    assert find_detector("mine") == own / "mine"


def test_no_bundled_detector_is_said() -> None:
    with pytest.raises(ModelError, match="none is bundled"):
        load_detector(device="cpu")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match="2D_versatile_fluo"):
        find_detector("nucleii")


@pytest.mark.parametrize("name", ["a/b", "own.safetensors", "a" * 5000 + "/b"])
def test_a_path_that_leads_nowhere_is_said(name: str) -> None:
    with pytest.raises((FileError, ModelError), match=r"check the name|Unknown detection model"):
        find_detector(name)


def test_a_folder_that_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no config\.json"):
        load_detector(tmp_path)
