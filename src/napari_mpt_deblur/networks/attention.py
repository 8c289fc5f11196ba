"""The two attentions of MPT: across scales within windows (CSWA) and across channels (ISCA)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.networks.config import ChannelAttention, DownProjection, DownSampling, WindowAttention
from napari_mpt_deblur.networks.layers import ChannelLinear, NPConv, ScaleDown
from napari_mpt_deblur.networks.windows import Windows, attend, relative_index


class CrossScaleWindowAttention(nn.Module):
    """CSWA (section 3.1): queries at full resolution attend to keys of the same place on a down-scaled map.

    A window of M x M keys covers a region of (M/S) x (M/S) pixels. All queries of that region form one query set, so
    the keys and values are never repeated.

    Parameters
    ----------
    dim : int
        Channels C.
    heads : int
    scale : float
        S, 1 / 2**k.
    window : int
        M, the side of a window in pixels of the down-scaled map.
    shift : bool
        Whether windows are shifted by M/2 (in pixels of the down-scaled map).
    attention : {"scaled", "cosine"}
        How products of queries and keys are scaled; see `MPTConfig.window_attention`.
    down_sampling, down_projection, np_conv
        Variants; see `MPTConfig`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        scale: float,
        window: int,
        shift: bool,
        attention: WindowAttention = "scaled",
        down_sampling: DownSampling = "average",
        down_projection: DownProjection = "residual",
        np_conv: bool = True,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.relative_index: Tensor
        self.windows = Windows(window, round(1 / scale), window // 2 if shift else 0, heads)
        self.scale_down = ScaleDown(dim, self.windows.patches, down_sampling, down_projection)
        projection = NPConv if np_conv else ChannelLinear
        self.query = projection(dim, dim)
        self.key_value = projection(dim, 2 * dim)
        self.project = ChannelLinear(dim, dim)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("relative_index", relative_index(window), persistent=False)
        if attention == "cosine":
            self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W), without the residual; H and W are multiples of M/S."""
        queries = self.windows.cut(self.query(x))  # (N windows heads, (M/S)^2, d)
        small = self.key_value.split(self.scale_down(x), 2)  # each (N, C, H S, W S)
        keys, values = map(replace(self.windows, patches=1).cut, small)  # (N windows heads, M^2, d)
        scale = queries.shape[-1] ** -0.5
        if self.attention == "cosine":
            temperature = self.temperature.repeat(queries.shape[0] // self.windows.heads, 1, 1)
            queries, keys = F.normalize(queries, dim=-1) * temperature, F.normalize(keys, dim=-1)
            scale = 1.0
        bias = self.position_bias[self.relative_index].permute(2, 0, 1)  # (heads, M^2, M^2)
        mask = self.windows.mask(x.shape[2], x.shape[3], x.device)
        out = attend(queries, keys, values, bias, mask, scale)
        return self.project(self.windows.join(out, x.shape))


class IntraScaleChannelAttention(nn.Module):
    """ISCA (section 3.2, equation 2): attention among channels, over all pixels of the map.

    Parameters
    ----------
    dim : int
        Channels C.
    heads : int
    attention : {"normalised", "literal"}
        See `MPTConfig.channel_attention`.
    """

    def __init__(self, dim: int, heads: int, attention: ChannelAttention = "normalised") -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.query_key_value = NPConv(dim, 3 * dim)
        self.project = ChannelLinear(dim, dim)
        if attention == "normalised":
            self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W), without the residual."""
        pool = ChannelPool.active()
        weights = pool.get(self) if pool is not None else None
        if weights is None:
            q, k, v = self._maps(x)
            weights = self._weights(q, k, pool)
        else:
            (v,) = self._maps(x, skip=2)
        # mixing channels and then projecting them is one matrix: (1 or N, C, C)
        projection = self.project.weight.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (heads, C, C / heads)
        matrix = (projection.to(weights.dtype) @ weights).transpose(1, 2).flatten(2).to(v.dtype)
        return (v @ matrix.transpose(1, 2)).unflatten(1, x.shape[2:]).movedim(-1, 1)  # (N, C, H, W)

    def _maps(self, x: Tensor, skip: int = 0) -> list[Tensor]:
        """Query, key and value, each (N, H W, C), without the first `skip`."""
        return [part.movedim(1, -1).flatten(1, 2) for part in self.query_key_value.split(x, 3, skip)]

    def _weights(self, q: Tensor, k: Tensor, pool: ChannelPool | None) -> Tensor:
        """Attention among channels: (N, heads, C / heads, C / heads), or (1, ...), which goes into the pool in use."""
        products, q_squares, k_squares = _Statistics.apply(q, k, self.heads)
        if pool is not None:
            products, q_squares, k_squares = (x.sum(0, keepdim=True) for x in (products, q_squares, k_squares))
            if self.attention == "literal":
                products = products * pool.area_ratio
        if self.attention == "normalised":
            # normalising after the product touches (C / heads)^2 numbers instead of H W C
            q_lengths, k_lengths = (x.clamp_min(1e-24).sqrt() for x in (q_squares, k_squares))
            products = products / (q_lengths[..., :, None] * k_lengths[..., None, :])
            products = products * self.temperature.to(products.dtype)
        weights = products.softmax(dim=-1)
        if pool is not None:
            pool.put(self, weights)
        return weights


class _Statistics(Function):
    """Of (N, H W, C): products q^T k of each head, (N, heads, d, d), and sums of squares of q and of k, (N, heads, d).

    Sums over all pixels: half precision may multiply, but softmax and division want float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q, k)
        ctx.heads = heads
        exact = torch.promote_types(q.dtype, torch.float32)
        share = q.shape[1] ** -0.5 if q.dtype == torch.float16 else 1  # float16 ends at 65504, which such a sum passes
        mine, theirs = ((x * share if share != 1 else x).unflatten(-1, (heads, -1)) for x in (q, k))
        products = mine.permute(0, 2, 3, 1) @ theirs.transpose(1, 2)
        q_squares, k_squares = (x.to(exact).square().sum(1).unflatten(-1, (heads, -1)) for x in (q, k))
        return products.to(exact) / share**2, q_squares, k_squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        q, k = ctx.saved_tensors
        of_products, *of_squares = gradients
        both = []
        for x, other, products, squares in zip((q, k), (k, q), (of_products.mT, of_products), of_squares, strict=True):
            gradient = x * (2 * squares.flatten(1)[:, None]).to(x.dtype)
            for one, theirs, blocks in zip(gradient, other, products.to(x.dtype), strict=True):
                parts = zip(one.chunk(ctx.heads, -1), theirs.chunk(ctx.heads, -1), blocks, strict=True)
                for part, source, block in parts:  # (H W, d) of a head, where it lies
                    part.addmm_(source, block)
            both.append(gradient)
        return both[0], both[1], None
