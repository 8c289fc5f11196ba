"""The scripts that measure what training is worth run, at the smallest budget, and do not repeat what is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALLEST = {
    "prove_training.py": ["--iterations", "2", "--fields", "2", "--arms", "pixel", "efcrex", "pretrain"],
    "prove_fine_tuning.py": ["--iterations", "1", "--pretraining", "1", "--fields", "2", "--others", "2"],
}


@pytest.fixture
def lists(data_folder: Path, tmp_path: Path) -> Path:
    """The data sets' own splits, unfiltered and short."""
    for split in ("train", "validation"):
        paths = []
        for name, suffix in (("bbbc039", "tif"), ("dsb2018_fluo", "png")):
            entries = sorted((data_folder / name / "images").glob(f"*.{suffix}"))
            paths += entries[0 if split == "train" else 1 :: 2][:200]
        (tmp_path / f"{split}.txt").write_text("\n".join(map(str, paths)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALLEST)
def test_the_proofs_run_and_write_their_tables(lists: Path, tmp_path: Path, script: str) -> None:
    document = tmp_path / "document.md"
    command = [sys.executable, str(SCRIPTS / script), str(lists), str(tmp_path / "runs"), "--document", str(document)]
    command += ["--seeds", "0", "1", *SMALLEST[script]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SCRIPTS)
    first = document.read_text(encoding="utf-8")
    assert first.count("| verdict |") == (1 if "training" in script else 2)
    assert " iterations" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SCRIPTS)
    second = document.read_text(encoding="utf-8")
    assert [line for line in second.splitlines() if line[:1] == "|"] == [
        line for line in first.splitlines() if line[:1] == "|"
    ]
    assert again.stdout.startswith("`MPTConfig.tiny`")  # no run was begun
