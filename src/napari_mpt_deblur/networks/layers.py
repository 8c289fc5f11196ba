"""Small layers that the attention and feed-forward blocks share.

All take and return (N, C, H, W) tensors and are fastest on channels-last memory, where a linear layer over channels
needs no copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)  # (N, C, H, W)


class ChannelLinear(nn.Linear):
    """A bias-free linear layer over the channels of each pixel, the same as a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)  # (N, C', H, W)


class DepthwiseConv(nn.Conv2d):
    """A bias-free 3x3 convolution of each channel by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)


class NPConv(nn.Sequential):
    """Neighbouring-padding convolution: project, then 3x3 depth-wise over the whole map.

    The convolution runs before windows are cut, so that a window's edge pixels see their real neighbours
    (section 3.1, "NPConv").
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(ChannelLinear(in_channels, out_channels), DepthwiseConv(out_channels))


class ScaleDown(nn.Module):
    """CSWA's down-sampling module: strided average pooling, linear projection, shortcut (section 3.1).

    Parameters
    ----------
    channels : int
    factor : int
        1/S; 1 leaves the map as it is and holds no weights.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.project = ChannelLinear(channels, channels) if factor > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.project is None:
            return x
        pooled = F.avg_pool2d(x, self.factor)  # (N, C, H S, W S)
        return pooled + self.project(pooled)


class StageDown(nn.Sequential):
    """Between stages: 3x3 convolution to a quarter of the next width, then pixel-unshuffle by 2.

    (N, C, H, W) to (N, C', H/2, W/2); the next width C' is a multiple of 4 (2C in the paper).
    """

    def __init__(self, channels: int, next_channels: int) -> None:
        super().__init__(nn.Conv2d(channels, next_channels // 4, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


class StageUp(nn.Sequential):
    """Between stages: 3x3 convolution to four times the next width, then pixel-shuffle by 2."""

    def __init__(self, channels: int, next_channels: int) -> None:
        super().__init__(nn.Conv2d(channels, next_channels * 4, 3, padding=1, bias=False), nn.PixelShuffle(2))


def as_channels_last(x: Tensor) -> Tensor:
    """The same values in channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last)
