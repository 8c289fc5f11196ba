"""Seconds and peak memory of one forward pass in each precision, against the released arithmetic written naively.

    python benchmarks/network_speed.py [--rounds 7] [--threads 2] [--processor] [--without FORM]

The paper's configuration restores 1 x 1 x 256 x 256, the bundled model 1 x 1 x 512 x 512, on the CPU without gradients.
The naive form (`naive_release.py`) has the same configuration, and random weights; Restormer, of its paper's size,
comes through spandrel where the extra `spandrel-extra` is installed. All forms of a configuration take turns in one
process. For its peak of memory, each runs in a process of its own: peak resident memory less that before the first
pass, when libraries and network are there already.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec

import torch
from naive_release import NaiveRelease
from timing import in_fresh_process, options_parser, peak_bytes, print_head, print_rows, take_turns
from torch import nn

from napari_mpt_deblur import load_model
from napari_mpt_deblur.networks import MPT, MPTConfig
from napari_mpt_deblur.networks.build import new_network
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig

NAIVE, RESTORMER = "naive, float32", "Restormer, float32"
FORMS = (NAIVE, "float32", "bfloat16")
ALL_FORMS = (*FORMS[1:], RESTORMER)  # that can be left out
PAPER, BUNDLED = "paper", "nuclei"
SIDES = {PAPER: 256, BUNDLED: 512}


def forms(name: str, without: Sequence[str]) -> tuple[str, ...]:
    """What is measured of a configuration, or beside it."""
    known = (*FORMS, RESTORMER) if name == PAPER and find_spec("spandrel_extra_arches") else FORMS
    return tuple(form for form in known if form not in without)


def network(name: str, form: str) -> nn.Module:
    """One form of a network; a naive one works on the pixels that a stem would give it."""
    if form == RESTORMER:
        return new_network(SpandrelConfig("Restormer", 1, 8, parameters={"inp_channels": 1, "out_channels": 1}))
    ours = MPT(MPTConfig.paper(in_channels=1)) if name == PAPER else load_model(name, device="cpu").network
    if form != NAIVE:
        return ours
    stem = ours.config.stem
    naive = NaiveRelease(replace(ours.config, in_channels=ours.config.in_channels * stem**2, stem=1))
    return nn.Sequential(nn.PixelUnshuffle(stem), naive, nn.PixelShuffle(stem))


def restoration(name: str, form: str) -> Callable[[], None]:
    """A function that restores one image."""
    module = network(name, form).eval()
    image = torch.rand(1, 1, SIDES[name], SIDES[name], generator=torch.Generator().manual_seed(0))
    half = form == "bfloat16"

    def restore() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            module(image)

    return restore


def working_bytes(name: str, form: str) -> int:
    """Peak memory of a forward pass, in this process."""
    restore = restoration(name, form)
    before = peak_bytes()
    restore()
    return peak_bytes() - before


def main() -> None:
    parser = options_parser(__doc__, rounds=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without", choices=ALL_FORMS, action="append", default=[], help="leave a form out")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps({"bytes": working_bytes(*options.memory_of)}))
        return
    print_head("the naive form")
    for name in SIDES:
        runs = {f"{name}, {form}": restoration(name, form) for form in forms(name, options.without)}
        print_rows(take_turns(runs, options.rounds, options.processor), f"{name}, {NAIVE}")
    print("\n| | peak memory |\n|---|---|")
    for name in SIDES:
        for form in forms(name, options.without):
            found = in_fresh_process(__file__, "--threads", str(options.threads), "--memory-of", name, form)
            print(f"| {name}, {form} | {found['bytes'] / 1e6:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
