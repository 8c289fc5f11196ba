"""StarDist's network in plain numpy loops over kernel places, written from its source and not from ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]  # "layer/variable", kernels (height, width, in, out)


def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(H, W, in) to (H, W, out), padded with zeros as TensorFlow's "same" does."""
    height, width = kernel.shape[:2]
    top, left = (height - 1) // 2, (width - 1) // 2
    padded = np.pad(x, ((top, height - 1 - top), (left, width - 1 - left), (0, 0)))
    out = np.zeros((*x.shape[:2], kernel.shape[3])) + bias
    for i in range(height):
        for j in range(width):
            out += padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j]
    return out


def activate(x: np.ndarray, name: str) -> np.ndarray:
    if name == "relu":
        return np.maximum(x, 0)
    if name == "elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "tanh":
        return np.tanh(x)
    assert name == "linear"
    return x


def max_pool(x: np.ndarray, pool: tuple[int, int]) -> np.ndarray:
    height, width, channels = x.shape
    return x.reshape(height // pool[0], pool[0], width // pool[1], pool[1], channels).max((1, 3))


def network(x: np.ndarray, config: Mapping[str, Any], weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, channels) to (H / grid, W / grid) probabilities and (..., n_rays) distances, in float64."""
    numbered = iter(range(1000))
    norms = iter(range(1000))

    def layer(x: np.ndarray, name: str, activation: str, norm: bool = False) -> np.ndarray:
        x = conv(x, weights[f"{name}/kernel"], weights[f"{name}/bias"])
        if norm:
            number = next(norms)
            name = f"batch_normalization_{number}" if number else "batch_normalization"
            mean, variance = weights[f"{name}/moving_mean"], weights[f"{name}/moving_variance"]
            x = (x - mean) / np.sqrt(variance + 0.001) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]
        return activate(x, activation)

    def unet_layer(x: np.ndarray, name: str, activation: str) -> np.ndarray:
        return layer(x, config.get("unet_prefix", "") + name, activation, config["unet_batch_norm"])

    usual, repeats, depth = config["unet_activation"], config["unet_n_conv_per_depth"], config["unet_n_depth"]
    pool = tuple(config["unet_pool"])
    reached = [1, 1]
    while reached != list(config["grid"]):
        step = tuple(2 if reached[axis] < config["grid"][axis] else 1 for axis in (0, 1))
        reached = [reached[axis] * step[axis] for axis in (0, 1)]
        for _ in range(repeats):
            number = next(numbered)
            x = layer(x, f"conv2d_{number}" if number else "conv2d", usual)
        x = max_pool(x, step)
    skips = []
    for n in range(depth):
        for i in range(repeats):
            x = unet_layer(x, f"down_level_{n}_no_{i}", usual)
        skips.append(x)
        x = max_pool(x, pool)
    for i in range(repeats - 1):
        x = unet_layer(x, f"middle_{i}", usual)
    x = unet_layer(x, f"middle_{repeats}", usual)
    for n in range(depth - 1, -1, -1):
        x = np.concatenate([x.repeat(pool[0], 0).repeat(pool[1], 1), skips[n]], -1)
        for i in range(repeats - 1):
            x = unet_layer(x, f"up_level_{n}_no_{i}", usual)
        x = unet_layer(x, f"up_level_{n}_no_{repeats}", usual if n > 0 else config["unet_last_activation"])
    if config["net_conv_after_unet"]:
        x = layer(x, "features", usual)
    return layer(x, "prob", "sigmoid")[..., 0], layer(x, "dist", "linear")
