"""Average two models of one network, a model and its fine-tuned self (Wortsman et al. 2022, CVPR: WiSE-FT).

    python scripts/average_models.py MODEL.safetensors FINE_TUNED.safetensors 0.4 AVERAGE.safetensors

The number is the fine-tuned model's share. What either knows better is largely kept.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from napari_mpt_deblur.checkpoints import load_model, save_model


@torch.no_grad()
def main(first: str, second: str, share: str, target: str) -> None:
    model, tuned = load_model(first, device="cpu"), load_model(second, device="cpu")
    for mine, other in zip(model.network.parameters(), tuned.network.parameters(), strict=True):
        mine.lerp_(other, float(share))
    averaged = {"averaged_with": model.sha256, "share": float(share)}
    save_model(target, model.network, replace(tuned.config, training=tuned.config.training | averaged))


if __name__ == "__main__":
    main(*sys.argv[1:])
