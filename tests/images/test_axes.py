from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_mpt_deblur.errors import AxesError
from napari_mpt_deblur.images import Axes, resolve_axes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("YX", "image: Y, X"),
        ("ZYX", "z-stack: Z, Y, X"),
        ("TYX", "time series: T, Y, X"),
        ("CYX", "channels: C, Y, X"),
        ("TZYX", "time series of z-stacks: T, Z, Y, X"),
        ("CZYX", "z-stack with channels: C, Z, Y, X"),
        ("TCZYX", "time series of z-stacks with channels: T, C, Z, Y, X"),
        ("YXS", "RGB image: Y, X, S"),
        ("ZYXS", "RGB z-stack: Z, Y, X, S"),
    ],
)
def test_axes_are_described_in_words(text: str, words: str) -> None:
    assert Axes(text).describe() == words


def test_every_order_of_leading_axes_is_accepted() -> None:
    for count in range(4):
        for letters in itertools.permutations("TCZ", count):
            for end in ("YX", "YXS"):
                axes = Axes("".join(letters) + end)
                assert axes.leading == "".join(letters)
                assert axes.ndim == count + len(end)
                assert axes.has_samples == (end == "YXS")


def test_lower_case_and_spaces_are_accepted() -> None:
    assert Axes(" zyx ").text == "ZYX"


@pytest.mark.parametrize("text", ["", "ZXY", "YXZ", "ZZYX", "QYX", "XY", "Z", "SYX", "YXSS", "Y X", "ZYXC", "ÿx"])
def test_other_axes_are_refused(text: str) -> None:
    with pytest.raises(AxesError, match="letters"):
        Axes(text)


@pytest.mark.parametrize(
    ("shape", "dtype", "rgb", "expected"),
    [
        ((5, 7), "u1", None, "YX"),
        ((9, 5, 7), "u2", None, "ZYX"),
        ((5, 7, 3), "u1", None, "YXS"),
        ((5, 7, 4), "u1", None, "YXS"),
        ((5, 7, 3), "u2", None, "ZYX"),
        ((5, 7, 3), "u1", False, "ZYX"),
        ((5, 7, 3), "f4", True, "YXS"),
        ((2, 9, 5, 7), "f4", None, "TZYX"),
        ((2, 9, 5, 3), "f4", True, "ZYXS"),
        ((2, 3, 9, 5, 7), "u2", None, "TCZYX"),
    ],
)
def test_axes_are_guessed(shape: tuple[int, ...], dtype: str, rgb: bool | None, expected: str) -> None:
    assert resolve_axes(None, shape, np.dtype(dtype), rgb=rgb).text == expected


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3, 4, 5, 6), (1, 1, 1, 1, 1, 5, 5)])
def test_arrays_that_are_no_image_are_not_guessed(shape: tuple[int, ...]) -> None:
    with pytest.raises(AxesError, match="2 to 5 dimensions"):
        resolve_axes(None, shape, np.uint16)


def test_a_last_c_of_three_is_read_as_colour() -> None:
    assert resolve_axes("YXC", (5, 7, 3), np.uint8).text == "YXS"
    with pytest.raises(AxesError):
        resolve_axes("YXC", (5, 7, 2), np.uint8)


def test_the_message_names_both_counts() -> None:
    with pytest.raises(AxesError, match=r"ZYX name 3 dimensions, but the image has 2 \(5 x 7\)"):
        resolve_axes("ZYX", (5, 7), np.uint8)


def test_s_needs_three_or_four_samples() -> None:
    with pytest.raises(AxesError, match="5 samples"):
        resolve_axes("YXS", (8, 8, 5), np.uint8)
