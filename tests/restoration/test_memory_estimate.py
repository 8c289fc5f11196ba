"""Memory that is told before a run, held to what passes make and drop: counted, not timed."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from oracle.live_memory import LiveBytes

from napari_mpt_deblur.networks import MPT, MPTConfig
from napari_mpt_deblur.restoration import devices
from napari_mpt_deblur.restoration.runner import Runner
from napari_mpt_deblur.restoration.settings import Settings


def test_the_count_is_of_what_lives() -> None:
    known = torch.ones(1000)
    with LiveBytes([known]) as live:
        first = torch.ones(100)
        second = known[:50] + 1
        view = second.view(5, 10)
        del first, second
        assert (live.now, live.peak) == (200, 600)
        third = known.add_(1)
    assert live.now == 200
    assert view.numel() == 50
    assert third is known


def counted(config: MPTConfig, precision: str, tiles: tuple[int, int, int]) -> int:
    """Most bytes that live at once in a pass, its output included."""
    torch.manual_seed(0)
    network = MPT(config).eval().requires_grad_(False)
    runner = Runner(network, "cpu", precision)
    batch, height, width = tiles
    values = np.zeros((batch, config.in_channels, height, width), np.float32)
    with LiveBytes(chain(network.parameters(), network.buffers())) as live:
        runner(values)
    return live.peak


@pytest.mark.parametrize(
    ("name", "tiles", "precision"),
    [
        ("compact", (1, 256, 256), "float32"),
        ("compact", (3, 128, 128), "float32"),
        ("compact", (3, 128, 128), "bfloat16"),
        ("tiny", (1, 256, 192), "float32"),
        ("tiny", (1, 256, 192), "bfloat16"),
        ("paper", (1, 128, 128), "float32"),
        # without bfloat16 in the processor, a pass takes ten times as long
        pytest.param("compact", (1, 256, 256), "bfloat16", marks=pytest.mark.slow),
        pytest.param("paper", (1, 128, 128), "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_pass_is_estimated_at_what_it_holds_and_what_allocators_add(
    name: str, tiles: tuple[int, int, int], precision: str
) -> None:
    """What they add was measured at 1.2 to 1.7 times (benchmarks/README.md); weights' copies are not of the pixels."""
    config: MPTConfig = getattr(MPTConfig, name)(in_channels=1)
    batch, height, width = tiles
    settings = Settings.of(config, "cpu", precision, (height, width), batch)
    estimated = batch * settings.memory_bytes(settings.plan(height, width))
    assert 1.2 < estimated / counted(config, precision, tiles) < 1.8


def test_planes_that_go_through_the_network_together_are_counted_together() -> None:
    settings = Settings.of(MPTConfig.compact(), "cpu", "float32", batch=4)
    plan = settings.plan(256, 256)
    one, *several = (settings.memory_bytes(plan, planes) for planes in (1, 3, 4, 30))
    assert several == pytest.approx([3 * one, 4 * one, 4 * one], rel=1e-6)


def test_hidden_maps_count_where_they_are_whole() -> None:
    """Accelerators work on no strips: with a wide feed-forward network, its maps are what is held."""
    narrow, wide = (MPTConfig(**MPTConfig.tiny().to_dict() | {"expansion": alpha}) for alpha in (2.0, 8.0))
    assert devices.bytes_per_pixel(narrow, "float32", "cuda") == devices.bytes_per_pixel(narrow, "float32")
    assert devices.bytes_per_pixel(wide, "float32", "cuda") > 2 * devices.bytes_per_pixel(wide, "float32")


@pytest.mark.parametrize(
    ("precision", "tiles", "grown"),
    [("float32", [(9, 768, 768), (32, 640, 1152)], 4.207), ("bfloat16", [(4, 640, 2048), (16, 1152, 1152)], 3.837)],
)
def test_the_work_grows_with_the_pixels(precision: str, tiles: list[tuple[int, int, int]], grown: float) -> None:
    """Counts instead of clocks: planes of 2048 x 2048 and 4096 x 4096 through the bundled model's network.

    A pixel of a sample costs more than one of a tile, for which channel attention is known; the clock says 3.7 times in
    float32 (benchmarks/README.md).
    """
    settings = Settings.of(MPTConfig.compact(), "cpu", precision)
    plans = [settings.plan(side, side) for side in (2048, 4096)]
    assert [(len(plan.tiles), plan.tile_height, plan.tile_width) for plan in plans] == tiles
    work = []
    for plan in plans:
        side, offsets = settings.samples(plan)
        work.append(len(plan.tiles) * plan.tile_pixels + len(offsets) * side**2)
        assert settings.memory_bytes(plan) < 0.65e9
    assert work[1] / work[0] == pytest.approx(grown, abs=1e-3)
