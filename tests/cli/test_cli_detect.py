from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from detection.keras_files import TINY, random_weights, write_keras
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.detection import detect as detect_module
from napari_mpt_deblur.detection import library
from napari_mpt_deblur.images import read_image, write_image


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A StarDist folder; nothing is bundled or fetched."""
    monkeypatch.setenv("MPT_DEBLUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY))
    (folder / "thresholds.json").write_text('{"prob": 0.3, "nms": 0.4}')
    write_keras(folder / "weights_best.h5", random_weights(TINY))
    return folder


@pytest.fixture
def pixels() -> np.ndarray:
    """(2, 40, 48) uint16."""
    smooth = gaussian_filter(np.random.default_rng(0).random((2, 40, 48)), (0, 2, 2))
    return (5000 * smooth).astype(np.uint16)


@pytest.fixture
def stack(tmp_path: Path, pixels: np.ndarray) -> Path:
    return write_image(tmp_path / "stack.tif", pixels, "ZYX", pixel_size_um=0.65, z_step_um=2.0)


def test_one_input(run: Any, tmp_path: Path, stack: Path, pixels: np.ndarray, model: Path) -> None:
    result = run("detect", stack, "-o", tmp_path / "labels.tif", "--model", model)
    assert (result.status, result.err) == (0, "")
    expected = detect_module.detect(pixels, str(model), axes="ZYX")
    assert f"{np.max(expected, (1, 2)).sum()} nuclei" in result.out
    view = read_image(tmp_path / "labels.tif")
    assert (view.dtype, str(view.axes), view.pixel_size_um) == (np.int32, "ZYX", 0.65)
    np.testing.assert_array_equal(np.asarray(view.data[:]), expected)
    assert expected.any()
    with tifffile.TiffFile(tmp_path / "labels.tif") as tif:
        text = str(tif.ome_metadata)
    assert "model_sha256" in text
    assert "PhysicalSizeZ=" in text


def test_options_reach_the_engine(run: Any, tmp_path: Path, stack: Path, pixels: np.ndarray, model: Path) -> None:
    options = ("--prob", "0.4", "--nms", "0.2", "--percentiles", "5", "95", "--axes", "TYX", "--device", "cpu")
    assert run("detect", stack, "-o", tmp_path / "out.tif", "--model", model, *options).status == 0
    expected = detect_module.detect(pixels, str(model), axes="TYX", prob=0.4, nms=0.2, percentiles=(5, 95))
    view = read_image(tmp_path / "out.tif")
    assert str(view.axes) == "TYX"
    np.testing.assert_array_equal(np.asarray(view.data[:]), expected)
    assert not np.array_equal(expected, detect_module.detect(pixels, str(model)))


def test_a_folder_and_one_bad_file(run: Any, tmp_path: Path, pixels: np.ndarray, model: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "a.tif", pixels[0], "YX")
    (images / "b.tif").write_bytes(b"no image")
    write_image(images / "c.ome.tif", pixels[1], "YX")
    result = run("detect", images, "-o", tmp_path / "labels", "--model", model)
    assert result.status == 1
    assert "b.tif" in result.err
    assert "1 of 3 inputs failed" in result.err
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["a.tif", "c.ome.tif"]


def test_an_existing_result_stays_unless_told(run: Any, tmp_path: Path, stack: Path, model: Path) -> None:
    target = tmp_path / "labels.tif"
    target.write_bytes(b"mine")
    result = run("detect", stack, "-o", target, "--model", model)
    assert result.status == 1
    assert "allow overwriting" in result.err
    assert target.read_bytes() == b"mine"
    assert run("detect", stack, "-o", target, "--model", model, "--overwrite").status == 0


def test_an_image_of_another_kind_fails_alone(run: Any, tmp_path: Path, stack: Path, model: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    write_image(tmp_path / "rgb.tif", colours, "YXS")
    result = run("detect", tmp_path / "rgb.tif", stack, "-o", tmp_path / "labels", "--model", model)
    assert result.status == 1
    assert "rgb.tif: The model takes grey images" in result.err
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["stack.tif"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "none-such"), "Unknown detection model"),
        (("--model", "none/such"), "no such file or folder"),
        ((), "none is bundled"),
        (("--prob", "1"), "above 0 and below 1"),
        (("--percentiles", "9", "3"), "percentiles must rise"),
        (("--nucleus-diameter", "20", "--model", "MODEL"), "does not say for which nucleus diameter"),
        (("--device", "abacus", "--model", "MODEL"), "Unknown device"),
    ],
)
def test_arguments_that_make_no_sense(
    run: Any, tmp_path: Path, stack: Path, model: Path, options: tuple[str, ...], message: str
) -> None:
    given = [str(model) if option == "MODEL" else option for option in options]
    result = run("detect", stack, "-o", tmp_path / "labels.tif", *given)
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "labels.tif").exists()
