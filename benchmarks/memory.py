"""Peak memory beside what the engine and the training estimate of it, before they begin.

    python benchmarks/memory.py [--networks nuclei paper ...] [--precisions float32 bfloat16] [--only passes|steps]

Of single passes through a network without gradients, at several tile sizes, and of training steps. Each runs in a
process of its own on the CPU: peak resident memory less that before, when libraries are there already (a first pass or
step of the tiny network has loaded them) and, for passes, the network. Read bfloat16 where the processor computes with
it; elsewhere torch makes detours that take memory of their own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from timing import in_fresh_process, peak_bytes

from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.variants import BASES

NETWORKS = ("nuclei", "paper", "released", "tiny")
PASSES = {  # tiles and batches: (N, height, width)
    "nuclei": ((1, 256, 256), (1, 512, 512), (1, 768, 768), (1, 1024, 1024), (4, 256, 256)),
    "paper": ((1, 128, 128), (1, 256, 256), (1, 384, 384)),
    "released": ((1, 128, 128), (1, 256, 256), (1, 384, 384)),
    "tiny": ((1, 512, 512), (1, 1024, 1024)),
}
STEPS = {  # batch and side of the patches
    "nuclei": ((4, 128), (1, 256)),
    "paper": ((1, 128), (2, 128)),
    "released": ((1, 128),),
    "tiny": ((4, 256),),
}


def config_of(name: str) -> MPTConfig:
    """One of ours by name, of one channel; the bundled model's for its own."""
    return BASES["compact" if name == "nuclei" else name](in_channels=1)


def of_pass(name: str, precision: str, batch: int, height: int, width: int) -> tuple[float, float]:
    """Estimate and measurement of one pass, in bytes."""
    import numpy as np

    from napari_mpt_deblur.networks import MPT
    from napari_mpt_deblur.restoration.runner import Runner
    from napari_mpt_deblur.restoration.settings import Settings

    config = config_of(name)
    tiles = np.random.default_rng(0).random((batch, 1, height, width), np.float32)
    Runner(MPT(MPTConfig.tiny()).eval(), "cpu", precision)(tiles[:1, :, :64, :64])
    runner = Runner(MPT(config).eval().requires_grad_(False), "cpu", precision)
    settings = Settings.of(config, "cpu", precision, (height, width), batch)
    before = peak_bytes()
    runner(tiles)
    return batch * settings.memory_bytes(settings.plan(height, width)), peak_bytes() - before


def of_step(name: str, precision: str, batch: int, side: int) -> tuple[float, float]:
    """Estimate and measurement of two training steps, in bytes."""
    from dataclasses import replace

    from napari_mpt_deblur.training.config import TrainingConfig
    from napari_mpt_deblur.training.data import TrainingData
    from napari_mpt_deblur.training.estimate import Noise, NoiseImages, estimate
    from napari_mpt_deblur.training.loop import Trainer

    config = TrainingConfig(network=config_of(name), patch_px=(side,), batch=(batch,), precision=precision)
    data = TrainingData(Noise(1), (), NoiseImages(1), Noise(1))
    Trainer(replace(config, network=MPTConfig.tiny(), patch_px=(64,), batch=(1,)), Path(), data).step()
    before = peak_bytes()
    trainer = Trainer(config, Path(), data)
    for _ in range(2):
        trainer.step()
    measured = peak_bytes() - before
    del trainer
    return estimate(config, "cpu").memory_bytes, measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--only", choices=("passes", "steps"))
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, precision, *numbers = options.one
        measure = of_pass if len(numbers) == 3 else of_step
        print(json.dumps(measure(name, precision, *map(int, numbers))))
        return
    print("| | | precision | estimated | measured | estimated / measured |\n|---|---|---|---|---|---|")
    chosen = {"passes": (PASSES, "pass"), "steps": (STEPS, "training step")}
    for kind in (options.only,) if options.only else chosen:
        sizes, what = chosen[kind]
        for name in options.networks:
            for precision in options.precisions:
                for size in sizes[name]:
                    estimated, measured = in_fresh_process(__file__, "--one", name, precision, *map(str, size))
                    cells = f"{estimated / 1e6:.0f} MB | {measured / 1e6:.0f} MB | {estimated / measured:.2f}"
                    print(f"| {name}, {what} | {' x '.join(map(str, size))} | {precision} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
