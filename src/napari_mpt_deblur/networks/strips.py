"""Maps worked on in strips of rows: what lies between input and output stays small, in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_STRIP_NUMBERS = 2**21  # 8 MB in float32: larger ones leave the cache, smaller ones repeat more of their neighbours
_HALO = 1  # rows of neighbours that a 3x3 convolution needs


@dataclass(frozen=True)
class Strip:
    """Some rows of a map: which to read, and which of those to keep."""

    read: slice
    keep: slice

    def of(self, x: Tensor) -> Tensor:
        """The rows to read of (N, C, H, W)."""
        return x[:, :, self.read]


def strips(x: Tensor, channels: int) -> Iterator[Strip]:
    """Strips that together keep every row of a map.

    On the CPU, where no gradients are wanted, so that as many rows of `channels` channels stay small; elsewhere all is
    one strip, since gradients need what lies between, and accelerators want much to do.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    channels : int
        The most that lie between input and output.
    """
    if torch.jit.is_tracing():  # what is recorded is to serve every height
        yield Strip(slice(None), slice(None))
        return
    n, _, height, width = x.shape
    many = x.device.type == "cpu" and not torch.is_grad_enabled()
    count = -(-n * channels * height * width // _STRIP_NUMBERS) if many else 1
    rows = -(-height // min(count, height))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        start = max(first - _HALO, 0)
        yield Strip(slice(start, min(last + _HALO, height)), slice(first - start, last - start))


def in_strips(function: Callable[..., Tensor], *maps: Tensor, channels: int) -> Tensor:
    """A function of maps, computed strip by strip.

    Parameters
    ----------
    function : callable
        Takes (N, C, H, W), gives the same height and width; a row depends on its neighbours and no further, and past
        the first and the last row there are zeros.
    *maps : Tensor
        (N, C, H, W).
    channels : int
        See `strips`.
    """
    done = 0
    out = None
    for strip in strips(maps[0], channels):
        part = function(*map(strip.of, maps))[:, :, strip.keep]
        if part.shape[2] == maps[0].shape[2]:
            return part
        if out is None:
            n, c, _, width = part.shape
            out = part.new_empty((n, maps[0].shape[2], width, c)).movedim(-1, 1)
        out[:, :, done : done + part.shape[2]] = part
        done += part.shape[2]
    assert out is not None
    return out
