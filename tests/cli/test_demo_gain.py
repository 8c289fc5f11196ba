"""What the demo promises of the bundled model, on the real sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, library

BUNDLED = Path(library.__file__).parents[1] / "models" / f"{DEFAULT_MODEL}.safetensors"


def test_the_demo_gains_what_it_promises(run: Any, tmp_path: Path) -> None:
    assert run("demo", "--output", tmp_path, "--model", BUNDLED).status == 0
    report = json.loads((tmp_path / "report.json").read_text())
    planes = list(zip(report["psnr_blurred"], report["psnr_deblurred"], strict=True))
    before, after = min(planes)
    assert after - before >= 3
    assert all(after - before >= -0.5 for before, after in planes if before < 45)
    assert report["mean"]["ssim_deblurred"] > report["mean"]["ssim_blurred"]
