"""Seconds of a training step, and of restoring an image, with the paper's configuration, against its naive form.

    python benchmarks/training_step.py [--rounds 7] [--threads 2] [--processor]

A step is forward, L1, backward and AdamW, for one image of 1 x 128 x 128 in float32 on the CPU; restoring is a forward
pass of 1 x 256 x 256 without gradients. Both forms (`naive_release.py` is the other) take turns in one process, so that
what else the machine does weighs on both; medians and ratios are what counts. On a busy machine give --threads 1 and
--processor, which compares processor seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from naive_release import NaiveRelease
from torch import nn
from torch.nn import functional as F

from napari_mpt_deblur.networks import MPT, MPTConfig

TRAINING_SIDE, IMAGE_SIDE = 128, 256


def training_step(network: nn.Module) -> Callable[[], None]:
    """A function that takes one step."""
    blurred, sharp = torch.rand(2, 1, 1, TRAINING_SIDE, TRAINING_SIDE, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.l1_loss(network(blurred), sharp).backward()
        optimizer.step()

    return step


def restoration(network: nn.Module) -> Callable[[], None]:
    """A function that restores one image."""
    image = torch.rand(1, 1, IMAGE_SIDE, IMAGE_SIDE, generator=torch.Generator().manual_seed(0))

    def restore() -> None:
        with torch.inference_mode():
            network(image)

    return restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor", action="store_true", help="processor seconds instead of seconds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor else time.perf_counter
    torch.manual_seed(0)
    config = MPTConfig.paper(in_channels=1)
    networks = {"ours": MPT(config), "naive": NaiveRelease(config)}
    print("| | median seconds | fastest to slowest | ratio to the naive form: median of rounds | fastest to slowest |")
    print("|---|---|---|---|---|")
    for task in (training_step, restoration):
        runs = {name: task(network) for name, network in networks.items()}
        times = {name: [] for name in runs}
        for counts in (False, *(True,) * options.rounds):  # the first round allocates and plans
            for name, run in runs.items():
                started = clock()
                run()
                if counts:
                    times[name].append(clock() - started)
        for name, taken in times.items():
            ratios = np.divide(taken, times["naive"])
            print(
                f"| {task.__name__}, {name} | {np.median(taken):.3f} | {min(taken):.3f} to {max(taken):.3f} "
                f"| {np.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
