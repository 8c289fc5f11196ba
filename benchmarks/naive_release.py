"""The yardstick of speed: the Multi-Pyramid Transformer as it was released, with its arithmetic written out naively.

Keys and values are repeated for every window of queries, windows are cut explicitly, images lie contiguous in memory
channel by channel, and attention is two matrix products around a softmax. Nothing is done to slow it down: batched
matrix products, fused layer normalisation, PyTorch's own convolutions. Weights have the names of the published
checkpoints. Written from a description of the released arithmetic (cosine attention with temperatures, windows paired
by raster index, the feed-forward network's shortcut from the channel branch), not from its code.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mpt_deblur.networks import MPTConfig


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def point_wise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def depth_wise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def to_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, H W, C) to (N, C, H, W), contiguous."""
    return tokens.transpose(1, 2).contiguous().view(tokens.shape[0], -1, height, width)


def to_windows(x: Tensor, m: int) -> Tensor:
    """(N, C, H, W) to (N, windows, M^2, C), in raster order."""
    n, c, height, width = x.shape
    x = x.view(n, c, height // m, m, width // m, m)
    return x.permute(0, 2, 4, 3, 5, 1).contiguous().view(n, -1, m * m, c)


def from_windows(windows: Tensor, height: int, width: int, m: int) -> Tensor:
    """(N, windows, M^2, C) to (N, C, H, W)."""
    n, c = windows.shape[0], windows.shape[-1]
    x = windows.view(n, height // m, width // m, m, m, c)
    return x.permute(0, 5, 1, 3, 2, 4).contiguous().view(n, c, height, width)


class LayerNorm(nn.Module):
    """Over the channels of each pixel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.body(to_tokens(x)), *x.shape[2:])


class ScaleDown(nn.Module):
    """Strided average pooling, then a linear projection with a shortcut."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.downproj = linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(F.avg_pool2d(x, self.factor))
        return to_map(tokens + self.downproj(tokens), x.shape[2] // self.factor, x.shape[3] // self.factor)


class Attention(nn.Module):
    """Both attentions of a sub-block; of the pairs of weights, 0 is the channels', 1 the windows'."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int, factor: int, shift: bool) -> None:
        super().__init__()
        self.heads, self.window, self.factor, self.shift = heads, window, factor, window // 2 if shift else 0
        self.q = nn.ModuleList([point_wise(dim, dim), linear(dim, dim)])
        self.kv = nn.ModuleList([point_wise(dim, 2 * dim), linear(dim, 2 * dim)])
        self.q_dwconv = nn.ModuleList([depth_wise(dim), depth_wise(dim)])
        self.kv_dwconv = nn.ModuleList([depth_wise(2 * dim), depth_wise(2 * dim)])
        self.temperature = nn.ParameterList([torch.ones(heads, 1, 1), torch.ones(heads, 1, 1)])
        self.project_out = nn.ModuleList([linear(dim, dim), linear(dim, dim)])
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        if factor > 1:
            self.downsamp = ScaleDown(dim, factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to the channels' and the windows' attention, of the same shape."""
        return self.channels(x), self.windows(x)

    def channels(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        q = self.q_dwconv[0](self.q[0](x))
        k, v = self.kv_dwconv[0](self.kv[0](x)).chunk(2, dim=1)
        q, k, v = (a.reshape(n, self.heads, c // self.heads, height * width) for a in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature[0]).softmax(dim=-1)
        out = (attention @ v).view(n, c, height * width).transpose(1, 2)
        return to_map(self.project_out[0](out), height, width)

    def windows(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        m, group = self.window, self.factor**2
        small = (height // self.factor, width // self.factor)
        y = self.downsamp(x) if self.factor > 1 else x
        q = to_map(self.q[1](to_tokens(x)), height, width)
        kv = self.kv_dwconv[1](to_map(self.kv[1](to_tokens(y)), *small))
        if self.factor > 1:  # by raster index: the list of q's windows fills maps of the down-scaled size, in order
            q = from_windows(to_windows(q, m).view(n * group, -1, m * m, c), *small, m)  # (N G, C, H S, W S)
        q = self.q_dwconv[1](q)
        if self.shift:
            q, kv = (torch.roll(a, (-self.shift, -self.shift), (2, 3)) for a in (q, kv))
        q = to_windows(q, m).view(n, -1, m * m, c)
        k, v = to_windows(kv, m).repeat_interleave(group, dim=1).chunk(2, dim=-1)
        q, k, v = (self._split_heads(a) for a in (q, k, v))  # (N, windows, heads, M^2, C / heads)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.transpose(-2, -1) * self.temperature[1] + self._bias()
        if self.shift:
            mask = shift_mask(*small, m, self.shift, x.device)  # (windows of the small map, M^2, M^2)
            scores = scores + mask.repeat_interleave(group, dim=0)[None, :, None]
        out = (scores.softmax(dim=-1) @ v).transpose(2, 3).reshape(n, -1, m * m, c)
        out = from_windows(out, height, width, m)
        if self.shift:
            out = torch.roll(out, (self.shift, self.shift), (2, 3))
        return to_map(self.project_out[1](to_tokens(out)), height, width)

    def _split_heads(self, windows: Tensor) -> Tensor:
        n, count, tokens, c = windows.shape
        return windows.view(n, count, tokens, self.heads, c // self.heads).transpose(2, 3)

    def _bias(self) -> Tensor:
        tokens = self.window**2
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(tokens, tokens, self.heads).permute(2, 0, 1).contiguous()  # (heads, M^2, M^2)


class FeedForward(nn.Module):
    """The channel branch, activated, gates the window branch, and is the shortcut."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.project_in1 = point_wise(dim, hidden)
        self.dwconv1 = depth_wise(hidden)
        self.project_in2 = linear(dim, hidden)
        self.project_out = linear(hidden, dim)

    def forward(self, channels: Tensor, windows: Tensor) -> Tensor:
        height, width = channels.shape[2:]
        gate = F.gelu(self.dwconv1(self.project_in1(channels)))
        gated = gate * to_map(self.project_in2(to_tokens(windows)), height, width)
        return to_map(self.project_out(to_tokens(gated)), height, width)


class SubBlock(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, factor: int, shift: bool, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, heads, window, factor, shift)
        self.norm2 = nn.ModuleList([LayerNorm(dim), LayerNorm(dim)])
        self.ffn = FeedForward(dim, int(expansion * dim))

    def forward(self, x: Tensor) -> Tensor:
        channels, windows = (branch + x for branch in self.attn(self.norm1(x)))
        return self.ffn(self.norm2[0](channels), self.norm2[1](windows)) + channels


class Resample(nn.Module):
    """3x3 convolution, then pixel-unshuffle or pixel-shuffle."""

    def __init__(self, inputs: int, outputs: int, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class NaiveRelease(nn.Module):
    """The released network.

    Parameters
    ----------
    config : MPTConfig
        Its channels, widths, heads, scales, window and expansion.
    """

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        dims = config.dims

        def block(stage: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    SubBlock(
                        dims[stage], config.heads[stage], config.window, round(1 / scale), j % 2 == 1, config.expansion
                    )
                    for j, scale in enumerate(config.scales[stage])
                )
            )

        self.inproj = nn.Conv2d(config.in_channels, dims[0], 3, padding=1, bias=False)
        self.encoder_level1, self.encoder_level2, self.encoder_level3 = block(0), block(1), block(2)
        self.latent = block(3)
        self.decoder_level3, self.decoder_level2, self.decoder_level1 = block(2), block(1), block(0)
        self.down1_2, self.down2_3, self.down3_4 = (
            Resample(dims[i], dims[i + 1] // 4, nn.PixelUnshuffle(2)) for i in range(3)
        )
        self.up2_1, self.up3_2, self.up4_3 = (Resample(dims[i + 1], dims[i] * 4, nn.PixelShuffle(2)) for i in range(3))
        self.output = nn.Conv2d(dims[0], config.in_channels, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        level1 = self.encoder_level1(self.inproj(image))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.latent(self.down3_4(level3))
        x = self.decoder_level3(self.up4_3(x) + level3)
        x = self.decoder_level2(self.up3_2(x) + level2)
        x = self.decoder_level1(self.up2_1(x) + level1)
        return self.output(x) + image


def relative_position_index(window: int) -> Tensor:
    """Row of Swin's table for each pair of pixels of a window: (M^2, M^2)."""
    position = torch.arange(window)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(position, position, indexing="ij"))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


@lru_cache
def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Swin's mask of shifted windows: (windows, M^2, M^2), -100 where regions differ."""
    labels = torch.zeros(1, 1, height, width, device=device)
    slices = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(slices):
        for j, columns in enumerate(slices):
            labels[:, :, rows, columns] = 3 * i + j
    regions = to_windows(labels, window)[0, :, :, 0]  # (windows, M^2)
    return (regions[:, :, None] != regions[:, None, :]) * -100.0
