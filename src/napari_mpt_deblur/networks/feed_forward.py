"""FEFN, the feed-forward network that joins the two attentions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

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
    """

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(expansion * dim)
        self.spatial_norm = ChannelNorm(dim)
        self.spatial = ChannelLinear(dim, hidden)
        self.channel_norm = ChannelNorm(dim)
        self.channel = NPConv(dim, hidden)
        self.project = ChannelLinear(hidden, dim)

    def forward(self, spatial: Tensor, channel: Tensor) -> Tensor:
        """CSWA's x1 and ISCA's x2, each (N, C, H, W), to (N, C, H, W)."""
        gate = F.gelu(self.channel(self.channel_norm(channel)))  # (N, hidden, H, W)
        return self.project(gate * self.spatial(self.spatial_norm(spatial))) + spatial
