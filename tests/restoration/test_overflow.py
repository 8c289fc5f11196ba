"""Half precision that overflows: noticed, redone in float32, and said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from napari_mpt_deblur.checkpoints import Model, loading
from napari_mpt_deblur.restoration import devices
from napari_mpt_deblur.restoration.settings import Settings

LEVEL = 1e6  # beyond float16, which ends at 65504, and well within bfloat16


class Overflowing(nn.Module):
    """The network, and a product as large as `LEVEL`, taken back again; half precision alone tells them apart.

    Parameters
    ----------
    network : nn.Module
    nan_above : float
        Images that reach beyond this come out as NaN wherever autocast is on, as if bfloat16 had overflowed.
    """

    def __init__(self, network: nn.Module, nan_above: float = float("inf")) -> None:
        super().__init__()
        self.inner, self.nan_above = network, nan_above
        self.passes: list[tuple[int, bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = torch.is_autocast_enabled("cpu")
        self.passes.append((len(x), half))
        out = self.inner(x)
        large = nn.functional.conv2d(out, out.new_full((out.shape[1], out.shape[1], 1, 1), LEVEL)).float() / LEVEL
        return large * float("nan") if half and x.max() > self.nan_above else large


@pytest.fixture
def overflowing(tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Model, Overflowing]]:
    """A model whose network overflows, on a CPU that offers float16 as well."""
    monkeypatch.setitem(loading._PRECISIONS, "cpu", ("float32", "bfloat16", "float16"))

    def make(nan_above: float = float("inf")) -> tuple[Model, Overflowing]:
        model = tiny()
        network = Overflowing(model.network, nan_above)
        object.__setattr__(model, "network", network)
        return model, network

    return make


@pytest.mark.parametrize("tile_px", [None, 128])
@pytest.mark.parametrize(("precision", "nan_above"), [("float16", float("inf")), ("bfloat16", -9.0)])
def test_an_overflow_is_redone_in_float32(
    precision: str, nan_above: float, tile_px: int | None, overflowing: Callable, scene: Callable, restore: Callable
) -> None:
    image = scene(250, 250)
    model, network = overflowing(nan_above)
    expected = restore(image, use=model, tile_px=tile_px).array
    network.passes.clear()
    restored = restore(image, use=model, precision=precision, tile_px=tile_px)
    np.testing.assert_allclose(restored.array, expected, atol=1e-3)
    assert restored.record["precision"] == "float32"
    assert restored.record["notes"] == [f"{precision} overflowed: redone in float32"]
    halves = [half for _, half in network.passes]
    assert halves == [True] + [False] * (len(halves) - 1)  # noticed in the first pass, not at the end


def test_what_does_not_overflow_stays_in_half_precision(
    overflowing: Callable, scene: Callable, restore: Callable
) -> None:
    model, network = overflowing()
    record = restore(scene(60, 60), use=model, precision="bfloat16").record
    assert (record["precision"], record["notes"]) == ("bfloat16", [])
    assert network.passes == [(1, True)]


def test_planes_that_are_done_stay_and_those_under_way_and_to_come_are_float32(
    overflowing: Callable, scene: Callable, restore: Callable
) -> None:
    """One bright plane, the fourth of six, in batches of two."""
    image = scene(6, 60, 60)
    image[3, 30, 30] = 9000
    model, network = overflowing(nan_above=5.0)
    exact = restore(image, use=model, batch=2).array
    network.nan_above = float("inf")
    half = restore(image, use=model, batch=2, precision="bfloat16").array
    network.nan_above = 5.0
    network.passes.clear()
    restored = restore(image, use=model, batch=2, precision="bfloat16")
    assert network.passes == [(2, True), (2, True), (2, False), (2, False)]
    np.testing.assert_array_equal(restored.array[:2], half[:2])
    np.testing.assert_allclose(restored.array[2:], exact[2:], atol=1e-3)
    assert np.abs(half[:2] - exact[:2]).max() > 1e-3  # the two precisions can be told apart


def test_float32_takes_no_more_memory_than_half_precision_was_given(model: Model) -> None:
    network = model.config.network
    half = Settings.of(network, "cpu", "bfloat16", max_pixels=2**18)
    exact = half.exact()
    assert exact is not None
    taken = [s.max_pixels * devices.bytes_per_pixel(network, s.precision) for s in (half, exact)]
    assert 0.99 * taken[0] < taken[1] <= taken[0]
    assert exact.exact() is None
