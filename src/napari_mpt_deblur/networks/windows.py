"""Windows of maps: which pixels they hold, and attention within them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_MASKED = -1e4  # exp() of it is exactly 0 (not a slow subnormal), and half precision can hold it


@dataclass(frozen=True)
class Windows:
    """How maps are cut into windows.

    Attributes
    ----------
    side : int
        M, the side of a window.
    patches : int
        1/S: a window of queries is a square of so many times so many patches of M x M pixels.
    shift : int
        By how many pixels of the down-scaled map the windows are shifted.
    heads : int
    """

    side: int
    patches: int
    shift: int
    heads: int

    def cut(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N windows heads, tokens, d), each window's tokens patch by patch."""
        n, c, height, width = x.shape
        index, inverse = _rows(n, height, width, self, x.device)
        rows = _Rearrange.apply(x.movedim(1, -1).reshape(-1, c // self.heads), index, inverse)
        return rows.view(-1, (self.patches * self.side) ** 2, c // self.heads)

    def join(self, windows: Tensor, shape: torch.Size) -> Tensor:
        """(N windows heads, tokens, d) to (N, C, H, W) of `shape`; the reverse of `cut`."""
        n, c, height, width = shape
        index, inverse = _rows(n, height, width, self, windows.device)
        rows = _Rearrange.apply(windows.reshape(-1, windows.shape[-1]), inverse, index)
        return rows.view(n, height, width, c).movedim(-1, 1)

    def mask(self, height: int, width: int, device: torch.device) -> Tensor | None:
        """What shifted windows add to their scores on a map of (H, W) queries: (windows, patches^2, M^2, M^2).

        Swin's region labels, brought to the queries' map by nearest neighbour: what the cyclic roll brought together
        does not attend to each other.
        """
        if not self.shift:
            return None
        return _shift_mask(height // self.patches, width // self.patches, self.side, self.patches, device)


class _Rearrange(Function):
    """Rows in another order; the gradient is taken by the inverse order, not summed up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return rows.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.contiguous().index_select(0, ctx.inverse), None, None


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax(scale q k^T + bias + mask) v.

    Parameters
    ----------
    queries : Tensor
        (N windows heads, patches^2 M^2, d).
    keys, values : Tensor
        (N windows heads, M^2, d).
    bias : Tensor
        (heads, M^2, M^2).
    mask : Tensor, optional
        (windows, patches^2, M^2, M^2).
    scale : float

    Returns
    -------
    Tensor
        Of the queries' shape.
    """
    queries, keys, bias = (x.to(values.dtype) for x in (queries, keys, bias))
    if queries.device.type == "cpu" and torch.is_grad_enabled() and bias.requires_grad:
        # there, fused attention knows no gradient of the bias and falls back to something slower than this
        return _Attend.apply(queries, keys, values, bias, mask, scale)
    heads, tokens = bias.shape[0], keys.shape[1]
    bias = bias[:, None].expand(-1, queries.shape[1] // tokens, -1, -1)
    if mask is not None:
        bias = (bias + mask[:, None]).repeat(queries.shape[0] // (heads * mask.shape[0]), 1, 1, 1, 1)
    bias = bias.reshape(-1, heads, queries.shape[1], tokens).to(values.dtype)
    q, k, v = (x.view(-1, heads, *x.shape[1:]) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)


class _Attend(Function):
    """`attend` by its parts, in float32 or half precision, on CPUs."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        tokens = keys.shape[1]
        scores = torch.baddbmm(queries.new_zeros(1, 1, 1), queries, keys.transpose(1, 2), beta=0, alpha=scale)
        scores.view(-1, bias.shape[0], queries.shape[1] // tokens, tokens, tokens).add_(bias[:, None])
        if mask is not None:
            scores.view(-1, mask.shape[0], bias.shape[0], *mask.shape[1:]).add_(mask[:, None])
        weights = torch.softmax(scores, -1, out=scores)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.scale, ctx.bias = scale, bias.shape
        return torch.bmm(weights, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, weights = ctx.saved_tensors
        of_weights = torch.bmm(gradient, values.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        heads, tokens, _ = ctx.bias
        of_bias = of_scores.view(-1, heads, queries.shape[1] // tokens, tokens, tokens).sum(0).sum(1)
        nothing = queries.new_zeros(1, 1, 1)
        return (
            torch.baddbmm(nothing, of_scores, keys, beta=0, alpha=ctx.scale),
            torch.baddbmm(nothing, of_scores.transpose(1, 2), queries, beta=0, alpha=ctx.scale),
            torch.bmm(weights.transpose(1, 2), gradient),
            of_bias,
            None,
            None,
        )


def relative_index(side: int) -> Tensor:
    """Row of Swin's relative position table for each query and key of a window: (M^2, M^2)."""
    # by numpy: on torch's meta device, where files are checked, the same lines would import the compiler (seconds)
    position = np.arange(side)
    relative = position[:, None] - position[None, :] + side - 1  # (M, M)
    rows = relative[:, None, :, None] * (2 * side - 1)
    return torch.from_numpy((rows + relative[None, :, None, :]).reshape(side * side, side * side))


@lru_cache(maxsize=64)
def _rows(n: int, height: int, width: int, windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the rows of windows lie among those of a map, and the reverse.

    A map has the rows (N, H, W, heads), windows have (N, windows, heads, tokens).
    """
    side, patches, heads = windows.side, windows.patches, windows.heads
    moved = windows.shift * patches
    region = side * patches
    with torch.inference_mode(False):  # cached: must serve training after inference
        rows = torch.arange(n * height * width * heads, device=device)
        x = rows.view(n, height, width, heads).roll((-moved, -moved), (1, 2))
        x = x.view(n, height // region, patches, side, width // region, patches, side, heads)
        index = x.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(-1)
        inverse = torch.empty_like(index)
        inverse[index] = rows
        return index, inverse


@lru_cache(maxsize=16)
def _shift_mask(height: int, width: int, side: int, patches: int, device: torch.device) -> Tensor:
    """On a (height, width) map of keys: (windows, patches^2, M^2, M^2)."""
    with torch.inference_mode(False):
        rows, columns = (_region_of(size, side, device) for size in (height, width))
        keys = (rows[:, None] * 3 + columns[None, :])[None, None]  # (1, 1, h, w)
        queries = keys.repeat_interleave(patches, 2).repeat_interleave(patches, 3)  # (1, 1, h / S, w / S)
        key_labels = Windows(side, 1, 0, 1).cut(keys)[:, None, None, :, 0]  # (windows, 1, 1, M^2)
        query_labels = Windows(side, patches, 0, 1).cut(queries)[..., 0]
        query_labels = query_labels.view(-1, patches**2, side**2, 1)
        return (
            torch.zeros((), device=device)
            .expand(*query_labels.shape[:3], side**2)
            .masked_fill(query_labels != key_labels, _MASKED)
        )


def _region_of(size: int, side: int, device: torch.device) -> Tensor:
    index = torch.arange(size, device=device)
    return (index >= size - side).long() + (index >= size - side // 2).long()
