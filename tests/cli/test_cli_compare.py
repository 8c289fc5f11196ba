"""``mpt-deblur compare``, from files to files."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from detection.keras_files import write_folder

from napari_mpt_deblur import detect
from napari_mpt_deblur.detection import Detected, DetectionProgress, DetectionSettings, Detector
from napari_mpt_deblur.detection.config import StarDistConfig, Thresholds
from napari_mpt_deblur.detection.description import DetectorDescription
from napari_mpt_deblur.detection.instances import Instances
from napari_mpt_deblur.images import ImageView, write_image


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Labels before, after and true, 40 x 40; the raw image; a sharp image."""
    truth = np.zeros((40, 40), np.uint16)
    truth[2:10, 2:10], truth[20:30, 5:15], truth[20:30, 25:35] = 1, 2, 3
    before, after = truth.copy(), truth.copy()
    before[truth == 3] = 0
    after[32:38, 32:38] = 9  # nothing is there
    raw = np.random.default_rng(0).normal(100, 5, truth.shape) + 60 * (truth > 0)
    for name, labels in (("truth", truth), ("before", before), ("after", after)):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels)
    write_image(tmp_path / "raw.tif", raw.astype(np.uint16), "YX", 0.5)
    write_image(tmp_path / "sharp.tif", (raw * 2).astype(np.uint16), "YX")
    return tmp_path


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, files: Path) -> list[dict[str, Any]]:
    """A detector that finds the true nuclei in any image, and notes how it was called."""
    calls: list[dict[str, Any]] = []
    description = DetectorDescription(StarDistConfig(), nucleus_diameter_px=10.0)
    found = Detector("own", None, description, "hash")  # type: ignore[arg-type]

    def steps(image: ImageView, detector: Detector, settings: DetectionSettings) -> Generator[Any, None, Detected]:
        scale = settings.scale(detector, image.pixel_size_um)
        calls.append({"mean": float(np.mean(image.data)), "um": image.pixel_size_um, "scale": scale, "by": settings})
        yield DetectionProgress(1, 1, 1, 1)
        labels = tifffile.imread(files / "truth.tif").astype(np.int32)
        plane = Instances(labels, np.array([0.9, 0.8, 0.7]), np.zeros((3, 2)), np.zeros((3, 32)))
        return Detected(labels, "YX", {(): plane}, scale, settings.thresholds(Thresholds(0.6, 0.3)), 3)

    monkeypatch.setattr("napari_mpt_deblur.detection.run.detection_steps", steps)
    monkeypatch.setattr("napari_mpt_deblur.cli.sides.check_detector", lambda _: None)
    monkeypatch.setattr("napari_mpt_deblur.cli.sides.make_detector", lambda _: found)
    return calls


def sides(folder: Path) -> tuple[Any, ...]:
    return "compare", "--before", folder / "before.tif", "--after", folder / "after.tif"


def test_labels_against_truth(run: Any, files: Path) -> None:
    out, table = files / "out.json", files / "out.csv"
    result = run(
        *sides(files), "--truth", files / "truth.tif", "--raw", files / "raw.tif", "--json", out, "--csv", table
    )
    assert (result.status, result.err) == (0, "")
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["taken_as"] == {"before": "labels", "after": "labels"}
    assert (figures["truth"], figures["pooled"]) == ("truth", True)
    assert [entry["threshold"] for entry in figures["ap"]] == [0.5, 0.7, 0.9]
    assert figures["mean_ap"] == {"before": pytest.approx(2 / 3), "after": pytest.approx(3 / 4)}
    assert figures["ledger"]["after"] == {
        "nuclei": 4, "kept": 2, "split": 0, "merged": 0, "gained": 2, "right": 3, "wrong": 1, "unsupported": 1
    }  # fmt: skip
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["label"], row["fate"], row["unsupported"]) for row in rows] == [
        ("before", "1", "kept", "no"),
        ("before", "2", "kept", "no"),
        ("after", "1", "kept", "no"),
        ("after", "2", "kept", "no"),
        ("after", "3", "gained", "no"),
        ("after", "9", "gained", "yes"),
    ]
    assert float(rows[0]["area_um2"]) == 64 * 0.5**2
    assert "pooled over all planes" in result.out
    assert "mean      0.667    0.750   +12.5 %" in result.out
    assert "after: 4 nuclei: 2 kept, 0 split, 0 merged, 2 gained, 3 right, 1 wrong, 1 unsupported" in result.out
    assert sorted(path.name for path in files.iterdir() if path.suffix == ".partial") == []


def test_labels_alone(run: Any, files: Path) -> None:
    result = run(*sides(files), "--json", files / "out.json", "--csv", files / "out.csv", "--per-image")
    assert result.status == 0
    figures = json.loads((files / "out.json").read_text(encoding="utf-8"))
    assert figures["ap"] is figures["mean_ap"] is figures["truth"] is None
    assert figures["pooled"] is False
    assert "No truth was given" in result.out
    assert "No raw image was given" in result.out
    with (files / "out.csv").open(encoding="utf-8", newline="") as file:
        assert all(row["mean_intensity"] == row["evidence"] == "" for row in csv.DictReader(file))


def test_images_are_detected_and_measured(run: Any, files: Path, detector: list[dict[str, Any]]) -> None:
    result = run(
        *("compare", "--before", files / "raw.tif", "--after", files / "after.tif"),
        *("--reference", files / "sharp.tif", "--json", files / "out.json", "--csv", files / "out.csv"),
        *("--model", "own", "--prob", 0.5, "--nucleus-diameter", 20, "--percentiles", 2, 99),
    )
    assert (result.status, result.err) == (0, "")
    # all lie on one grid: the pixel size that one file states is that of all
    assert [(call["um"], call["scale"]) for call in detector] == [(0.5, 0.5)] * 2
    assert {(call["by"].prob, call["by"].nms, call["by"].percentiles) for call in detector} == {(0.5, None, (2, 99))}
    assert detector[1]["mean"] > 1.9 * detector[0]["mean"]  # the sharp one came second
    figures = json.loads((files / "out.json").read_text(encoding="utf-8"))
    assert figures["taken_as"] == {"before": "image", "after": "labels"}
    assert figures["truth"] == "reference"
    assert figures["ledger"]["after"]["unsupported"] == 1
    assert figures["detection"] == {
        "model": "own",
        "model_sha256": "hash",
        "thresholds": {"prob": 0.5, "nms": 0.3},
        "percentiles": [2, 99],
        "scale": 0.5,
    }
    assert figures["files"]["reference"] == str(files / "sharp.tif")
    assert "taken as image" in result.out
    with (files / "out.csv").open(encoding="utf-8", newline="") as file:
        probabilities = [row["probability"] for row in csv.DictReader(file)]
    assert probabilities == ["0.9", "0.8", "0.7", "", "", "", ""]


@pytest.mark.parametrize(("pixel_size", "scale"), [((), 1), (("--pixel-size", 0.25), 1)])
def test_a_pixel_size_is_not_asked_of_a_model_that_knows_none(
    run: Any, files: Path, detector: list[dict[str, Any]], pixel_size: tuple[Any, ...], scale: float
) -> None:
    raw = files / "raw.tif"
    out = ("--json", files / "o.json", "--csv", files / "o.csv")
    assert run("compare", "--before", raw, "--after", raw, *out, *pixel_size).status == 0
    assert [call["scale"] for call in detector] == [scale] * 2
    with (files / "o.csv").open(encoding="utf-8", newline="") as file:
        assert float(next(csv.DictReader(file))["area_um2"]) == 64 * (0.25 if pixel_size else 0.5) ** 2


def test_channels_that_a_model_takes_together(run: Any, tmp_path: Path) -> None:
    """The labels have no channels, the image has: intensities are measured on their mean."""
    channels = np.random.default_rng(0).integers(0, 99, (3, 40, 48), np.uint8)
    write_image(tmp_path / "image.tif", channels, "CYX")
    folder = write_folder(tmp_path / "model", {"prob": 0.5, "nms": 0.4}, n_channel_in=3)
    image, table = tmp_path / "image.tif", tmp_path / "o.csv"
    result = run(
        *("compare", "--before", image, "--after", image, "--model", folder),
        *("--json", tmp_path / "o.json", "--csv", table),
    )
    assert (result.status, result.err) == (0, "")
    labels = detect(channels, str(folder), axes="CYX")
    with table.open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    expected = channels.mean(axis=0)[labels == int(first["label"])].mean()
    assert float(first["mean_intensity"]) == pytest.approx(expected)
    assert float(first["probability"]) > 0.5


def test_one_plane_of_truth_serves_a_stack(run: Any, files: Path) -> None:
    stack = np.stack([tifffile.imread(files / f"{name}.tif") for name in ("before", "truth")])
    write_image(files / "stack.tif", stack, "ZYX")
    both = ("--before", files / "stack.tif", "--after", files / "stack.tif")
    result = run("compare", *both, "--truth", files / "truth.tif", "--json", files / "o.json")
    assert (result.status, result.err) == (0, "")
    figures = json.loads((files / "o.json").read_text(encoding="utf-8"))
    assert figures["ap"][0] == {"threshold": 0.5, "before": 5 / 6, "after": 5 / 6}
    assert "One plane of the truth serves several planes." in figures["notes"]


def test_labels_as_floats_are_labels(run: Any, files: Path) -> None:
    for name in ("before", "after", "truth"):
        tifffile.imwrite(files / f"{name}.tif", tifffile.imread(files / f"{name}.tif").astype(np.float32))
    result = run(*sides(files), "--truth", files / "truth.tif", "--json", files / "o.json")
    assert (result.status, result.err) == (0, "")
    assert json.loads((files / "o.json").read_text())["mean_ap"]["after"] == pytest.approx(3 / 4)


def test_kinds_can_be_forced(run: Any, files: Path, detector: list[dict[str, Any]]) -> None:
    assert run(*sides(files), "--images", "--json", files / "a.json").status == 0
    assert len(detector) == 2
    grey = files / "raw.tif"
    result = run("compare", "--before", grey, "--after", grey, "--labels", "--json", files / "b.json")
    assert result.status == 0
    assert len(detector) == 2


def test_empty_against_empty(run: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "nothing.tif", np.zeros((3, 8, 8), np.uint16), photometric="minisblack")
    nothing = tmp_path / "nothing.tif"
    result = run("compare", "--before", nothing, "--after", nothing, "--truth", nothing, "--json", tmp_path / "o.json")
    assert (result.status, result.err) == (0, "")
    figures = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert figures["mean_ap"] == {"before": 1, "after": 1}
    assert figures["planes"] == 3


def test_results_that_exist_stay(run: Any, files: Path) -> None:
    out = files / "out.json"
    out.write_text("mine")
    result = run(*sides(files), "--json", out)
    assert result.status == 1
    assert "exists" in result.err
    assert out.read_text() == "mine"
    assert run(*sides(files), "--json", out, "--overwrite").status == 0
    assert json.loads(out.read_text(encoding="utf-8"))["planes"] == 1


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        (("--truth", "small.tif", "--json", "o.json"), 1, r"truth (8 x 8) and the labels (40 x 40) differ in shape"),
        (("--truth", "missing.tif", "--json", "o.json"), 1, "missing.tif: no such file"),
        (("--truth", "fractions.tif", "--json", "o.json"), 1, "fractions.tif: The labels hold fractions"),
        (("--truth", "colour.tif", "--json", "o.json"), 1, "colour.tif: It is a colour image"),
        (("--raw", "small.tif", "--json", "o.json"), 1, "raw image (8 x 8)"),
        (("--reference", "small.tif", "--json", "o.json"), 1, r"truth (8 x 8) and the labels (40 x 40)"),
        (("--truth", "mask.tif", "--json", "o.json"), 1, "mask.tif: The labels are a mask of 0 and 255"),
        (("--reference", "raw.tif", "--json", "o.json", "--model", "none-such"), 2, "Unknown detection model"),
        (("--reference", "raw.tif", "--json", "o.json", "--percentiles", "9", "3"), 2, "percentiles must rise"),
        (("--json", "nowhere/o.json"), 1, "folder does not exist"),
        (("--json", "o.json", "--csv", "o.json"), 2, "one file"),
        (("--json", "before.tif", "--overwrite"), 2, "is an input"),
        (("--json", "o.json", "--model", "own"), 2, "nothing to detect"),
        (("--json", "o.json", "--prob", "1"), 2, "above 0 and below 1"),
        (("--json", "o.json", "--truth", "truth.tif", "--reference", "raw.tif"), 2, "not allowed with"),
        ((), 2, "--json"),
    ],
)
def test_what_cannot_be_compared(
    run: Any, files: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], status: int, reason: str
) -> None:
    monkeypatch.chdir(files)
    tifffile.imwrite("small.tif", np.eye(8, dtype=np.uint8))
    tifffile.imwrite("mask.tif", (255 * (tifffile.imread("truth.tif") > 0)).astype(np.uint8))
    tifffile.imwrite("fractions.tif", np.full((40, 40), 0.5, np.float32))
    tifffile.imwrite("colour.tif", np.zeros((40, 40, 3), np.uint8), photometric="rgb")
    before = set(files.iterdir())
    result = run(*sides(files), *more)
    assert result.status == status
    assert reason in result.err
    assert result.err.count("\n") == 1
    assert set(files.iterdir()) == before


def test_average_precision_is_at_hand() -> None:
    import napari_mpt_deblur

    labels = np.eye(4, dtype=int)
    assert napari_mpt_deblur.average_precision(labels, labels).tolist() == [1, 1, 1]
