"""Give a trained model twice the sub-blocks at all stages but the first, without changing what it computes.

    python scripts/deepen_model.py MODEL.safetensors DEEPER.safetensors

Then go on with ``mpt-deblur train ... --start-from DEEPER.safetensors``: so the bundled model came to its depth.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from napari_mpt_deblur.checkpoints import load_model, save_model
from napari_mpt_deblur.networks.deepen import deepened

STAGES = (1, 2, 3)


def main(source: str, target: str) -> None:
    model = load_model(source, device="cpu")
    network = deepened(model.network, STAGES)
    history = model.config.training | {"deepened_after": model.config.training.get("iterations")}
    save_model(target, network, replace(model.config, network=network.config, training=history))


if __name__ == "__main__":
    main(*sys.argv[1:])
