"""What each dimension of an array means: letters out of T, C, Z, Y, X and a last S for colour samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.errors import AxesError

LEADING = "TCZ"
_COLOUR_SAMPLES = (3, 4)  # RGB, RGBA
_GUESSES = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TCZYX"}
_HELP = "use letters such as YX, ZYX, TYX, CYX, TZYX, CZYX, TCZYX, and S last for RGB"


@dataclass(frozen=True)
class Axes:
    """The axes of an array, in the order of its dimensions.

    Parameters
    ----------
    text : str
        Any of T (time), C (channel) and Z (depth), each at most once and in any order, then Y and X, then S if the
        last dimension holds RGB or RGBA samples. Lower case is accepted.

    Raises
    ------
    AxesError
        If the letters are not of this form.
    """

    text: str

    def __post_init__(self) -> None:
        text = str(self.text).strip().upper()
        object.__setattr__(self, "text", text)
        unknown = [letter for letter in text if letter not in LEADING + "YXS"]
        if not text or unknown:
            raise AxesError(f"Unknown axes {self.text!r}: {_HELP}.")
        if len(set(text)) != len(text):
            raise AxesError(f"Axes {text} name a dimension twice: {_HELP}.")
        if not text.removesuffix("S").endswith("YX") or "S" in text[:-1]:
            raise AxesError(f"Axes {text} must end in YX (or YXS for RGB): transpose the array, or {_HELP}.")

    def __str__(self) -> str:
        return self.text

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.text)

    @property
    def has_samples(self) -> bool:
        """Whether the last dimension holds RGB(A) samples."""
        return self.text.endswith("S")

    @property
    def leading(self) -> str:
        """The letters before Y and X."""
        return self.text.removesuffix("S")[:-2]

    def describe(self) -> str:
        """In words, for people: ``"z-stack: Z, Y, X"``."""
        leading = self.leading
        kind = "z-stack" if "Z" in leading else "image"
        if "T" in leading:
            kind = f"time series of {kind}s" if "Z" in leading else "time series"
        if "C" in leading:
            kind = f"{kind} with channels" if leading != "C" else "channels"
        if self.has_samples:
            kind = f"RGB {kind}"
        return f"{kind}: {', '.join(self.text)}"


def resolve_axes(axes: str | None, shape: Sequence[int], dtype: object, *, rgb: bool | None = None) -> Axes:
    """The axes of an array, as told or guessed.

    Parameters
    ----------
    axes : str or None
        Letters as in `Axes`; a C after YX is read as S. None guesses: YX, ZYX, TZYX or TCZYX by the number of
        dimensions, with S last where `rgb` is true, or where it is None and the array is uint8 with a last dimension
        of 3 or 4.
    shape : sequence of int
    dtype : numpy dtype
    rgb : bool, optional
        Whether the last dimension is known to hold, or known not to hold, RGB(A) samples.

    Returns
    -------
    Axes

    Raises
    ------
    AxesError
        If the letters do not fit the array, or no axes can be guessed for it.
    """
    shape = tuple(shape)
    if axes is None:
        return _guess(shape, dtype, rgb)
    text = str(axes).strip().upper()
    if text.endswith("YXC") and len(text) == len(shape) and shape[-1] in _COLOUR_SAMPLES:
        text = text[:-1] + "S"
    resolved = Axes(text)
    if resolved.ndim != len(shape):
        raise AxesError(
            f"Axes {resolved} name {resolved.ndim} dimensions, but the image has {len(shape)} ({_sizes(shape)}): "
            "give one letter for each dimension."
        )
    if resolved.has_samples and shape[-1] not in _COLOUR_SAMPLES:
        raise AxesError(
            f"Axes {resolved} end in S, but the last dimension has {shape[-1]} samples, not 3 (RGB) or 4 (RGBA): "
            "put channels before YX and name them C."
        )
    return resolved


def _guess(shape: tuple[int, ...], dtype: object, rgb: bool | None) -> Axes:
    if rgb is None:
        # a third dimension of 3 or 4 is a colour image in 8 bit, and a very narrow stack otherwise
        rgb = len(shape) >= 3 and shape[-1] in _COLOUR_SAMPLES and np.dtype(dtype) == np.uint8  # type: ignore[call-overload]
    ndim = len(shape) - bool(rgb)
    if ndim not in _GUESSES:
        raise AxesError(
            f"An array of {len(shape)} dimensions ({_sizes(shape)}) is not an image, stack or time series: "
            "give an array of 2 to 5 dimensions, plus RGB."
        )
    return resolve_axes(_GUESSES[ndim] + ("S" if rgb else ""), shape, dtype)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
