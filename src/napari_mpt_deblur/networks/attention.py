"""The two attentions of MPT: across scales within windows (CSWA) and across channels (ISCA)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.networks.config import (
    ChannelAttention,
    DownProjection,
    DownSampling,
    WindowAttention,
    WindowPairing,
)
from napari_mpt_deblur.networks.layers import ChannelLinear, NPConv, ScaleDown
from napari_mpt_deblur.networks.raster import RasterPairing

_MASKED = -1e4  # exp() of it is exactly 0 (not a slow subnormal), and half precision can hold it


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
        self.heads, self.window, self.attention = heads, window, attention
        self.relative_index: Tensor
        self.factor = round(1 / scale)
        # with as many windows of keys as of queries, both pairings are the same
        self.raster = RasterPairing(self.factor, window) if pairing == "raster" and self.factor > 1 else None
        self.shift = window // 2 if shift else 0
        self.scale_down = ScaleDown(dim, self.factor, down_sampling, down_projection)
        projection = NPConv if np_conv else ChannelLinear
        self.query = projection(dim, dim)
        self.key_value = projection(dim, 2 * dim)
        self.project = ChannelLinear(dim, dim)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("relative_index", _relative_index(window), persistent=False)
        if attention == "cosine":
            self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W), without the residual; H and W are multiples of M/S."""
        if self.raster is not None:
            return self._by_raster_index(x, self.raster)
        region = self.window * self.factor
        q = self.query(x)  # (N, C, H, W)
        kv = self.key_value(self.scale_down(x))  # (N, 2C, H S, W S)
        if self.shift:
            q = torch.roll(q, (-self.shift * self.factor,) * 2, (2, 3))
            kv = torch.roll(kv, (-self.shift,) * 2, (2, 3))
        queries = _cut(q, region, self.heads)  # (N, windows, heads, (M/S)^2, d)
        key, value = _cut(kv, self.window, 2 * self.heads).chunk(2, dim=2)  # (N, windows, heads, M^2, d)
        out = self._attend(queries, key, value, self._bias(x, queries.dtype))
        out = _join(out, x.shape, region)  # (N, C, H, W)
        if self.shift:
            out = torch.roll(out, (self.shift * self.factor,) * 2, (2, 3))
        return self.project(out)

    def _attend(self, queries: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(N, windows, heads, queries or M^2, d) to (N windows, heads, queries, d)."""
        scale = None
        if self.attention == "cosine":
            queries, key = F.normalize(queries, dim=-1) * self.temperature, F.normalize(key, dim=-1)
            scale = 1.0
        return F.scaled_dot_product_attention(
            queries.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), bias, scale=scale
        )

    def _by_raster_index(self, x: Tensor, pairing: RasterPairing) -> Tensor:
        """The released code's pairing of windows; as `forward`."""
        project, *convolve = self.query if isinstance(self.query, NPConv) else (self.query,)
        q = pairing.deal(project(x))  # (N G, C, H S, W S)
        for convolution in convolve:
            q = convolution(q)
        kv = self.key_value(self.scale_down(x))  # (N, 2C, H S, W S)
        if self.shift:
            q, kv = (torch.roll(a, (-self.shift,) * 2, (2, 3)) for a in (q, kv))
        queries = pairing.query_sets(_cut(q, self.window, self.heads), x.shape[0])  # (N, windows, heads, G M^2, d)
        key, value = _cut(kv, self.window, 2 * self.heads).chunk(2, dim=2)  # (N, windows, heads, M^2, d)
        mask = _shift_mask(*kv.shape[2:], self.window, 1, x.device) if self.shift else None
        bias = pairing.bias(self.position_bias[self.relative_index], mask, x.shape[0]).to(queries.dtype)
        out = pairing.single_windows(self._attend(queries, key, value, bias))
        out = _join(out, x.shape, self.window)  # (N, C, H, W)
        if self.shift:
            out = torch.roll(out, (self.shift,) * 2, (2, 3))
        return self.project(out)

    def _bias(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Position bias, and for shifted windows the mask: (1 or N windows, heads, (M/S)^2, M^2)."""
        m, f = self.window, self.factor
        bias = self.position_bias[self.relative_index]  # (M^2, M^2, heads)
        bias = bias.permute(2, 0, 1).reshape(self.heads, 1, m, 1, m, m * m)
        # a query's position counts inside its own M x M patch: the same bias for all patches that share the keys
        bias = bias.expand(-1, f, -1, f, -1, -1).reshape(1, self.heads, (m * f) ** 2, m * m)
        if self.shift:
            height, width = x.shape[2] // f, x.shape[3] // f
            mask = _shift_mask(height, width, m, f, x.device)  # (windows, (M/S)^2, M^2)
            bias = (bias + mask[:, None]).repeat(x.shape[0], 1, 1, 1)
        return bias.to(dtype)


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
        n, c, height, width = x.shape
        tokens = self.query_key_value(x).movedim(1, -1).reshape(n, height * width, 3, self.heads, c // self.heads)
        q, k, v = tokens.permute(2, 0, 3, 4, 1)  # each (N, heads, C / heads, H W)
        weights = self._channel_weights(q, k).to(v.dtype)
        out = v.transpose(-1, -2) @ weights.transpose(-1, -2)  # (N, heads, H W, C / heads)
        out = out.transpose(1, 2).reshape(n, height, width, c).movedim(-1, 1)  # (N, C, H, W)
        return self.project(out)

    def _channel_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Attention among channels: (N, heads, C / heads, C / heads), or (1, ...) where a `ChannelPool` is in use."""
        pool = ChannelPool.active()
        if pool is None:
            return self._softmax(_channel_products(q, k), *self._lengths(q, k))
        weights = pool.get(self)
        if weights is None:
            products = _channel_products(q, k).sum(0, keepdim=True)
            if self.attention == "literal":
                products = products * pool.area_ratio
            lengths = (torch.linalg.vector_norm(x, dim=0, keepdim=True) for x in self._lengths(q, k))
            weights = self._softmax(products, *lengths)
            pool.put(self, weights)
        return weights

    def _lengths(self, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        return (_lengths(q), _lengths(k)) if self.attention == "normalised" else ()

    def _softmax(self, scores: Tensor, *lengths: Tensor) -> Tensor:
        if self.attention == "normalised":
            # normalising after the product touches (C / heads)^2 numbers instead of H W C
            q_lengths, k_lengths = lengths
            product = q_lengths[..., :, None] * k_lengths[..., None, :]
            scores = scores / product.clamp_min(1e-12) * self.temperature.to(scores.dtype)
        return scores.softmax(dim=-1)


def _channel_products(q: Tensor, k: Tensor) -> Tensor:
    # sums over all pixels: half precision may multiply, but softmax and division want float32 at least
    if q.dtype == torch.float16:  # ends at 65504, which such a sum passes
        share = q.shape[-1] ** -0.5
        return ((q * share) @ (k * share).transpose(-1, -2)).float() / share**2
    return (q @ k.transpose(-1, -2)).to(_at_least_float32(q))


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, dtype=_at_least_float32(x))


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _cut(x: Tensor, side: int, heads: int) -> Tensor:
    """(N, heads d, H, W) to (N, windows, heads, side^2, d), windows in raster order."""
    n, c, height, width = x.shape
    x = x.movedim(1, -1).reshape(n, height // side, side, width // side, side, heads, c // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(n, -1, heads, side * side, c // heads)


def _join(windows: Tensor, shape: torch.Size, side: int) -> Tensor:
    """(N windows, heads, side^2, d) back to (N, heads d, H, W) of `shape`; the reverse of `_cut`."""
    n, c, height, width = shape
    x = windows.reshape(n, height // side, width // side, -1, side, side, windows.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, height, width, c).movedim(-1, 1)


def _relative_index(window: int) -> Tensor:
    """Row of Swin's relative position table for each query and key of a window: (M^2, M^2)."""
    # by numpy: on torch's meta device, where files are checked, the same lines would import the compiler (seconds)
    position = np.arange(window)
    relative = position[:, None] - position[None, :] + window - 1  # (M, M)
    rows = relative[:, None, :, None] * (2 * window - 1)
    return torch.from_numpy((rows + relative[None, :, None, :]).reshape(window * window, window * window))


@lru_cache(maxsize=16)
def _shift_mask(height: int, width: int, window: int, factor: int, device: torch.device) -> Tensor:
    """Additive mask of shifted windows on a (height, width) map of keys: (windows, (M/S)^2, M^2).

    Swin's region labels, brought to the queries' map by nearest neighbour: what the cyclic roll brought together
    does not attend to each other.
    """
    with torch.inference_mode(False):  # cached: must serve training after inference
        rows, columns = (_region_of(size, window, device) for size in (height, width))
        keys = (rows[:, None] * 3 + columns[None, :])[None, None].float()  # (1, 1, h, w)
        queries = F.interpolate(keys, scale_factor=factor, mode="nearest")  # (1, 1, h / S, w / S)
        key_labels = _cut(keys, window, 1)[0, :, 0, :, 0]  # (windows, M^2)
        query_labels = _cut(queries, window * factor, 1)[0, :, 0, :, 0]  # (windows, (M/S)^2)
        differ = query_labels[:, :, None] != key_labels[:, None, :]
        return torch.zeros(differ.shape, device=device).masked_fill_(differ, _MASKED)


def _region_of(size: int, window: int, device: torch.device) -> Tensor:
    index = torch.arange(size, device=device)
    return (index >= size - window).long() + (index >= size - window // 2).long()
