"""Put a detector that StarDist trained into the box: one safetensors file in half precision, its origin in the header.

    python scripts/bundle_detector.py STARDIST_FOLDER nuclei [NOTE]

Then measure it and write its card with scripts/evaluate_detector.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from napari_mpt_deblur.detection import load_folder, save_detector

MODELS = Path(__file__).parents[1] / "src" / "napari_mpt_deblur" / "models" / "detection"
DATA = (
    "training splits of BBBC039 (CC0; Caicedo et al. 2019, Cytometry A) and of the fluorescence images of the "
    "Data Science Bowl 2018, stage 1 (CC0; Caicedo et al. 2019, Nature Methods), as listed by "
    "scripts/list_training_images.py; objects below 20 pixels left out"
)
DIAMETER_PX, PIXEL_SIZE_UM = 28.0, 0.656  # of BBBC039: its median nucleus, and its pixels


def main(folder: str, name: str, note: str = "") -> None:
    detector = load_folder(folder, device="cpu")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    recipe = {key: value for key, value in config.items() if key.startswith("train_")}
    description = replace(
        detector.description,
        nucleus_diameter_px=DIAMETER_PX,
        pixel_size_um=PIXEL_SIZE_UM,
        description="nuclei in fluorescence, in focus",
        licence="CC0-1.0",
        training={"data": DATA, "recipe": recipe, "commit": commit.stdout.strip(), "seed": 0, "note": note},
    )
    MODELS.mkdir(exist_ok=True)
    path = save_detector(MODELS / f"{name}.safetensors", replace(detector, description=description), half=True)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
