"""Small layers that the attention and feed-forward blocks share.

All take and return (N, C, H, W) tensors and are fastest on channels-last memory, where a linear layer over channels
needs no copy.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mpt_deblur.networks.config import DownProjection, DownSampling


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)  # (N, C, H, W)


class ChannelLinear(nn.Linear):
    """A bias-free linear layer over the channels of each pixel, the same as a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight)  # (N, C', H, W)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """`forward` in so many equal parts of its channels; see `NPConv.split`."""
        return tuple(_linear(x, weight) for weight in self.weight.chunk(parts))


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x.movedim(1, -1), weight).movedim(-1, 1)


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

    def split(self, x: Tensor, parts: int, chosen: slice = slice(None)) -> tuple[Tensor, ...]:
        """`forward` in so many equal parts of its channels, or those chosen of them, each computed by itself.

        Small maps stay in the processor's cache, and their gradients need not be put together again.
        """
        linear, convolution = (cast(Tensor, layer.weight) for layer in self)
        pairs = zip(linear.chunk(parts)[chosen], convolution.chunk(parts)[chosen], strict=True)
        return tuple(F.conv2d(_linear(x, w), kernel, padding=1, groups=len(kernel)) for w, kernel in pairs)


class ScaleDown(nn.Module):
    """CSWA's down-sampling module: strided average pooling, linear projection, shortcut (section 3.1).

    Parameters
    ----------
    channels : int
    factor : int
        1/S; 1 leaves the map as it is and holds no weights.
    sampling, projection : str
        See `MPTConfig.down_sampling` and `MPTConfig.down_projection`.
    """

    def __init__(
        self, channels: int, factor: int, sampling: DownSampling = "average", projection: DownProjection = "residual"
    ) -> None:
        super().__init__()
        self.factor, self.sampling, self.shortcut = factor, sampling, projection == "residual"
        scales, projects = factor > 1, factor > 1 and projection != "none"
        self.convolution = _PatchMean(channels, factor) if scales and sampling == "convolution" else None
        self.project = ChannelLinear(channels, channels) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        if self.factor == 1:
            return x
        sampled = self._sample(x)  # (N, C, H S, W S)
        if self.project is None:
            return sampled
        projected = self.project(sampled)
        return sampled + projected if self.shortcut else projected

    def _sample(self, x: Tensor) -> Tensor:
        if self.convolution is not None:
            return self.convolution(x)
        if self.sampling == "max":
            return F.max_pool2d(x, self.factor)
        if self.sampling == "bicubic":
            exact = x.to(torch.promote_types(x.dtype, torch.float32))  # torch has no such filter in half precision
            return F.interpolate(exact, scale_factor=1 / self.factor, mode="bicubic", antialias=True).to(x.dtype)
        return F.avg_pool2d(x, self.factor)


class _PatchMean(nn.Conv2d):
    """A depth-wise convolution whose stride is its kernel; it starts as average pooling."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(channels, channels, factor, stride=factor, groups=channels, bias=False)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 1 / self.kernel_size[0] ** 2)


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


def gelu(x: Tensor) -> Tensor:
    """GELU of (N, C, H, W), exact."""
    return F.gelu(x.movedim(1, -1)).movedim(-1, 1)  # on CPUs the fast kernel wants contiguous memory


def as_channels_last(x: Tensor) -> Tensor:
    """The same values in channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last)
