"""Small layers that the attention and feed-forward blocks share.

All take and return (N, C, H, W) tensors and are fastest on channels-last memory, where a linear layer over channels
needs no copy.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from napari_mpt_deblur.networks.config import DownProjection, DownSampling


def one_step(function: type[Function], *arguments: Any) -> Any:
    """`function.apply`; its forward pass alone where no gradient is wanted, or while TorchScript records.

    The one is quicker; the other cannot hold Python.
    """
    if torch.jit.is_tracing() or not torch.is_grad_enabled():
        return function.forward(SimpleNamespace(save_for_backward=lambda *_: None), *arguments)
    return function.apply(*arguments)


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

    def forward(self, x: Tensor) -> Tensor:
        (out,) = self.split(x, 1)
        return out  # (N, C', H, W)

    def split(self, x: Tensor, parts: int, chosen: slice = slice(None)) -> tuple[Tensor, ...]:
        """`forward` in so many equal parts of its channels, or those chosen of them, each computed by itself.

        Small maps stay in the processor's cache, and their gradients need not be put together again.
        """
        linear, convolution = (cast(Tensor, layer.weight) for layer in self)
        return one_step(_NeighbouringProjection, x, *linear.chunk(parts)[chosen], *convolution.chunk(parts)[chosen])


class _NeighbouringProjection(Function):
    """Linear layers over channels of one map, each followed by a 3x3 depth-wise convolution.

    As one step of automatic differentiation: the gradients of the map are summed where they are computed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        linears, kernels = weights[: len(weights) // 2], weights[len(weights) // 2 :]
        projected = [_linear(x, linear) for linear in linears]
        ctx.save_for_backward(x, *weights, *projected)
        pairs = zip(projected, kernels, strict=True)
        return tuple(F.conv2d(each, kernel, padding=1, groups=len(kernel)) for each, kernel in pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, *saved = ctx.saved_tensors
        count, dtype = len(gradients), gradients[0].dtype  # under autocast, half precision
        linears, kernels, projected = saved[:count], saved[count : 2 * count], saved[2 * count :]
        rows = x.movedim(1, -1).flatten(0, -2).to(dtype)  # (N H W, C)
        of_rows = torch.empty_like(rows)
        of_linears, of_kernels = [], []
        for i, (gradient, linear, kernel) in enumerate(zip(gradients, linears, kernels, strict=True)):
            of_projected, of_kernel = _depthwise_backward(gradient, projected[i], kernel.to(dtype))
            of_projected = of_projected.movedim(1, -1).flatten(0, -2)
            of_rows.addmm_(of_projected, linear.to(dtype), beta=1 if i else 0)
            of_linears.append((rows.t() @ of_projected).t().to(linear.dtype))  # this way round it is faster
            of_kernels.append(of_kernel.to(kernel.dtype))
        of_x = of_rows.view(x.movedim(1, -1).shape).movedim(-1, 1).to(x.dtype)
        return of_x, *of_linears, *of_kernels


def _depthwise_backward(gradient: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `DepthwiseConv`'s input and weights."""
    geometry = [1, 1], [1, 1], [1, 1], False, [0, 0], len(kernel)  # stride, padding, dilation, ..., groups
    of_x, of_kernel, _ = torch.ops.aten.convolution_backward(gradient, x, kernel, None, *geometry, [True, True, False])
    return of_x, of_kernel


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
