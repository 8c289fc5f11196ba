"""Seconds of a training step with the paper's configuration, against its naive form.

    python benchmarks/training_step.py [--rounds 7] [--threads 2] [--processor]

A step is forward, L1, backward and AdamW, for one image of 1 x 128 x 128 in float32 on the CPU. Ours, which keeps
memory from step to step as `train` does (`kept_memory`), the naive form (`naive_release.py`) without that and with it
take turns in one process. What a forward pass alone takes, `network_speed.py` tells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from naive_release import NaiveRelease
from timing import options_parser, print_head, print_rows, take_turns
from torch import nn
from torch.nn import functional as F

from napari_mpt_deblur.networks import MPT, MPTConfig
from napari_mpt_deblur.networks.host_memory import kept_memory

SIDE = 128


def training_step(network: nn.Module) -> Callable[[], None]:
    """A function that takes one step."""
    blurred, sharp = torch.rand(2, 1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.l1_loss(network(blurred), sharp).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = options_parser(__doc__, rounds=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = MPTConfig.paper(in_channels=1)
    ours, naive = training_step(MPT(config)), training_step(NaiveRelease(config))
    runs = {"ours": ours, "naive": naive, "naive, memory kept": naive}
    contexts = {"ours": kept_memory, "naive, memory kept": kept_memory}
    print_head("the naive form")
    print_rows(take_turns(runs, options.rounds, options.processor, contexts), "naive")


if __name__ == "__main__":
    main()
