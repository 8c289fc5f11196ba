"""Intensity statistics: how grey levels become values of about 0 to 1 for the network, and back."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from napari_mpt_deblur.errors import ImageError, ParameterError
from napari_mpt_deblur.images.view import ImageView, PlaneIndex

IntensityRule = tuple[float, float] | Literal["full"]
"""Which grey levels become 0 and 1: two percentiles of the pixels, or the ends of the full range of their type."""

Step = TypeVar("Step")
_FULL_RANGES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))  # what cameras and files hold
_MAX_PIXELS = 2**22  # a channel's; percentiles of 4 million pixels take a few hundredths of a second
_MAX_PLANES = 64  # a channel's; reading a lazy plane may cost a file access
_FLOAT32_WHOLE = 2**24  # whole numbers up to here have a float32 of their own
_FLOAT32_FINE = 1e-30  # numbers from here on have all digits of a float32


@dataclass(frozen=True)
class Normalization:
    """A linear map of grey levels for each channel: `low` becomes 0, `high` becomes 1.

    Attributes
    ----------
    low, high : tuple of float
        Grey levels, one of each for every channel. Equal where a channel is constant.
    percentiles : tuple of float or None
        Which percentiles of the pixels they are; None for the ends of the type's range.
    sampled : bool
        Whether they were measured on a part of the pixels.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    percentiles: tuple[float, float] | None = (1.0, 99.8)
    sampled: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", tuple(map(float, self.low)))
        object.__setattr__(self, "high", tuple(map(float, self.high)))
        if self.percentiles is not None:
            object.__setattr__(self, "percentiles", check_percentiles(self.percentiles))
        pairs_fit = len(self.low) == len(self.high) > 0
        if not pairs_fit or not all(
            -math.inf < low <= high < math.inf for low, high in zip(self.low, self.high, strict=True)
        ):
            raise ParameterError("A normalisation needs a finite low and a high not below it for every channel.")

    def is_flat(self, channel: int) -> bool:
        """Whether the channel is constant: there is nothing to restore in it."""
        return self.low[channel] == self.high[channel]

    def apply(self, plane: np.ndarray, channel: int) -> np.ndarray:
        """Grey levels to values of about 0 to 1, float32; all 0 for a constant channel."""
        low, high = self.low[channel], self.high[channel]
        if low == high:
            return np.zeros(plane.shape, np.float32)
        return ((np.asarray(plane, np.float64) - low) / (high - low)).astype(np.float32)

    def undo(self, plane: np.ndarray, channel: int) -> np.ndarray:
        """Values of about 0 to 1 back to grey levels; a constant channel comes back as its constant.

        float32, or float64 where grey levels are beyond 2**24 or below 1e-30 and float32 would round them.
        """
        low, high = self.low[channel], self.high[channel]
        dtype = np.float32 if _FLOAT32_FINE <= max(abs(low), abs(high)) <= _FLOAT32_WHOLE else np.float64
        if low == high:
            return np.full(plane.shape, low, dtype)
        return (np.asarray(plane, np.float64) * (high - low) + low).astype(dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; `from_dict` reads it back."""
        return {
            "low": list(self.low),
            "high": list(self.high),
            "percentiles": None if self.percentiles is None else list(self.percentiles),
            "sampled": self.sampled,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalization:
        """A normalisation from plain data.

        Raises
        ------
        ParameterError
            If a value is missing or not accepted.
        """
        try:
            return cls(
                tuple(values["low"]),
                tuple(values["high"]),
                values.get("percentiles", (1.0, 99.8)),
                bool(values.get("sampled", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ParameterError):
                raise
            raise ParameterError("The record of a normalisation is damaged: measure it again.") from error


def measure_normalization(
    view: ImageView, rule: IntensityRule = (1.0, 99.8), max_pixels: int = _MAX_PIXELS
) -> Normalization:
    """Measure each channel's grey levels over the whole image: all planes, finite pixels only.

    Of a channel with more than `max_pixels` pixels, evenly spaced planes and pixels are taken, the same ones every
    time; but all of them for the darkest and the brightest pixel (percentiles 0 and 100, and "full"), which are in no
    sample. No more than one plane is held at once.

    Parameters
    ----------
    view : ImageView
    rule : tuple of float or "full"
        The low and the high percentile, 0 to 100. Or 0 and the largest value of the image's type, all channels alike:
        255 for 8 bits; for other whole numbers the least of 8, 10, 12, 14 and 16 bits that holds the pixels, as cameras
        leave bits unused; 1 for floats of at most 1, which are in that range already.
    max_pixels : int
        Most pixels of a channel to look at.

    Returns
    -------
    Normalization
        Where the two percentiles are equal, though pixels differ, the lowest and highest pixel stand in for them.

    Raises
    ------
    ParameterError
        If the percentiles are not two rising numbers from 0 to 100.
    ImageError
        If the pixels are beyond 16 bits and the full range is asked for.
    """
    steps = normalization_steps(view, rule, max_pixels, step=None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            measured: Normalization = end.value
            return measured


def normalization_steps(
    view: ImageView, rule: IntensityRule, max_pixels: int = _MAX_PIXELS, *, step: Step
) -> Generator[Step, None, Normalization]:
    """`measure_normalization`, step by step: yields `step` before each plane of a lazy image is read."""
    if rule == "full" and view.dtype == np.uint8:  # nothing to measure
        return Normalization((0.0,) * view.channel_count, (255.0,) * view.channel_count, None)
    percentiles = (0.0, 100.0) if rule == "full" else check_percentiles(rule)
    ends_only = percentiles == (0.0, 100.0)
    lows, highs, sampled = [], [], False
    for channel in range(view.channel_count):
        planes = [plane for plane in view.planes if plane.channel == channel]
        everything = [(plane, 1, 0) for plane in planes]
        taken = everything if ends_only else _sampling(view, planes, max_pixels)
        sampled |= taken != everything
        parts = []
        for plane, stride, first in taken:
            if not view.in_memory:
                yield step
            pixels = view.read_pixels(plane)
            parts.append(_ends(pixels) if ends_only else _finite(_every(stride, first, pixels)))
        pixels = np.concatenate(parts)
        if not pixels.size:  # nothing but NaN: nothing to restore
            lows.append(0.0)
            highs.append(0.0)
            continue
        low, high = np.percentile(pixels, percentiles)
        if low == high:  # a few bright spots on an even background
            low, high = pixels.min(), pixels.max()
        lows.append(float(low))
        highs.append(float(high))
    if rule == "full":
        full = _full_range(max(highs), view.dtype)
        return Normalization((0.0,) * len(highs), (full,) * len(highs), None, sampled)
    return Normalization(tuple(lows), tuple(highs), percentiles, sampled)


def _full_range(highest: float, dtype: np.dtype) -> float:
    if dtype.kind == "f" and highest <= 1:
        return 1.0
    for full in _FULL_RANGES:
        if highest <= full:
            return float(full)
    raise ImageError(
        f"The model takes images of at most 16 bits, this one has pixels of {highest:g}: convert it to 8 or 16 bits."
    )


def undo_to_dtype(plane: np.ndarray, dtype: Any) -> np.ndarray:
    """Grey levels as another type: rounded and clipped for whole numbers, clipped to its range for floats.

    Parameters
    ----------
    plane : ndarray
        Any shape, floating.
    dtype : numpy dtype
        Integer or floating, in either byte order.

    Returns
    -------
    ndarray
        NaN and infinite pixels stay in floats; whole numbers have 0 for NaN.

    Raises
    ------
    ImageError
        If the type is neither integer nor floating.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        if plane.dtype.kind == "f":  # which knows no limit beyond its own
            largest = min(largest, float(np.finfo(plane.dtype).max))
        with np.errstate(invalid="ignore"):
            clipped = np.where(np.isfinite(plane), np.clip(plane, -largest, largest), plane)
        return clipped.astype(dtype)
    if dtype.kind not in "iu":
        raise ImageError(f"A restored image cannot be of type {dtype}: choose uint8, uint16 or float32.")
    limits = np.iinfo(dtype)
    # the largest float64 within a 64-bit type lies below its limit
    highest = limits.max if limits.bits < 64 else int(np.nextafter(float(limits.max), 0))
    rounded = np.rint(np.nan_to_num(np.asarray(plane, np.float64), nan=0.0))
    return np.clip(rounded, limits.min, highest).astype(dtype)


def _sampling(view: ImageView, planes: list[PlaneIndex], max_pixels: int) -> list[tuple[PlaneIndex, int, int]]:
    """Which planes of a channel to look at, and of each every how many-th pixel from which on."""
    size = view.height * view.width
    if len(planes) * size <= max_pixels:
        return [(plane, 1, 0) for plane in planes]
    if len(planes) > _MAX_PLANES:
        chosen = np.unique(np.linspace(0, len(planes) - 1, _MAX_PLANES).round().astype(int))
        planes = [planes[i] for i in chosen]
    step = max(1, math.ceil(len(planes) * size / max_pixels))
    while step > 1 and math.gcd(step, view.width) > 1:  # a step that shares a factor with the width stays in columns
        step += 1
    # each plane starts elsewhere, so that together they cover the field
    return [(plane, step, (i * 7) % step) for i, plane in enumerate(planes)]


def _every(step: int, first: int, plane: np.ndarray) -> np.ndarray:
    """Each `step`-th pixel, without a copy of the plane; that of one colour does not lie in one piece."""
    return (plane.reshape(-1) if plane.flags.c_contiguous else plane.flat)[first::step]


def _finite(pixels: np.ndarray) -> np.ndarray:
    """In native byte order; float16 as float32, as percentiles are interpolated in the pixels' own type."""
    pixels = pixels[np.isfinite(pixels)]
    return pixels.astype(np.float32 if pixels.dtype == np.float16 else pixels.dtype.newbyteorder("="))


def _ends(plane: np.ndarray) -> np.ndarray:
    """The darkest and the brightest finite pixel, which is all that their percentiles 0 and 100 need; or none."""
    ends = _finite(np.array([plane.min(), plane.max()]))
    if ends.size == 2:
        return ends
    pixels = _finite(plane)
    return np.array([pixels.min(), pixels.max()]) if pixels.size else pixels


def check_percentiles(percentiles: Any) -> tuple[float, float]:
    """Two rising numbers from 0 to 100.

    Raises
    ------
    ParameterError
        If they are something else.
    """
    try:
        low, high = (float(p) for p in percentiles)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"percentiles must be two numbers; got {percentiles!r}.") from error
    if not 0 <= low < high <= 100:
        raise ParameterError(f"percentiles must rise from 0 to 100; got {low:g} and {high:g}.")
    return low, high
