"""What photographs of cells lack as scenes to train on: edges that are sharp at every size, and structure inside."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft, ndimage, special

_STRONGEST = 4.0  # standard deviations of a texture
_SMALLEST_PX = (3.0, 20.0)
_EXPONENT = 3.0  # density of radii: no scale stands out, as in photographs
_LOBES = np.arange(2, 6)  # waves around an outline


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Random structure of about unit variance: of one size, of all sizes, or spots."""
    kind, noise = rng.integers(3), rng.standard_normal((side, side), dtype=np.float32)
    if kind == 0:
        field = ndimage.gaussian_filter(noise, log_uniform(rng, 0.7, 8))
    elif kind == 1:  # as chromatin: the spectrum falls off by a power of the frequency
        frequency = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None])
        falling = np.maximum(frequency, 1 / side) ** -rng.uniform(0.5, 2)
        field = fft.irfft2(fft.rfft2(noise) * falling.astype(np.float32), (side, side))
    else:  # nucleoli and foci
        spots = (rng.random((side, side)) < log_uniform(rng, 2e-4, 1e-2)) * np.sign(noise + rng.choice([-1, 0, 1]))
        field = ndimage.gaussian_filter(spots.astype(np.float32), log_uniform(rng, 0.8, 5))
    # sparse spots would outshine their nucleus many times
    return np.clip(field / max(float(field.std()), 1e-6), -_STRONGEST, _STRONGEST)


def grain(side: int, rng: np.random.Generator) -> np.ndarray:
    """Fine random structure of unit variance that covers the field, coarser than a camera's noise."""
    noise = rng.standard_normal((side, side), dtype=np.float32)
    field = ndimage.gaussian_filter(noise, log_uniform(rng, 0.6, 3))
    return field / field.std()


def crisp(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An enlarged image with a sharp edge where it rises above a random level, (Y, X) float32."""
    level, rest = rng.uniform(0.08, 0.4), rng.uniform(0, 0.3)
    # the level line of a soft edge, where intensities change by a few hundredths from pixel to pixel
    above = special.expit((patch - level) / log_uniform(rng, 0.01, 0.04))
    return patch * (rest + (1 - rest) * above)


def dead_leaves(side: int, rng: np.random.Generator) -> np.ndarray:
    """A random scene of opaque, textured shapes that hide each other.

    Photographs of cells that are enlarged have soft edges, and a network that sees no others takes a large soft edge
    for a sharp one. Here, small shapes and large have edges of a pixel.

    Parameters
    ----------
    side : int
        In pixels.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        (side, side) float32, mostly 0..1, texture up to about 3: half of the scenes are covered by shapes, half hold
        few, some of them dim, on a background of 0.

    References
    ----------
    Lee, Mumford and Huang (2001), Occlusion models for natural images, Int. J. Comput. Vis. 41: the model. Achddou,
    Gousseau and Ladjal (2021), Synthetic images as a regularity prior for image restoration neural networks, SSVM:
    training on it.
    """
    dense = rng.random() < 0.5
    scene = np.full((side, side), rng.uniform(0, 1) if dense else 0.0, np.float32)
    field = texture(side, rng)
    smallest, largest = log_uniform(rng, *_SMALLEST_PX), side * rng.uniform(0.08, 0.3)
    area_left = side**2 * (3.0 if dense else rng.uniform(0.05, 0.5))
    while area_left > 0:
        radius = _radius(rng, smallest, max(largest, smallest))
        area_left -= math.pi * radius**2
        _draw(scene, field, radius, dense, rng)
    return ndimage.gaussian_filter(scene, rng.uniform(0.3, 0.7))


def _draw(scene: np.ndarray, field: np.ndarray, radius: float, dense: bool, rng: np.random.Generator) -> None:
    """One shape: an ellipse with a wavy outline, brightness that rises to one side, and its share of texture."""
    side = len(scene)
    centre = rng.uniform(0, side, 2)
    first = np.maximum(np.floor(centre - 1.6 * radius - 1), 0).astype(int)
    last = np.minimum(np.ceil(centre + 1.6 * radius + 2), side).astype(int)
    place = tuple(map(slice, first, last))
    y, x = (np.arange(a, b, dtype=np.float32) - c for a, b, c in zip(first, last, centre, strict=True))
    turn, flat = rng.uniform(0, math.pi), rng.uniform(0.5, 1)
    along = (x[None] * math.cos(turn) + y[:, None] * math.sin(turn)) / radius
    across = (y[:, None] * math.cos(turn) - x[None] * math.sin(turn)) / (radius * flat)
    distance, angle = np.hypot(along, across), np.arctan2(across, along)
    waves, phases = rng.normal(0, 0.12, _LOBES.size) / _LOBES, rng.uniform(0, 2 * math.pi, _LOBES.size)
    outline = 1 + sum(wave * np.cos(k * angle + phase) for k, wave, phase in zip(_LOBES, waves, phases, strict=True))
    cover = np.clip((outline - distance) * radius * flat + 0.5, 0, 1)
    light = rng.uniform(0, 1) if dense else math.exp(rng.uniform(math.log(0.1), 0))
    shade = light * (1 + rng.uniform(-0.3, 0.3) * along + rng.choice([0, 0.1, 0.25, 0.5]) * field[place])
    scene[place] += cover * (np.maximum(shade, 0) - scene[place])


def _radius(rng: np.random.Generator, smallest: float, largest: float) -> float:
    """Drawn with a density that falls as radius**-_EXPONENT between the smallest and the largest."""
    power = 1 - _EXPONENT
    low, high = smallest**power, largest**power
    return float((low + rng.random() * (high - low)) ** (1 / power))
