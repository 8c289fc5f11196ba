"""The two attentions of MPT: across scales within windows (CSWA) and across channels (ISCA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.networks.config import (
    ChannelAttention,
    DownProjection,
    DownSampling,
    WindowAttention,
    WindowPairing,
)
from napari_mpt_deblur.networks.layers import ChannelLinear, NPConv, ScaleDown, one_step
from napari_mpt_deblur.networks.raster import RasterPairing
from napari_mpt_deblur.networks.strips import in_strips, strips
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
    down_sampling, down_projection, np_conv, pairing
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
        pairing: WindowPairing = "location",
    ) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.relative_index: Tensor
        self.windows = Windows(window, round(1 / scale), shift)
        # with as many windows of keys as of queries, both pairings are the same
        self.raster = RasterPairing(self.windows) if pairing == "raster" and self.windows.patches > 1 else None
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
        query = self.query(x) if self.raster is None else self._dealt_query(x, self.raster)
        key, value = self.key_value.split(self.scale_down(x), 2)  # each (N, C, H S, W S)
        scale = (x.shape[1] // self.heads) ** -0.5
        if self.attention == "cosine":
            query, key, scale = self._normalised(query, self.temperature), self._normalised(key), 1.0
        bias = F.embedding(self.relative_index, self.position_bias).permute(2, 0, 1)  # (heads, M^2, M^2)
        if self.raster is not None:
            return self.project(self.raster.attend(query, key, value, bias, scale))
        return self.project(attend(query, key, value, bias, self.windows, scale))

    def _dealt_query(self, x: Tensor, pairing: RasterPairing) -> Tensor:
        """Queries of the released code: small maps of its windows are what the convolution sees."""
        project, *convolve = self.query if isinstance(self.query, NPConv) else (self.query,)
        query: Tensor = pairing.deal(project(x))  # (N G, C, H S, W S)
        for convolution in convolve:
            query = convolution(query)
        return query

    def _normalised(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        """Of length one, or of that of each head's factor, over the channels of each head."""
        by_head = F.normalize(x.movedim(1, -1).unflatten(-1, (self.heads, -1)), dim=-1)  # (N, H, W, heads, d)
        if factor is not None:
            by_head = by_head * factor.flatten(1)
        return by_head.flatten(-2).movedim(-1, 1)


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
        weights = self._weights(x)
        # mixing channels and then projecting them is one matrix: (1 or N, C, C)
        projection = self.project.weight.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (heads, C, d)
        matrix = (projection.to(weights.dtype) @ weights).transpose(1, 2).flatten(2)

        def mixed(x: Tensor) -> Tensor:
            (value,) = self.query_key_value.split(x, 3, slice(2, 3))
            out = value.movedim(1, -1).flatten(1, 2) @ matrix.mT.to(value.dtype)  # (N, H W, C)
            return out.unflatten(1, x.shape[2:]).movedim(-1, 1)

        return in_strips(mixed, x, channels=x.shape[1])

    def _weights(self, x: Tensor) -> Tensor:
        """Attention among channels: (N, heads, d, d), or (1, heads, d, d) where a `ChannelPool` is in use."""
        pool = ChannelPool.active()
        known = pool.get(self) if pool else None
        if known is not None:
            return known
        scores, *squares = self._statistics(x)
        if pool:
            scores, *squares = (sums.sum(0, keepdim=True) for sums in (scores, *squares))
            if self.attention == "literal":
                scores = scores * pool.area_ratio
        if self.attention == "normalised":
            # normalising after the product touches (C / heads)^2 numbers instead of H W C
            q_lengths, k_lengths = (sums.clamp_min(1e-24).sqrt() for sums in squares)
            scores = scores / (q_lengths[..., :, None] * k_lengths[..., None, :]) * self.temperature.to(scores.dtype)
        weights = scores.softmax(dim=-1)
        if pool:
            pool.put(self, weights)
        return weights

    def _statistics(self, x: Tensor) -> list[Tensor]:
        """Sums over all pixels: of q k^T, (N, heads, d, d), and of the squares of q and of k, each (N, heads, d)."""
        sums: list[Tensor] = []
        for strip in strips(x, 2 * x.shape[1]):
            maps = self.query_key_value.split(strip.of(x), 3, slice(2))
            q, k = (each[:, :, strip.keep].movedim(1, -1).flatten(1, 2) for each in maps)
            found = one_step(_Statistics, q, k, self.heads)
            sums = [one + other for one, other in zip(sums, found, strict=True)] if sums else list(found)
        return sums


class _Statistics(Function):
    """Of q and k, each (N, H W, C): sums of q k^T, (N, heads, d, d), and of squares, each (N, heads, d)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q, k)
        ctx.heads = heads
        # sums over all pixels: half precision may multiply, but softmax and division want float32 at least
        exact = torch.promote_types(q.dtype, torch.float32)
        q_squares, k_squares = (x.to(exact).square().sum(1).unflatten(-1, (heads, -1)) for x in (q, k))
        share = q.shape[1] ** -0.5 if q.dtype == torch.float16 else 1.0  # ends at 65504, which such a sum passes
        if share != 1.0:
            q, k = q * share, k * share
        q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
        return (q.mT @ k).to(exact) / share**2, q_squares, k_squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_products: Tensor, *of_squares: Tensor) -> tuple[Tensor, Tensor, None]:
        q, k = ctx.saved_tensors
        found = []
        for x, other, products, squares in zip((q, k), (k, q), (of_products.mT, of_products), of_squares, strict=True):
            of_x = x * (2 * squares.flatten(1)[:, None]).to(x.dtype)
            for one, theirs, blocks in zip(of_x, other, products.to(x.dtype), strict=True):
                parts = zip(one.chunk(ctx.heads, -1), theirs.chunk(ctx.heads, -1), blocks, strict=True)
                for part, source, block in parts:  # (H W, d) of a head, where it lies
                    part.addmm_(source, block)
            found.append(of_x)
        return found[0], found[1], None
