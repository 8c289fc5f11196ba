"""CSWA pairs windows at the corresponding location: what an output pixel depends on, by gradients in float64.

A window of M x M keys covers a region of (M/S) x (M/S) pixels. A pixel must depend on all of its own region and on
nothing further than 1/S pixels outside it, which is the halo of the 3x3 convolution on the down-scaled map.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from napari_mpt_deblur.networks import CrossScaleWindowAttention

WINDOW = 4
REGIONS = (3, 4)  # of the map, in rows and columns

scales = pytest.mark.parametrize("scale", [1, 1 / 2, 1 / 4, 1 / 8])
attentions = pytest.mark.parametrize("attention", ["scaled", "cosine"])


def dependence(scale: float, shift: bool, attention: str, pixels: list[tuple[int, int]]) -> Iterator[torch.Tensor]:
    """For each output pixel, the (H, W) map of its gradients' magnitude with respect to the input."""
    torch.manual_seed(0)
    module = CrossScaleWindowAttention(4, 2, scale, WINDOW, shift, attention).double()
    region = round(WINDOW / scale)
    x = torch.randn(1, 4, REGIONS[0] * region, REGIONS[1] * region, dtype=torch.float64, requires_grad=True)
    out = module(x)
    weights = torch.randn(4, dtype=torch.float64)
    for y, z in pixels:
        (gradient,) = torch.autograd.grad((out[0, :, y, z] * weights).sum(), x, retain_graph=True)
        yield gradient[0].abs().sum(0)


def corners_and_inside(y0: int, y1: int, x0: int, x1: int) -> list[tuple[int, int]]:
    """The corner pixels of a region and one inside."""
    return [(y0, x0), (y0, x1 - 1), (y1 - 1, x0), (y1 - 1, x1 - 1), ((y0 + y1) // 2, (2 * x0 + x1) // 3)]


def assert_depends_on(found: torch.Tensor, y0: int, y1: int, x0: int, x1: int, halo: int) -> None:
    """Everywhere on the region; nowhere further than `halo` pixels outside it."""
    assert (found[y0:y1, x0:x1] > 0).all()
    outside = found.clone()
    outside[max(y0 - halo, 0) : y1 + halo, max(x0 - halo, 0) : x1 + halo] = 0
    assert not outside.any()


@scales
@attentions
@pytest.mark.parametrize("window", [(0, 0), (0, 3), (2, 0), (2, 3), (1, 1), (1, 2)])
def test_region_of_a_window(window: tuple[int, int], scale: float, attention: str) -> None:
    side = round(WINDOW / scale)
    y0, x0 = window[0] * side, window[1] * side
    region = (y0, y0 + side, x0, x0 + side)
    for found in dependence(scale, False, attention, corners_and_inside(*region)):
        assert_depends_on(found, *region, halo=round(1 / scale))


@scales
@attentions
@pytest.mark.parametrize("window", [(0, 0), (0, 2), (1, 0), (1, 2), (1, 1)])
def test_region_of_a_shifted_window(window: tuple[int, int], scale: float, attention: str) -> None:
    side, moved = round(WINDOW / scale), round(WINDOW / 2 / scale)
    y0, x0 = window[0] * side + moved, window[1] * side + moved
    region = (y0, y0 + side, x0, x0 + side)
    for found in dependence(scale, True, attention, corners_and_inside(*region)):
        assert_depends_on(found, *region, halo=round(1 / scale))


@scales
@attentions
def test_shifted_windows_do_not_attend_across_the_wrap(scale: float, attention: str) -> None:
    """The window that holds the map's last and first rows and columns is four regions that do not see each other."""
    side, moved = round(WINDOW / scale), round(WINDOW / 2 / scale)
    height, width = REGIONS[0] * side, REGIONS[1] * side
    for y0, y1 in ((0, moved), (height - moved, height)):
        for x0, x1 in ((0, moved), (width - moved, width)):
            for found in dependence(scale, True, attention, corners_and_inside(y0, y1, x0, x1)):
                assert_depends_on(found, y0, y1, x0, x1, halo=round(1 / scale))


@pytest.mark.parametrize("size", [(8, 8), (8, 24)])
def test_a_map_of_one_window_a_row_is_masked_when_shifted(size: tuple[int, int]) -> None:
    module = CrossScaleWindowAttention(4, 2, 1 / 2, WINDOW, True).double()
    x = torch.randn(1, 4, *size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0, :, 0, 0].sum(), x)
    assert_depends_on(gradient[0].abs().sum(0), 0, 4, 0, 4, halo=2)


def test_the_papers_window() -> None:
    """M = 8 at S = 1/8, as in the paper's first stage: the region is 64 x 64."""
    torch.manual_seed(0)
    module = CrossScaleWindowAttention(2, 1, 1 / 8, 8, True).double()
    x = torch.randn(1, 2, 128, 128, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0, :, 32, 95].sum(), x)
    assert_depends_on(gradient[0].abs().sum(0), 32, 96, 32, 96, halo=8)
