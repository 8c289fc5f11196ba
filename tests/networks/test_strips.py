"""Strips keep every row once, read the neighbours, and are as large as they may be."""

from __future__ import annotations

import pytest
import torch

from napari_mpt_deblur.networks import strips
from napari_mpt_deblur.networks.strips import in_strips


@pytest.mark.parametrize(("height", "rows"), [(1, 1), (7, 1), (7, 3), (8, 4), (8, 100)])
def test_every_row_once_with_its_neighbours(height: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "_STRIP_NUMBERS", rows * 2 * 6 * 5)
    x = torch.arange(height).view(1, 1, height, 1).expand(2, 3, height, 5)
    kept: list[int] = []
    with torch.no_grad():
        for strip in strips.strips(x, channels=6):
            read = strip.of(x)[0, 0, :, 0].tolist()
            keep = read[strip.keep]
            assert len(keep) <= rows
            assert read == list(range(max(keep[0] - 1, 0), min(keep[-1] + 2, height)))
            kept += keep
    assert kept == list(range(height))


def test_a_map_that_learns_is_one_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "_STRIP_NUMBERS", 1)
    x = torch.rand(1, 2, 9, 4)
    assert len(list(strips.strips(x, 2))) == 1
    with torch.no_grad():
        assert len(list(strips.strips(x, 2))) == 9
        assert len(list(strips.strips(x.to("meta"), 2))) == 1  # as on every device but the CPU


def test_a_convolution_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "_STRIP_NUMBERS", 100)
    convolution = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False).double()
    x = torch.rand(2, 3, 11, 5, dtype=torch.float64)
    with torch.no_grad():
        out = in_strips(convolution, x, channels=4)
        torch.testing.assert_close(out, convolution(x), rtol=0, atol=1e-12)
    assert out.is_contiguous(memory_format=torch.channels_last)
