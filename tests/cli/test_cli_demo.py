from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_mpt_deblur.cli.demo import measure, summary
from napari_mpt_deblur.images import read_image
from napari_mpt_deblur.optics import sample
from napari_mpt_deblur.optics.psf import Microscope
from napari_mpt_deblur.optics.stack import FocusStack, focus_stack

FILES = {"sharp.tif", "blurred.tif", "deblurred.tif", "comparison.png", "report.json"}
FIGURES = ("psnr_blurred", "psnr_deblurred", "ssim_blurred", "ssim_deblurred")


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> FocusStack:
    rng = np.random.default_rng(0)
    sharp = np.kron(rng.integers(100, 4000, (12, 14)), np.ones((6, 6))).astype(np.uint16)
    stack = focus_stack(sharp, (-4.0, 0.0, 4.0), Microscope(pixel_size_um=0.65))
    monkeypatch.setattr(sample, "sample_focus_stack", lambda: stack)
    return stack


def test_the_demo_writes_what_it_says(run: Any, tmp_path: Path, small_sample: FocusStack) -> None:
    folder = tmp_path / "new" / "demo"
    result = run("demo", "--output", folder)
    assert (result.status, result.err) == (0, "")
    assert "Gain: " in result.out
    assert str(folder) in result.out
    assert {path.name for path in folder.iterdir()} == FILES
    sharp, blurred, deblurred = (read_image(folder / f"{name}.tif") for name in ("sharp", "blurred", "deblurred"))
    np.testing.assert_array_equal(sharp.data, small_sample.sharp)
    np.testing.assert_array_equal(blurred.data, small_sample.stack)
    assert (deblurred.shape, deblurred.dtype, deblurred.axes.text) == (blurred.shape, blurred.dtype, "ZYX")
    assert deblurred.pixel_size_um == 0.65
    assert deblurred.metadata["PhysicalSizeZ"] == 4.0
    report = json.loads((folder / "report.json").read_text())
    for name in FIGURES:
        finite = [value for value in report[name] if value is not None]
        assert len(report[name]) == 3
        assert report["mean"][name] is None or report["mean"][name] == pytest.approx(np.mean(finite))
    with Image.open(folder / "comparison.png") as picture:
        assert picture.mode == "RGB"
        pixels = np.asarray(picture)
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 20


def test_a_second_demo_replaces_the_first(run: Any, tmp_path: Path, small_sample: FocusStack) -> None:
    assert run("demo", "--output", tmp_path / "demo").status == 0
    (tmp_path / "demo" / "report.json").write_text("old")
    assert run("demo", "--output", tmp_path / "demo").status == 0
    assert "psnr_blurred" in (tmp_path / "demo" / "report.json").read_text()


def test_the_report_measures_against_the_sharp_image(small_sample: FocusStack) -> None:
    report = measure(small_sample, np.stack([small_sample.sharp + 1] * 3))
    spread = np.diff(np.percentile(small_sample.sharp, (1, 99.8)))[0]
    assert report["psnr_deblurred"] == pytest.approx([20 * np.log10(spread)] * 3)
    assert report["psnr_blurred"][0] < report["psnr_deblurred"][0]
    assert report["ssim_deblurred"][0] > 0.99
    assert report["mean"]["psnr_deblurred"] == pytest.approx(20 * np.log10(spread))
    gain = report["psnr_deblurred"][0] - report["psnr_blurred"][0]
    assert f"{gain:+.2f} dB in the blurriest plane" in summary(report)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.write_text("x"), "not a folder"),
        (lambda folder: (folder / "report.json").mkdir(parents=True), "a folder of that name"),
    ],
)
def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    run: Any, tmp_path: Path, make: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "demo")
    monkeypatch.setattr(sample, "sample_focus_stack", lambda: pytest.fail("the work began"))
    result = run("demo", "--output", tmp_path / "demo")
    assert result.status == 1
    assert words in result.err
    assert result.err.count("\n") == 1


def test_a_demo_that_fails_half_way_leaves_nothing(
    run: Any, tmp_path: Path, small_sample: FocusStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_mpt_deblur.cli.comparison.draw_comparison", full)
    result = run("demo", "--output", tmp_path / "new")
    assert result.status == 1
    assert "disk is full" in result.err
    assert not (tmp_path / "new").exists()
    old = tmp_path / "old"
    old.mkdir()
    (old / "sharp.tif").write_text("old")
    assert run("demo", "--output", old).status == 1
    assert [path.name for path in old.iterdir()] == ["sharp.tif"]
    assert (old / "sharp.tif").read_text() == "old"
