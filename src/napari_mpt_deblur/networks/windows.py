"""Windows of maps: which pixels they hold, and attention within them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_TOGETHER = 256  # windows, times heads, whose scores stay in the processor's cache (4 MB at M = 8)
_MASKED = -1e4  # exp() of it, and of twice it, is exactly 0 (not a slow subnormal), and half precision can hold them


@dataclass(frozen=True)
class Windows:
    """How maps are cut into windows.

    Attributes
    ----------
    side : int
        M, the side of a window of keys; even.
    patches : int
        1/S: a window of queries is a square of so many times so many patches of M x M pixels.
    shifted : bool
        Whether windows are shifted by half a window.
    """

    side: int
    patches: int
    shifted: bool

    @property
    def keys(self) -> Windows:
        """Those of the keys, on the down-scaled map."""
        return replace(self, patches=1)

    @property
    def _moved(self) -> int:
        """By how many pixels of the queries' map windows are shifted."""
        return self.side // 2 * self.patches if self.shifted else 0

    def cut(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N windows, tokens, C): windows in raster order, the tokens of each patch by patch."""
        if torch.jit.is_tracing():
            return self._cut_by_shape(x)
        index, _ = _places(len(x), *x.shape[2:], self, x.device)
        runs = x.movedim(1, -1).reshape(len(index), -1).index_select(0, index)
        return runs.view(-1, (self.patches * self.side) ** 2, x.shape[1])

    def join(self, windows: Tensor, shape: torch.Size) -> Tensor:
        """(N windows, tokens, C) to (N, C, H, W) of `shape`; the reverse of `cut`."""
        n, c, height, width = shape
        if torch.jit.is_tracing():
            return self._join_by_shape(windows, n, height, width)
        _, index = _places(n, height, width, self, windows.device)
        return windows.reshape(len(index), -1).index_select(0, index).view(n, height, width, c).movedim(-1, 1)

    def _cut_by_shape(self, x: Tensor) -> Tensor:
        """`cut` without an index of places, which belongs to one size and device: a recording is to serve all."""
        n, c, height, width = x.shape
        side, patches, region = self.side, self.patches, self.side * self.patches
        moved = self._moved
        x = x.movedim(1, -1).roll((-moved, -moved), (1, 2))
        x = x.reshape(n, height // region, patches, side, width // region, patches, side, c)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, region**2, c)

    def _join_by_shape(self, windows: Tensor, n: int, height: int, width: int) -> Tensor:
        side, patches, region = self.side, self.patches, self.side * self.patches
        x = windows.reshape(n, height // region, width // region, patches, patches, side, side, -1)
        x = x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, height, width, -1)
        return x.roll((self._moved, self._moved), (1, 2)).movedim(-1, 1)

    def mask_(self, scores: Tensor) -> None:
        """Part what only the wrap of the map brought together, in place.

        Windows are shifted by rolling the map. So the last row of them and the last column hold two halves that do not
        attend to each other: Swin's mask, brought to the queries' map by nearest neighbour.

        Parameters
        ----------
        scores : Tensor
            (N, rows of windows, columns of windows, heads, patches^2, M^2, M^2).
        """
        if self.shifted:
            rows, columns = _halves_apart(self.side, self.patches, scores.device).to(scores.dtype)
            scores[:, -1] += rows
            scores[:, :, -1] += columns


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, windows: Windows, scale: float) -> Tensor:
    """Within each window, Softmax(scale q k^T + bias) v.

    Parameters
    ----------
    query : Tensor
        (N, C, H, W).
    key, value : Tensor
        (N, C, H S, W S).
    bias : Tensor
        (heads, M^2, M^2), the same for every patch of a window.
    windows : Windows
        Of the queries.
    scale : float

    Returns
    -------
    Tensor
        Of the queries' shape.
    """
    query, key, bias = (x.to(value.dtype) for x in (query, key, bias))
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value, bias))
    if value.device.type == "cpu" and wanted:
        # there, fused attention knows no gradient of the bias and falls back to something slower than this
        return _Attend.apply(query, key, value, bias, windows, scale)
    if value.device.type == "cpu" and value.dtype.itemsize >= 4 and windows.patches == 1 and not torch.jit.is_tracing():
        return _attend_by_rows(query, key, value, bias, windows, scale)
    heads, tokens, _ = bias.shape
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in _cut(query, key, value, windows))
    bias = bias[:, None].expand(-1, windows.patches**2, -1, -1)
    if windows.shifted:
        bias = bias.expand(*_grid(query, windows), *bias.shape).clone()
        windows.mask_(bias)
    bias = bias.reshape(-1, heads, q.shape[2], tokens)  # (1 or N windows, heads, (M/S)^2, M^2)
    out = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)  # (N windows, heads, (M/S)^2, d)
    return windows.join(out.transpose(1, 2), query.shape)


def _attend_by_rows(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, windows: Windows, scale: float) -> Tensor:
    """`attend`, some rows of windows after the other, whose scores stay in the cache.

    For as many queries as keys; fused attention wants more queries for each key, and is slower here on processors.
    """
    (n, rows, columns), heads = _grid(query, windows), len(bias)
    q, k, v = (each.unflatten(0, (n, rows, columns)) for each in _cut(query, key, value, windows))
    most = min(rows, max(1, _TOGETHER // (columns * heads)))
    bias = bias[:, None].expand(1, most + 1, columns, -1, 1, -1, -1).clone()
    windows.mask_(bias)  # the last row of windows has a mask of its own
    bias = bias.flatten(2, 4)[0]  # (rows, columns heads, M^2, M^2)
    out = torch.empty_like(q)  # (N, rows, columns, M^2, C)
    for image in range(n):
        for first in range(0, rows, most):
            place = image, slice(first, min(first + most, rows))
            row_q, row_k, row_v = (_by_head(each[place].flatten(0, 1), heads) for each in (q, k, v))
            taken = slice(-(place[1].stop - first), None) if place[1].stop == rows else slice(most)
            scores = torch.baddbmm(bias[taken].flatten(0, 1), row_q, row_k.mT, alpha=scale)
            weights = torch.softmax(scores, -1, out=scores)
            out[place] = _by_token(torch.bmm(weights, row_v), heads).flatten(-2).unflatten(0, (-1, columns))
    return windows.join(out, query.shape)


class _Attend(Function):
    """`attend` by its parts."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, windows: Windows, scale: float
    ) -> Tensor:
        heads = len(bias)
        q, k, v = (_by_head(each, heads) for each in _cut(query, key, value, windows))
        scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha=scale)
        by_patch = scores.view(*_grid(query, windows), heads, -1, *bias.shape[1:])
        by_patch.add_(bias[:, None])
        windows.mask_(by_patch)
        weights = torch.softmax(scores, -1, out=scores)
        ctx.save_for_backward(q, k, v, weights)
        ctx.heads, ctx.windows, ctx.scale, ctx.shapes = heads, windows, scale, (query.shape, key.shape)
        return windows.join(_by_token(torch.bmm(weights, v), heads), query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        windows, nothing = ctx.windows, q.new_zeros(1, 1, 1)
        gradient = _by_head(windows.cut(gradient), ctx.heads)
        of_weights = torch.bmm(gradient, v.mT)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_bias = of_scores.view(-1, ctx.heads, windows.patches**2, k.shape[1], k.shape[1]).sum((0, 2))
        of_q = torch.baddbmm(nothing, of_scores, k, beta=0, alpha=ctx.scale)
        of_k = torch.baddbmm(nothing, of_scores.mT, q, beta=0, alpha=ctx.scale)
        of_v = torch.bmm(weights.mT, gradient)
        large, small = ctx.shapes
        of_q = windows.join(_by_token(of_q, ctx.heads), large)
        of_k, of_v = (windows.keys.join(_by_token(of, ctx.heads), small) for of in (of_k, of_v))
        return of_q, of_k, of_v, of_bias, None, None


def _cut(query: Tensor, key: Tensor, value: Tensor, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
    return windows.cut(query), windows.keys.cut(key), windows.keys.cut(value)


def _grid(query: Tensor, windows: Windows) -> tuple[int, int, int]:
    """Images, rows and columns of windows."""
    region = windows.side * windows.patches
    return query.shape[0], query.shape[2] // region, query.shape[3] // region


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(N windows, tokens, C) to (N windows heads, tokens, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _by_token(x: Tensor, heads: int) -> Tensor:
    """(N windows heads, tokens, d) to (N windows, tokens, heads, d)."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2)


def relative_index(side: int) -> Tensor:
    """Row of Swin's relative position table for each query and key of a window: (M^2, M^2)."""
    # by numpy: on torch's meta device, where files are checked, the same lines would import the compiler (seconds)
    position = np.arange(side)
    relative = position[:, None] - position[None, :] + side - 1  # (M, M)
    rows = relative[:, None, :, None] * (2 * side - 1)
    return torch.from_numpy((rows + relative[None, :, None, :]).reshape(side * side, side * side))


@lru_cache(maxsize=64)
def _places(n: int, height: int, width: int, windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where what lies in windows lies in the map, and the reverse, counted in runs of M/2 pixels of a row.

    A map has (N, H, W) pixels, windows have (N, rows and columns of windows, rows and columns of patches, M, M).
    """
    side, patches = windows.side, windows.patches
    region, half, moved = side * patches, side // 2, windows._moved
    with torch.inference_mode(False):  # cached: must serve training after inference
        runs = torch.arange(n * height * width // half, device=device)
        x = runs.view(n, height, -1).roll((-moved, -moved // half), (1, 2))
        x = x.view(n, height // region, patches, side, width // region, patches, 2)
        index = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1)
        inverse = torch.empty_like(index)
        inverse[index] = runs
        return index, inverse


def forget_places() -> None:
    """Give up what is kept of where windows lie: tables on the device that attended last."""
    _places.cache_clear()


@lru_cache(maxsize=16)
def _halves_apart(side: int, patches: int, device: torch.device) -> Tensor:
    """What parts the upper from the lower half of a window, and the left from the right: (2, patches^2, M^2, M^2)."""
    with torch.inference_mode(False):
        keys = torch.arange(side, device=device) >= side // 2  # (M)
        queries = keys.repeat_interleave(patches).view(patches, 1, side, 1)
        apart = queries.expand(-1, patches, -1, side).reshape(-1, side, side, 1, 1) != keys[:, None]
        rows = apart.expand(-1, -1, -1, side, side).reshape(-1, side**2, side**2)
        columns = rows.view(patches, patches, side, side, side, side).permute(1, 0, 3, 2, 5, 4).reshape(rows.shape)
        return torch.stack((rows, columns)) * _MASKED
