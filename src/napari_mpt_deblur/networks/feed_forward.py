"""FEFN, the feed-forward network that joins the two attentions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mpt_deblur.networks.config import Activate, Join, Shortcut
from napari_mpt_deblur.networks.layers import ChannelLinear, ChannelNorm, NPConv


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
        x2 = self.channel(self.channel_norm(channel))  # (N, hidden, H, W)
        x1 = self.spatial(self.spatial_norm(spatial))
        out = self.project(self._joined(x1, x2))
        if self.shortcut == "none":
            return out
        return out + (spatial if self.shortcut == "x1" else channel)

    def _joined(self, x1: Tensor, x2: Tensor) -> Tensor:
        if self.join == "concatenate":
            return F.gelu(torch.cat((x1, x2), dim=1))  # (N, 2 hidden, H, W)
        if self.join == "add":
            return F.gelu(x1 + x2)
        if self.activate in ("x1", "both"):
            x1 = F.gelu(x1)
        if self.activate in ("x2", "both"):
            x2 = F.gelu(x2)
        return x2 * x1
