"""FEFN, the feed-forward network that joins the two attentions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from napari_mpt_deblur.networks.config import Activate, Join, Shortcut
from napari_mpt_deblur.networks.layers import ChannelLinear, ChannelNorm, NPConv, gelu, one_step
from napari_mpt_deblur.networks.strips import in_strips


class FeatureEnhancingFeedForward(nn.Module):
    """FEFN (section 3.3, equation 3): channel context, activated, gates the spatial feature.

    ``Wp(GELU(x2') * x1') + x1`` with ``x1' = Linear(LN(x1))`` and ``x2' = DWConv(Conv1x1(LN(x2)))``.

    Parameters
    ----------
    dim : int
        Channels C.
    expansion : float
        alpha; the hidden width is ``int(alpha * dim)``.
    join, activate, shortcut : str
        See `MPTConfig.fefn_join` and those after it.
    """

    def __init__(
        self,
        dim: int,
        expansion: float,
        join: Join = "multiply",
        activate: Activate = "x2",
        shortcut: Shortcut = "x1",
    ) -> None:
        super().__init__()
        hidden = int(expansion * dim)
        self.join, self.activate, self.shortcut = join, activate, shortcut
        self.spatial_norm = ChannelNorm(dim)
        self.spatial = ChannelLinear(dim, hidden)
        self.channel_norm = ChannelNorm(dim)
        self.channel = NPConv(dim, hidden)
        self.project = ChannelLinear(2 * hidden if join == "concatenate" else hidden, dim)

    def forward(self, spatial: Tensor, channel: Tensor) -> Tensor:
        """x1 and x2 (CSWA's and ISCA's in the paper), each (N, C, H, W), to (N, C, H, W)."""
        return in_strips(self._strip, spatial, channel, channels=self.spatial.out_features)

    def _strip(self, spatial: Tensor, channel: Tensor) -> Tensor:
        x2 = self.channel(self.channel_norm(channel))  # (N, hidden, H, W)
        x1 = self.spatial(self.spatial_norm(spatial))
        if self.join == "multiply" and self.activate == "x2":
            out = one_step(_GatedProjection, x1, x2, self.project.weight)
        else:
            out = self.project(self._joined(x1, x2))
        if self.shortcut == "none":
            return out
        return out + (spatial if self.shortcut == "x1" else channel)

    def _joined(self, x1: Tensor, x2: Tensor) -> Tensor:
        if self.join == "concatenate":
            return gelu(torch.cat((x1, x2), dim=1))  # (N, 2 hidden, H, W)
        if self.join == "add":
            return gelu(x1 + x2)
        if self.activate in ("x1", "both"):
            x1 = gelu(x1)
        if self.activate in ("x2", "both"):
            x2 = gelu(x2)
        return x2 * x1


class _GatedProjection(Function):
    """``W (gelu(x2) * x1)``; going backward, what lies between is computed anew, which costs less than to keep it."""

    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        x1, x2 = x1.movedim(1, -1), x2.movedim(1, -1)
        ctx.save_for_backward(x1, x2, weight)
        return F.linear(F.gelu(x2).mul_(x1), weight).movedim(-1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x1, x2, weight = ctx.saved_tensors
        gate = F.gelu(x2)
        gradient = gradient.movedim(1, -1)
        of_weight = ((gate * x1).flatten(0, -2).t() @ gradient.flatten(0, -2)).t()  # this way round it is faster
        of_product = gradient @ weight.to(gradient.dtype)
        of_x1 = gate.mul_(of_product)
        of_x2 = torch.ops.aten.gelu_backward(of_product.mul_(x1), x2)
        return of_x1.movedim(-1, 1), of_x2.movedim(-1, 1), of_weight.to(weight.dtype)
