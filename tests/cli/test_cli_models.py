from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oracle import released_plain as plain

from napari_mpt_deblur.checkpoints import exporting, library


def test_models_are_listed(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "broken.safetensors").write_bytes(b"nothing at all")
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(own))
    monkeypatch.setenv("MPT_DEBLUR_CACHE", str(tmp_path / "cache"))
    result = run("models")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    split = lines.index("To detect nuclei:")
    (title, nuclei, broken), folder = lines[:split], lines[-1]
    assert title == "To deblur:"
    assert " ".join(nuclei.split()).startswith("nuclei [bundled, default] for tests; 0.0")
    assert "nuclei of 8 to 150 pixels" in nuclei
    content = (library._BUNDLED / "nuclei.safetensors").read_bytes()
    assert f"SHA-256 {hashlib.sha256(content).hexdigest()[:16]}" in nuclei
    assert " ".join(broken.split()).startswith("broken [broken] Cannot use the model")
    assert str(own) in folder
    published = [line for line in lines[split:] if "[published by StarDist] fetched when it is first named" in line]
    assert [line.split()[0] for line in published] == [
        "2D_versatile_fluo",
        "2D_versatile_he",
        "2D_paper_dsb2018",
        "2D_demo",
    ]


@pytest.mark.skipif(os.name != "posix", reason="pipes end otherwise elsewhere")
def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "napari_mpt_deblur.cli", "models"]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_no_model_is_said(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_BUNDLED", tmp_path)
    result = run("models")
    assert result.status == 0
    assert "No model is installed" in result.out


def test_a_checkpoint_is_imported_and_used(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import tifffile
    import torch

    own = tmp_path / "own"
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(own))
    settings: dict[str, Any] = {"dims": (8,) * 4, "heads": (1,) * 4, "window": 4, "expansion": 2.0}
    state = plain.random_state(1, seed=0, scales=((1 / 2, 1.0),) * 4, **settings)
    path = tmp_path / "theirs.pth"
    torch.save({f"module.{name}": torch.from_numpy(np.array(values)) for name, values in state.items()}, path)
    scales = ["--scales", *["1/2,1"] * 4]
    refused = run("models", "import", path, "--name", "a/b", *scales)
    assert (refused.status, refused.out) == (2, "")
    untold = run("models", "import", path, "--name", "theirs")
    assert untold.status == 1
    assert "give the scales" in untold.err
    assert not own.exists() or not list(own.iterdir())
    done = run("models", "import", path, "--name", "theirs", *scales, "--range", "full", "--licence", "CC0-1.0")
    assert (done.status, done.err) == (0, "")
    assert "the released arithmetic, scales 1/2,1 | 1/2,1" in done.out
    assert "the output is clipped" in done.out
    assert str(own / "theirs.safetensors") in done.out
    assert "licence CC0-1.0" in run("models").out
    assert run("models", "import", path, "--name", "theirs", *scales).status == 2
    assert run("models", "import", path, "--name", "theirs", "--overwrite", *scales).status == 0
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8))
    assert run("deblur", image, "-o", tmp_path / "out.tif", "--model", "theirs").status == 0
    assert tifffile.imread(tmp_path / "out.tif").shape == (40, 50)


@pytest.mark.parametrize("scales", [["1,2,x", "1", "1", "1"], ["1/0", "1", "1", "1"], ["1", "1"]])
def test_scales_that_make_no_sense(run: Any, tmp_path: Path, scales: list[str]) -> None:
    result = run("models", "import", tmp_path / "a.pth", "--name", "a", "--scales", *scales)
    assert result.status == 2
    assert "--scales" in result.err


def test_a_model_is_exported(run: Any, tmp_path: Path) -> None:
    import bioimageio.spec

    target = tmp_path / "nuclei.zip"
    target.touch()
    options = ("models", "export", "nuclei", "-o", target, "--author", "A", "--author", "B", "--licence", "MIT")
    assert run(*options).status == 1
    done = run(*options, "--overwrite")
    assert (done.status, done.err) == (0, "")
    assert "sides are multiples of 64 pixels" in done.out
    assert "no licence is stated" not in done.out
    assert done.out.splitlines()[-1].endswith(str(target))
    model = bioimageio.spec.load_description(target)
    assert isinstance(model, bioimageio.spec.ModelDescr)
    assert ([author.name for author in model.authors], str(model.license)) == (["A", "B"], "MIT")


def test_an_export_without_a_licence_says_so(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "record", lambda _: b"recorded elsewhere")
    done = run("models", "export", "nuclei", "-o", tmp_path / "nuclei.zip")
    assert (done.status, done.out.count("no licence is stated")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["unknown", "-o", "a.zip"], 2, "Unknown model 'unknown'"),
        (["nuclei", "-o", "a.tif"], 2, "must end in .zip"),
        (["nuclei", "-o", "none/a.zip"], 1, "folder does not exist"),
        (["nuclei", "-o", "a.zip", "--licence", "none"], 2, "SPDX"),
        (["nuclei"], 2, "-o"),
    ],
)
def test_an_export_that_makes_no_sense(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("models", "export", *arguments)
    assert (result.status, result.out) == (status, "")
    assert reason in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
