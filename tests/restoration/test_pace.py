"""What is told of a run's time before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.networks import host_memory
from napari_mpt_deblur.restoration import Deblurrer, Estimate, pace
from napari_mpt_deblur.restoration.runner import Finish, Runner


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], list[int]]:
    """Passes that take this long by the clock: the first, and those after it; counts them."""
    passes: list[int] = []

    def tell(first: float, later: float) -> list[int]:
        now = [0.0]

        def begin(_: Runner, tiles: np.ndarray, pool: object = None) -> Finish:
            now[0] += later if passes else first
            passes.append(tiles.size)
            return lambda: tiles

        monkeypatch.setattr(Runner, "begin", begin)
        monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
        return passes

    monkeypatch.setattr(pace, "_measured", {})
    return tell


def test_the_second_pass_counts_and_the_answer_is_kept(clock: Callable, model: Model) -> None:
    passes = clock(0.5, 0.1)
    deblurrer = Deblurrer(model, precision="float32")
    assert deblurrer.pace() == pytest.approx(0.1 / (passes[0] / 1e6))
    assert deblurrer.pace() == deblurrer.pace()
    assert len(passes) == 2
    Deblurrer(replace(model, sha256="1" * 64), precision="float32").pace()
    Deblurrer(model, precision="bfloat16").pace()
    assert len(passes) == 6


def test_a_fast_network_is_asked_with_a_larger_tile_where_a_run_has_one(
    clock: Callable, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = clock(0.2, 0.2)
    assert Deblurrer(model, precision="float32").pace() == pytest.approx(0.2 / (384**2 / 1e6))
    assert passes == [128**2, 384**2]
    monkeypatch.setattr(pace, "_measured", {})
    Deblurrer(model, precision="float32", max_pixels=200**2).pace()
    Deblurrer(model, precision="bfloat16", max_pixels=70**2).pace()
    assert passes[2:] == [128**2, 192**2, 64**2, 64**2]


def test_passes_are_measured_as_a_run_makes_them(
    clock: Callable, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory that stays with the process."""
    clock(0.2, 0.4)
    begin, kept = Runner.begin, []
    monkeypatch.setattr(Runner, "begin", lambda *given: kept.append(host_memory._runs) or begin(*given))
    Deblurrer(model, precision="float32").pace()
    assert kept == [1, 1]


def test_a_slow_network_is_asked_once(clock: Callable, model: Model) -> None:
    passes = clock(3.0, 9.0)
    assert Deblurrer(model, precision="float32").pace() == pytest.approx(3.0 / (passes[0] / 1e6))
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("estimate", "pace_s", "words"),
    [
        (Estimate(1, 1, 0.25, 200_000_000), 40, "1 tile, about 10 s and 0.2 GB of memory"),
        (Estimate(12, 14, 3.0, 1_530_000_000), 100, "12 tiles, about 5 min and 1.5 GB of memory"),
        (Estimate(2, 2, 0.01, 1000), 1, "2 tiles, about 1 s and 0.1 GB of memory"),
    ],
)
def test_estimates_in_words(estimate: Estimate, pace_s: float, words: str) -> None:
    assert estimate.describe(pace_s) == words
