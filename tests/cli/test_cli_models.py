from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napari_mpt_deblur.checkpoints import library


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
