"""The Multi-Pyramid Transformer: a residual U of pyramid blocks (paper, section 3 and Figure 2)."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mpt_deblur.errors import ImageError
from napari_mpt_deblur.networks.attention import CrossScaleWindowAttention, IntraScaleChannelAttention
from napari_mpt_deblur.networks.config import Branch, MPTConfig
from napari_mpt_deblur.networks.feed_forward import FeatureEnhancingFeedForward
from napari_mpt_deblur.networks.host_memory import kept_memory
from napari_mpt_deblur.networks.layers import ChannelNorm, StageDown, StageUp, as_channels_last


class SubBlock(nn.Module):
    """One level of a pyramid: CSWA and ISCA read the same normalised map, FEFN joins them (SPEC A, "Sub-block")."""

    def __init__(self, config: MPTConfig, dim: int, heads: int, scale: float, shift: bool) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.branches = branch_names(config)
        for name, kind in zip(self.branches, config.branches, strict=True):
            self.add_module(name, _attention(config, kind, dim, heads, scale, shift))
        self.fefn = FeatureEnhancingFeedForward(
            dim, config.expansion, config.fefn_join, config.fefn_activate, config.fefn_shortcut
        )

    def forward(self, x: Tensor) -> Tensor:
        normalised = self.norm(x)
        x1, x2 = (self.get_submodule(name)(normalised) + x for name in self.branches)
        return self.fefn(x1, x2)  # (N, C, H, W)


def branch_names(config: MPTConfig) -> tuple[str, str]:
    """By which names a sub-block's weights know its two attentions."""
    first, second = config.branches
    return first, second if second != first else f"{second}_2"


def _attention(config: MPTConfig, kind: Branch, dim: int, heads: int, scale: float, shift: bool) -> nn.Module:
    if kind == "isca":
        return IntraScaleChannelAttention(dim, heads, config.channel_attention)
    return CrossScaleWindowAttention(
        dim,
        heads,
        scale,
        config.window,
        shift and config.window_shift,
        config.window_attention,
        config.down_sampling,
        config.down_projection,
        config.np_conv,
        config.window_pairing,
    )


class PyramidBlock(nn.Sequential):
    """Sub-blocks from coarse to fine local scale; every other one has shifted windows."""

    def __init__(self, config: MPTConfig, stage: int) -> None:
        dim, heads = config.dims[stage], config.heads[stage]
        super().__init__(
            *(SubBlock(config, dim, heads, scale, shift=j % 2 == 1) for j, scale in enumerate(config.scales[stage]))
        )


class MPT(nn.Module):
    """Multi-Pyramid Transformer.

    Parameters
    ----------
    config : MPTConfig

    Notes
    -----
    Accepts (N, C, H, W) with H and W multiples of ``config.size_multiple``; callers pad by reflection and crop.
    Values are about 0..1. All convolutions and linear layers are bias-free.
    """

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.config = config
        pixels = config.in_channels * config.stem**2
        self.input = nn.Conv2d(pixels, config.dims[0], 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(PyramidBlock(config, stage) for stage in range(len(config.dims)))
        self.down = nn.ModuleList(StageDown(c, following) for c, following in pairwise(config.dims))
        self.up = nn.ModuleList(StageUp(following, c) for c, following in pairwise(config.dims))
        self.decoder = nn.ModuleList(PyramidBlock(config, stage) for stage in range(len(config.dims) - 1))
        self.output = nn.Conv2d(config.dims[0], pixels, 3, padding=1, bias=False)
        if config.global_residual == "image" and not self.output.weight.is_meta:  # there it imports the compiler
            nn.init.normal_(self.output.weight, std=1e-3)  # starts next to the identity

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W).

        Raises
        ------
        ImageError
            If the channels or the size do not fit the configuration.
        """
        _check(image, self.config)
        # going backward needs what a pass frees only later: whoever trains keeps memory from step to step
        keeps = image.device.type == "cpu" and not torch.is_grad_enabled()
        with kept_memory() if keeps else nullcontext():
            return self._restored(image)

    def _restored(self, image: Tensor) -> Tensor:
        stem = self.config.stem
        pixels = F.pixel_unshuffle(image, stem) if stem > 1 else image
        features = x = self.input(as_channels_last(pixels))  # (N, dims[0], H / stem, W / stem)
        skips = []
        for stage, block in enumerate(self.encoder):
            x = block(x)
            if stage < len(self.down):
                skips.append(x)
                x = self.down[stage](x)  # (N, dims[stage + 1], half the size)
        for stage in reversed(range(len(self.decoder))):
            x = self.decoder[stage](self.up[stage](x) + skips[stage])
        if self.config.global_residual == "features":
            x = x + features
        out = self.output(x)
        out = F.pixel_shuffle(out, stem) if stem > 1 else out
        return out + image if self.config.global_residual == "image" else out


def _check(image: Tensor, config: MPTConfig) -> None:
    if image.ndim != 4 or image.shape[1] != config.in_channels or not image.numel():
        raise ImageError(f"The network takes (N, {config.in_channels}, H, W); got {tuple(image.shape)}.")
    multiple = config.size_multiple
    if image.shape[2] % multiple or image.shape[3] % multiple:
        raise ImageError(
            f"The network takes heights and widths that are multiples of {multiple}; "
            f"got {image.shape[2]} x {image.shape[3]}: pad by reflection and crop the result."
        )
