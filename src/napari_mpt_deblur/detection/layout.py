"""The convolutions of StarDist's network in the order in which StarDist makes them, and what each depends on. No torch.

The order is that of ``stardist/models/model2d.py`` and of ``unet_block`` in ``csbdeep/internals/blocks.py``: it is how
layers that Keras named itself (``conv2d``, ``conv2d_7``) are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from napari_mpt_deblur.detection.config import StarDistConfig


@dataclass(frozen=True)
class ConvLayer:
    """One convolution.

    Attributes
    ----------
    name : str
        In our network.
    keras_name : str
        In StarDist's file; empty where Keras numbered it.
    channels_in, channels_out : int
    kernel : tuple of int
        In Y and X.
    activation : str
    batch_norm : bool
        Whether a batch normalisation, which Keras numbered, follows before the activation.
    used : bool
        False for the class head, whose weights are in the file but not in our network.
    """

    name: str
    keras_name: str
    channels_in: int
    channels_out: int
    kernel: tuple[int, int]
    activation: str
    batch_norm: bool = False
    used: bool = True


def grid_steps(config: StarDistConfig) -> list[tuple[int, int]]:
    """The pooling after each group of convolutions that bring the image to the grid, before the U-Net."""
    steps, reached = [], (1, 1)
    while reached != config.grid:
        step = (1 + (config.grid[0] > reached[0]), 1 + (config.grid[1] > reached[1]))
        reached = (reached[0] * step[0], reached[1] * step[1])
        steps.append(step)
    return steps


def conv_layers(config: StarDistConfig) -> tuple[ConvLayer, ...]:
    """All convolutions, in the order in which StarDist makes them."""
    return tuple(_layers(config))


def _layers(config: StarDistConfig) -> Iterator[ConvLayer]:
    repeats, depth, kernel = config.unet_n_conv_per_depth, config.unet_n_depth, config.unet_kernel_size
    channels = config.n_channel_in

    def unet(name: str, filters: int, activation: str = config.unet_activation) -> ConvLayer:
        keras_name = config.unet_prefix + name
        return ConvLayer(name, keras_name, channels, filters, kernel, activation, config.unet_batch_norm)

    for step in range(len(grid_steps(config))):
        for i in range(repeats):
            filters = config.unet_n_filter_base
            yield ConvLayer(f"grid_{step}_no_{i}", "", channels, filters, kernel, config.unet_activation)
            channels = filters
    for level in range(depth):
        for i in range(repeats):
            yield unet(f"down_level_{level}_no_{i}", config.filters(level))
            channels = config.filters(level)
    for i in range(repeats - 1):
        yield unet(f"middle_{i}", config.filters(depth))
        channels = config.filters(depth)
    yield unet(f"middle_{repeats}", config.filters(max(0, depth - 1)))
    channels = config.filters(max(0, depth - 1))
    for level in reversed(range(depth)):
        channels += config.filters(level)  # the skip connection
        for i in range(repeats - 1):
            yield unet(f"up_level_{level}_no_{i}", config.filters(level))
            channels = config.filters(level)
        activation = config.unet_activation if level > 0 else config.unet_last_activation
        yield unet(f"up_level_{level}_no_{repeats}", config.filters(max(0, level - 1)), activation)
        channels = config.filters(max(0, level - 1))
    yield from _heads(config, channels)


def _heads(config: StarDistConfig, channels: int) -> Iterator[ConvLayer]:
    classes = config.n_classes is not None
    after = config.net_conv_after_unet
    if after:
        kernel, activation = config.unet_kernel_size, config.unet_activation
        yield ConvLayer("features", "features", channels, after, kernel, activation)
        if classes:
            yield ConvLayer("features_class", "features_class", channels, after, kernel, activation, used=False)
        channels = after
    yield ConvLayer("prob", "prob", channels, 1, (1, 1), "sigmoid")
    yield ConvLayer("dist", "dist", channels, config.n_rays, (1, 1), "linear")
    if config.n_classes is not None:
        yield ConvLayer("prob_class", "prob_class", channels, config.n_classes + 1, (1, 1), "linear", used=False)


def context_px(config: StarDistConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """How far outside a rectangle of pixels lies what its output depends on.

    Returns
    -------
    tuple
        ((above, below), (left, right)) in pixels, exact for rectangles whose edges are multiples of `size_divisor`.
    """
    return _context(config, 0), _context(config, 1)


def _context(config: StarDistConfig, axis: int) -> tuple[int, int]:
    """Follows the interval that is needed from the output back to the input."""
    kernel, pool, repeats = config.unet_kernel_size[axis], config.unet_pool[axis], config.unet_n_conv_per_depth

    def before_convs(needed: tuple[int, int], number: int) -> tuple[int, int]:
        low, high = needed
        return low - number * ((kernel - 1) // 2), high + number * (kernel // 2)

    def before_level(needed: tuple[int, int], level: int) -> tuple[int, int]:
        needed = before_convs(needed, repeats)
        if level == config.unet_n_depth:
            return needed
        deeper = before_level((needed[0] // pool, -(-needed[1] // pool)), level + 1)
        both = min(needed[0], deeper[0] * pool), max(needed[1], deeper[1] * pool)  # the skip connection needs its own
        return before_convs(both, repeats)

    divisor = config.size_divisor[axis]
    needed = before_convs((0, divisor // config.grid[axis]), int(config.net_conv_after_unet > 0))
    needed = before_level(needed, 0)
    for step in reversed(grid_steps(config)):
        needed = before_convs((needed[0] * step[axis], needed[1] * step[axis]), repeats)
    return -needed[0], needed[1] - divisor


def weight_shapes(config: StarDistConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of `StarDistNetwork`, found out without making it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in conv_layers(config):
        if layer.used:
            shapes[f"layers.{layer.name}.conv.weight"] = (layer.channels_out, layer.channels_in, *layer.kernel)
            shapes[f"layers.{layer.name}.conv.bias"] = (layer.channels_out,)
    return shapes
