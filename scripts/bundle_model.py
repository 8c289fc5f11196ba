"""Put trained weights into the box: half precision, with what they are and where they come from in the header.

    python scripts/bundle_model.py RUN/best.safetensors nuclei [NOTE]

Then measure them and write their card with scripts/evaluate_model.py.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from napari_mpt_deblur.checkpoints import load_model, save_model

MODELS = Path(__file__).parents[1] / "src" / "napari_mpt_deblur" / "models"
DATA = (
    "training splits of BBBC039 (CC0; Caicedo et al. 2019, Cytometry A) and of the fluorescence images of the "
    "Data Science Bowl 2018, stage 1 (CC0; Caicedo et al. 2019, Nature Methods), as listed by "
    "scripts/list_training_images.py; and scenes drawn at random (training/scenes.py)"
)


def main(weights: str, name: str, note: str = "") -> None:
    model = load_model(weights, device="cpu")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    config = replace(
        model.config,
        name=name,
        description="fluorescent nuclei out of focus, any magnification",
        licence="CC0-1.0",
        training=model.config.training | {"data": DATA, "commit": commit.stdout.strip(), "note": note},
    )
    path = save_model(MODELS / f"{name}.safetensors", model.network, config, half=True)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
