"""The Multi-Pyramid Transformer in plain loops, written from the paper's description alone and as naive as it gets.

Keys and values are repeated, windows are cut one by one, masks and position biases are looked up pixel by pixel. It
works on one image, an array (C, H, W) in float64, and reads weights by the names of the network's state dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import erf

Weights = Callable[[str], np.ndarray]


def weights_of(module) -> Weights:
    """Look up a module's weights by name, in float64."""
    state = {name: value.detach().double().numpy() for name, value in module.state_dict().items()}
    return lambda name: state[name]


def inside(weights: Weights, prefix: str) -> Weights:
    """The weights of a part."""
    return lambda name: weights(f"{prefix}.{name}")


def linear(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            out[o] += weight[o, i] * x[i]
    return out


def convolution(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3x3, zeros around the map; `weight` (C', C, 3, 3)."""
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((weight.shape[0], height, width))
    for dy in range(3):
        for dx in range(3):
            out += linear(padded[:, dy : dy + height, dx : dx + width], weight[:, :, dy, dx])
    return out


def depthwise(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3x3 of each channel by itself; `weight` (C, 1, 3, 3)."""
    return np.concatenate([convolution(x[c : c + 1], weight[c : c + 1]) for c in range(len(x))])


def neighbouring(x: np.ndarray, weights: Weights) -> np.ndarray:
    return depthwise(linear(x, weights("0.weight")), weights("1.weight"))


def layer_norm(x: np.ndarray, weights: Weights) -> np.ndarray:
    normal = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    return normal * weights("weight")[:, None, None] + weights("bias")[:, None, None]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def average_pool(x: np.ndarray, factor: int) -> np.ndarray:
    out = np.zeros((x.shape[0], x.shape[1] // factor, x.shape[2] // factor))
    for y in range(out.shape[1]):
        for z in range(out.shape[2]):
            out[:, y, z] = x[:, y * factor : (y + 1) * factor, z * factor : (z + 1) * factor].mean((1, 2))
    return out


def max_pool(x: np.ndarray, factor: int) -> np.ndarray:
    out = np.zeros((x.shape[0], x.shape[1] // factor, x.shape[2] // factor))
    for y in range(out.shape[1]):
        for z in range(out.shape[2]):
            out[:, y, z] = x[:, y * factor : (y + 1) * factor, z * factor : (z + 1) * factor].max((1, 2))
    return out


def patch_convolution(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Of each channel by itself, the stride as large as the kernel; `weight` (C, 1, factor, factor)."""
    factor = weight.shape[-1]
    out = np.zeros((x.shape[0], x.shape[1] // factor, x.shape[2] // factor))
    for y in range(out.shape[1]):
        for z in range(out.shape[2]):
            patch = x[:, y * factor : (y + 1) * factor, z * factor : (z + 1) * factor]
            out[:, y, z] = (patch * weight[:, 0]).sum((1, 2))
    return out


def bicubic(x: np.ndarray, factor: int) -> np.ndarray:
    """Keys' cubic (a = -1/2), widened by the factor against aliasing; beyond the map's edge no pixel counts."""

    def cubic(t: float) -> float:
        t = abs(t)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    def matrix(size: int) -> np.ndarray:
        rows = np.array([[cubic((i + 0.5) / factor - (o + 0.5)) for i in range(size)] for o in range(size // factor)])
        return rows / rows.sum(1, keepdims=True)

    return np.einsum("oi,cij,pj->cop", matrix(x.shape[1]), x, matrix(x.shape[2]))


def scale_down(x: np.ndarray, weights: Weights, factor: int, sampling: str, projection: str) -> np.ndarray:
    if factor == 1:
        return x
    if sampling == "convolution":
        small = patch_convolution(x, weights("convolution.weight"))
    else:
        small = {"average": average_pool, "max": max_pool, "bicubic": bicubic}[sampling](x, factor)
    if projection == "none":
        return small
    projected = linear(small, weights("project.weight"))
    return small + projected if projection == "residual" else projected


def cswa(
    x: np.ndarray,
    weights: Weights,
    *,
    heads: int,
    scale: float,
    window: int,
    shift: bool,
    attention: str,
    down_sampling: str = "average",
    down_projection: str = "residual",
    np_conv: bool = True,
) -> np.ndarray:
    """Cross-scale window attention, without the residual."""
    factor, m = round(1 / scale), window
    channels, height, width = x.shape
    small = scale_down(x, inside(weights, "scale_down"), factor, down_sampling, down_projection)
    if np_conv:
        q, kv = neighbouring(x, inside(weights, "query")), neighbouring(small, inside(weights, "key_value"))
    else:
        q, kv = linear(x, weights("query.weight")), linear(small, weights("key_value.weight"))
    k, v = kv[:channels], kv[channels:]
    moved = m // 2 if shift else 0
    q = np.roll(q, (-moved * factor, -moved * factor), (1, 2))
    k, v = (np.roll(a, (-moved, -moved), (1, 2)) for a in (k, v))

    out = np.zeros_like(q)
    for py in range(height // m):
        for px in range(width // m):  # every M x M patch of queries ...
            here = (slice(None), slice(py * m, py * m + m), slice(px * m, px * m + m))
            ky, kx = py // factor, px // factor  # ... has the keys of its place, repeated for each such patch
            there = (slice(None), slice(ky * m, ky * m + m), slice(kx * m, kx * m + m))
            allowed = _may_attend(py, px, height, width, factor, m, moved)
            out[here] = _attend_in_window(
                q[here], k[there].copy(), v[there].copy(), allowed, weights, heads=heads, attention=attention
            )
    out = np.roll(out, (moved * factor, moved * factor), (1, 2))
    return linear(out, weights("project.weight"))


def _may_attend(py: int, px: int, height: int, width: int, factor: int, m: int, moved: int) -> np.ndarray:
    """(M^2, M^2): whether the cyclic shift left query and key on the same side of the map's edge, in both axes."""
    allowed = np.zeros((m, m, m, m), bool)
    for qy, qx, ky, kx in np.ndindex(allowed.shape):
        sides = []
        for patch, size, q, k in ((py, height, qy, ky), (px, width, qx, kx)):
            query_wrapped = patch * m + q + moved * factor >= size
            key_wrapped = patch // factor * m + k + moved >= size // factor
            sides.append(query_wrapped == key_wrapped)
        allowed[qy, qx, ky, kx] = all(sides)
    return allowed.reshape(m * m, m * m)


def _attend_in_window(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, allowed: np.ndarray, weights: Weights, *, heads: int, attention: str
) -> np.ndarray:
    channels, m, _ = q.shape
    d = channels // heads
    table = weights("position_bias")
    out = np.zeros_like(q)
    for head in range(heads):
        own = slice(head * d, head * d + d)
        scores = np.full((m * m, m * m), -np.inf)
        for qy, qx, ky, kx in np.ndindex(m, m, m, m):
            if not allowed[qy * m + qx, ky * m + kx]:
                continue
            query, key = q[own, qy, qx], k[own, ky, kx]
            if attention == "cosine":
                product = query @ key / (np.linalg.norm(query) * np.linalg.norm(key))
                product *= weights("temperature")[head, 0, 0]
            else:
                product = query @ key / math.sqrt(d)
            row = (qy - ky + m - 1) * (2 * m - 1) + (qx - kx + m - 1)
            scores[qy * m + qx, ky * m + kx] = product + table[row, head]
        out[own] = (softmax(scores) @ v[own].reshape(d, m * m).T).T.reshape(d, m, m)
    return out


def isca(x: np.ndarray, weights: Weights, *, heads: int, attention: str) -> np.ndarray:
    """Intra-scale channel attention, without the residual."""
    channels = x.shape[0]
    d = channels // heads
    qkv = neighbouring(x, inside(weights, "query_key_value"))
    q, k, v = qkv[:channels], qkv[channels : 2 * channels], qkv[2 * channels :]
    out = np.zeros_like(x)
    for head in range(heads):
        scores = np.zeros((d, d))
        for i in range(d):
            for j in range(d):
                a, b = q[head * d + i], k[head * d + j]
                scores[i, j] = (a * b).sum()
                if attention == "normalised":
                    scores[i, j] *= weights("temperature")[head, 0, 0] / math.sqrt((a**2).sum() * (b**2).sum())
        mixture = softmax(scores)
        for i in range(d):
            for j in range(d):
                out[head * d + i] += mixture[i, j] * v[head * d + j]
    return linear(out, weights("project.weight"))


def fefn(
    first: np.ndarray,
    second: np.ndarray,
    weights: Weights,
    join: str = "multiply",
    activate: str = "x2",
    shortcut: str = "x1",
) -> np.ndarray:
    """Feature-enhancing feed-forward network, with its shortcut (equation 3)."""
    x1 = linear(layer_norm(first, inside(weights, "spatial_norm")), weights("spatial.weight"))
    x2 = neighbouring(layer_norm(second, inside(weights, "channel_norm")), inside(weights, "channel"))
    joined = {
        "concatenate": lambda: gelu(np.concatenate([x1, x2])),
        "add": lambda: gelu(x1 + x2),
        "multiply": lambda: {
            "x1": gelu(x1) * x2,
            "x2": x1 * gelu(x2),
            "both": gelu(x1) * gelu(x2),
            "none": x1 * x2,
        }[activate],
    }[join]()
    return linear(joined, weights("project.weight")) + {"x1": first, "x2": second, "none": 0}[shortcut]


def mpt(image: np.ndarray, weights: Weights, config) -> np.ndarray:
    """The whole network, for configurations that add the image at the end."""
    stages = len(config.dims)

    def attention(n: np.ndarray, kind: str, part: Weights, stage: int, j: int) -> np.ndarray:
        heads = config.heads[stage]
        if kind == "isca":
            return isca(n, part, heads=heads, attention=config.channel_attention)
        return cswa(
            n,
            part,
            heads=heads,
            scale=config.scales[stage][j],
            window=config.window,
            shift=config.window_shift and (j + 1) in range(2, 100, 2),  # sub-blocks 2, 4, 6, counted from 1
            attention=config.window_attention,
            down_sampling=config.down_sampling,
            down_projection=config.down_projection,
            np_conv=config.np_conv,
        )

    def block(x: np.ndarray, name: str, stage: int) -> np.ndarray:
        one, two = config.branches
        for j in range(len(config.scales[stage])):
            part = inside(weights, f"{name}.{j}")
            n = layer_norm(x, inside(part, "norm"))
            first = x + attention(n, one, inside(part, one), stage, j)
            second = x + attention(n, two, inside(part, two if two != one else f"{two}_2"), stage, j)
            joining = config.fefn_join, config.fefn_activate, config.fefn_shortcut
            x = fefn(first, second, inside(part, "fefn"), *joining)
        return x

    x = convolution(unshuffle(image, config.stem), weights("input.weight"))
    skips = []
    for stage in range(stages):
        x = block(x, f"encoder.{stage}", stage)
        if stage < stages - 1:
            skips.append(x)
            x = unshuffle(convolution(x, weights(f"down.{stage}.0.weight")), 2)
    for stage in reversed(range(stages - 1)):
        x = shuffle(convolution(x, weights(f"up.{stage}.0.weight")), 2) + skips[stage]
        x = block(x, f"decoder.{stage}", stage)
    return shuffle(convolution(x, weights("output.weight")), config.stem) + image


def unshuffle(x: np.ndarray, factor: int) -> np.ndarray:
    """Each channel becomes factor^2 channels, one for each position in a cell of factor x factor pixels."""
    return np.stack([plane[dy::factor, dx::factor] for plane in x for dy in range(factor) for dx in range(factor)])


def shuffle(x: np.ndarray, factor: int) -> np.ndarray:
    """The reverse of `unshuffle`."""
    out = np.zeros((len(x) // factor**2, x.shape[1] * factor, x.shape[2] * factor))
    for c, plane in enumerate(x):
        dy, dx = divmod(c % factor**2, factor)
        out[c // factor**2, dy::factor, dx::factor] = plane
    return out
