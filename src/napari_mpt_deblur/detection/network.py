"""StarDist's network, a U-Net with a head for probabilities and one for distances, in torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from napari_mpt_deblur.detection.config import StarDistConfig
from napari_mpt_deblur.detection.layout import ConvLayer, context_px, conv_layers, grid_steps

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "elu": F.elu,
    "selu": F.selu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "swish": F.silu,
    "silu": F.silu,
    "gelu": F.gelu,
    "linear": lambda x: x,
}


class SameConv(nn.Module):
    """A convolution that keeps the size, padded with zeros as TensorFlow does: of an odd number more at the end.

    Batch normalisation has no layer of its own: what it does to the outputs of a trained network stands in the
    weights (`keras_weights.py`).
    """

    def __init__(self, layer: ConvLayer) -> None:
        super().__init__()
        (height, width), self.activation = layer.kernel, _ACTIVATIONS[layer.activation]
        before = ((height - 1) // 2, (width - 1) // 2)
        self.extra = (0, 1 - width % 2, 0, 1 - height % 2)  # left, right, top, bottom: of even kernels
        self.conv = nn.Conv2d(layer.channels_in, layer.channels_out, layer.kernel, padding=before)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if any(self.extra):
            x = F.pad(x, self.extra)  # the convolution itself pads both ends alike
        return self.activation(self.conv(x))


class StarDistNetwork(nn.Module):
    """(N, C, H, W) float32 to probabilities and distances on the grid.

    Parameters
    ----------
    config : StarDistConfig

    Attributes
    ----------
    size_divisor : tuple of int
        H and W must be multiples of these.
    context_px : tuple
        ((above, below), (left, right)): how far outside a rectangle, whose edges are multiples of `size_divisor`, lies
        what its output depends on.
    """

    def __init__(self, config: StarDistConfig) -> None:
        super().__init__()
        self.config = config
        self.size_divisor = config.size_divisor
        self.context_px = context_px(config)
        self.layers = nn.ModuleDict({layer.name: SameConv(layer) for layer in conv_layers(config) if layer.used})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities, (N, 1, H / grid, W / grid), and distances in pixels, (N, n_rays, H / grid, W / grid)."""
        for step, pool in enumerate(grid_steps(self.config)):
            x = F.max_pool2d(self._repeat(f"grid_{step}", x), pool)
        x = self._unet(x)
        if self.config.net_conv_after_unet:
            x = self.layers["features"](x)
        return self.layers["prob"](x), self.layers["dist"](x)

    def _unet(self, x: torch.Tensor) -> torch.Tensor:
        pool, repeats = self.config.unet_pool, self.config.unet_n_conv_per_depth
        skips = []
        for level in range(self.config.unet_n_depth):
            x = self._repeat(f"down_level_{level}", x)
            skips.append(x)
            x = F.max_pool2d(x, pool)
        for i in (*range(repeats - 1), repeats):
            x = self.layers[f"middle_{i}"](x)
        for level in reversed(range(self.config.unet_n_depth)):
            x = torch.cat([_enlarge(x, pool), skips.pop()], 1)  # (N, from below + skipped, H, W)
            for i in (*range(repeats - 1), repeats):
                x = self.layers[f"up_level_{level}_no_{i}"](x)
        return x

    def _repeat(self, name: str, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.config.unet_n_conv_per_depth):
            x = self.layers[f"{name}_no_{i}"](x)
        return x


def _enlarge(x: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Each pixel as a block of equal ones, as Keras enlarges."""
    return x.repeat_interleave(pool[0], 2).repeat_interleave(pool[1], 3)
