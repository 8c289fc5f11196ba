"""The released arithmetic in plain loops, written from the description of it alone (SPEC D), as naive as it gets.

Works on one image, an array (C, H, W), in float64, and reads weights by the names of the published checkpoints. Windows
are cut, numbered and put back one by one; every window of queries looks its keys up by its number.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from oracle.mpt_plain import (
    Weights,
    average_pool,
    convolution,
    depthwise,
    gelu,
    inside,
    layer_norm,
    linear,
    shuffle,
    softmax,
    unshuffle,
)


def linear_1x1(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return linear(x, weight[:, :, 0, 0])


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length."""
    return vectors / np.sqrt((vectors**2).sum(-1, keepdims=True))


def cut(x: np.ndarray, m: int) -> list[np.ndarray]:
    """M x M windows in raster order."""
    _, height, width = x.shape
    return [x[:, y : y + m, z : z + m].copy() for y in range(0, height, m) for z in range(0, width, m)]


def assemble(windows: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Windows in raster order to a map."""
    c, m, _ = windows[0].shape
    out = np.zeros((c, height, width))
    for number, window in enumerate(windows):
        y, z = divmod(number, width // m)
        out[:, y * m : y * m + m, z * m : z * m + m] = window
    return out


def channel_attention(x: np.ndarray, weights: Weights, heads: int) -> np.ndarray:
    c, height, width = x.shape
    q = depthwise(linear_1x1(x, weights("q.0.weight")), weights("q_dwconv.0.weight")).reshape(c, -1)
    kv = depthwise(linear_1x1(x, weights("kv.0.weight")), weights("kv_dwconv.0.weight")).reshape(2 * c, -1)
    out = np.zeros((c, height * width))
    for head in range(heads):
        own = slice(head * c // heads, (head + 1) * c // heads)
        products = normalised(q[own]) @ normalised(kv[:c][own]).T * weights("temperature.0")[head, 0, 0]
        out[own] = softmax(products) @ kv[c:][own]
    return linear(out.reshape(c, height, width), weights("project_out.0.weight"))


def window_attention(x: np.ndarray, weights: Weights, heads: int, scale: float, m: int, shifted: bool) -> np.ndarray:
    _, height, width = x.shape
    factor, shift = round(1 / scale), m // 2 if shifted else 0
    group, small = factor**2, (height // factor, width // factor)
    y = x
    if factor > 1:
        y = average_pool(x, factor)
        y = y + linear(y, weights("downsamp.downproj.weight"))
    q = linear(x, weights("q.1.weight"))
    kv = depthwise(linear(y, weights("kv.1.weight")), weights("kv_dwconv.1.weight"))
    per_map = (small[0] // m) * (small[1] // m)
    listed = cut(q, m)
    queries = []
    for number in range(group):  # maps of the down-scaled size, filled with the list of windows in its order
        part = assemble(listed[number * per_map : (number + 1) * per_map], *small)
        part = np.roll(depthwise(part, weights("q_dwconv.1.weight")), (-shift, -shift), (1, 2))
        queries += cut(part, m)
    keys = cut(np.roll(kv, (-shift, -shift), (1, 2)), m)
    allowed = [~np.not_equal.outer(labels, labels) for labels in map(np.ravel, cut(regions(*small, m, shift), m))]
    out = [attend(query, keys[i // group], allowed[i // group], weights, heads, m) for i, query in enumerate(queries)]
    whole = np.roll(assemble(out, height, width), (shift, shift), (1, 2))
    return linear(whole, weights("project_out.1.weight"))


def regions(height: int, width: int, m: int, shift: int) -> np.ndarray:
    """(1, H, W): pixels of one number may attend to each other after a shift."""
    labels = np.zeros((1, height, width), int)
    if shift:
        for y in range(height):
            for z in range(width):
                parts = [(p >= size - m) + (p >= size - shift) for p, size in ((y, height), (z, width))]
                labels[0, y, z] = 3 * parts[0] + parts[1]
    return labels


def attend(q: np.ndarray, kv: np.ndarray, allowed: np.ndarray, weights: Weights, heads: int, m: int) -> np.ndarray:
    c = len(q)
    d = c // heads
    k, v = kv[:c], kv[c:]
    index = position_index(m)
    out = np.zeros_like(q)
    for head in range(heads):
        own = slice(head * d, head * d + d)
        query, key, value = (a[own].reshape(d, m * m).T for a in (q, k, v))
        scores = normalised(query) @ normalised(key).T * weights("temperature.1")[head, 0, 0]
        scores = scores + weights("relative_position_bias_table")[index, head]
        out[own] = (softmax(np.where(allowed, scores, -np.inf)) @ value).T.reshape(d, m, m)
    return out


@lru_cache
def position_index(m: int) -> np.ndarray:
    index = np.zeros((m * m, m * m), int)
    for qy, qx, ky, kx in np.ndindex(m, m, m, m):
        index[qy * m + qx, ky * m + kx] = (qy - ky + m - 1) * (2 * m - 1) + qx - kx + m - 1
    return index


def feed_forward(channels: np.ndarray, windows: np.ndarray, weights: Weights) -> np.ndarray:
    gate = layer_norm(channels, inside(weights, "norm2.0.body"))
    gate = gelu(depthwise(linear_1x1(gate, weights("ffn.project_in1.weight")), weights("ffn.dwconv1.weight")))
    gated = gate * linear(layer_norm(windows, inside(weights, "norm2.1.body")), weights("ffn.project_in2.weight"))
    return linear(gated, weights("ffn.project_out.weight")) + channels


def mpt(image: np.ndarray, weights: Weights, heads, scales, window: int) -> np.ndarray:
    """The whole released network; heads and scales of the four stages."""

    def level(x: np.ndarray, name: str, stage: int) -> np.ndarray:
        for j, scale in enumerate(scales[stage]):
            part = inside(weights, f"{name}.{j}")
            n = layer_norm(x, inside(part, "norm1.body"))
            channels = channel_attention(n, inside(part, "attn"), heads[stage]) + x
            windows = window_attention(n, inside(part, "attn"), heads[stage], scale, window, j % 2 == 1) + x
            x = feed_forward(channels, windows, part)
        return x

    x = convolution(image, weights("inproj.weight"))
    skips = []
    for stage, (name, down) in enumerate(
        [("encoder_level1", "down1_2"), ("encoder_level2", "down2_3"), ("encoder_level3", "down3_4")]
    ):
        x = level(x, name, stage)
        skips.append(x)
        x = unshuffle(convolution(x, weights(f"{down}.body.0.weight")), 2)
    x = level(x, "latent", 3)
    for stage, up in ((2, "up4_3"), (1, "up3_2"), (0, "up2_1")):
        x = shuffle(convolution(x, weights(f"{up}.body.0.weight")), 2) + skips[stage]
        x = level(x, f"decoder_level{stage + 1}", stage)
    return convolution(x, weights("output.weight")) + image


def random_state(channels: int, dims, heads, scales, window: int, expansion: float, seed: int) -> dict[str, np.ndarray]:
    """A published state dict with random weights, float32, by the names of SPEC D."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}

    def put(name: str, *shape: int, mean: float = 0.0) -> None:
        spread = 0.3 if len(shape) < 2 else 0.4 / math.sqrt(math.prod(shape[1:]))
        state[name] = (mean + spread * rng.standard_normal(shape)).astype(np.float32)

    def sub_block(name: str, dim: int, head: int, scale: float) -> None:
        hidden = int(expansion * dim)
        for norm in ("norm1", "norm2.0", "norm2.1"):
            put(f"{name}.{norm}.body.weight", dim, mean=1)
            put(f"{name}.{norm}.body.bias", dim)
        for part, count in (("q", 1), ("kv", 2)):
            put(f"{name}.attn.{part}.0.weight", count * dim, dim, 1, 1)
            put(f"{name}.attn.{part}.1.weight", count * dim, dim)
            for branch in (0, 1):
                put(f"{name}.attn.{part}_dwconv.{branch}.weight", count * dim, 1, 3, 3)
        for branch in (0, 1):
            put(f"{name}.attn.temperature.{branch}", head, 1, 1, mean=2)
            put(f"{name}.attn.project_out.{branch}.weight", dim, dim)
        put(f"{name}.attn.relative_position_bias_table", (2 * window - 1) ** 2, head)
        state[f"{name}.attn.relative_position_index"] = position_index(window)
        if scale < 1:
            put(f"{name}.attn.downsamp.downproj.weight", dim, dim)
        put(f"{name}.ffn.project_in1.weight", hidden, dim, 1, 1)
        put(f"{name}.ffn.dwconv1.weight", hidden, 1, 3, 3)
        put(f"{name}.ffn.project_in2.weight", hidden, dim)
        put(f"{name}.ffn.project_out.weight", dim, hidden)

    put("inproj.weight", dims[0], channels, 3, 3)
    put("output.weight", channels, dims[0], 3, 3)
    levels = ["encoder_level1", "encoder_level2", "encoder_level3", "latent"]
    levels += ["decoder_level1", "decoder_level2", "decoder_level3"]
    for number, name in enumerate(levels):
        stage = number % 4
        for j, scale in enumerate(scales[stage]):
            sub_block(f"{name}.{j}", dims[stage], heads[stage], scale)
    for stage, (down, up) in enumerate((("down1_2", "up2_1"), ("down2_3", "up3_2"), ("down3_4", "up4_3"))):
        put(f"{down}.body.0.weight", dims[stage + 1] // 4, dims[stage], 3, 3)
        put(f"{up}.body.0.weight", dims[stage] * 4, dims[stage + 1], 3, 3)
    return state
