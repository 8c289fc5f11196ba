from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mpt_deblur.errors import ImageError, ParameterError
from napari_mpt_deblur.images import ImageView, Normalization, measure_normalization, undo_to_dtype


def test_percentiles_are_those_of_the_whole_stack() -> None:
    stack = np.random.default_rng(0).gamma(2, 100, (4, 30, 31)).astype(np.float32)
    measured = measure_normalization(ImageView.of(stack, "ZYX"), (2, 99))
    assert measured.low == pytest.approx([np.percentile(stack, 2)], rel=1e-6)
    assert measured.high == pytest.approx([np.percentile(stack, 99)], rel=1e-6)
    assert not measured.sampled


def test_channels_have_statistics_of_their_own() -> None:
    stack = np.zeros((2, 3, 8, 8), np.uint16)
    stack[:, 1] = np.arange(64).reshape(8, 8) + 500
    measured = measure_normalization(ImageView.of(stack, "ZCYX"), (0, 100))
    assert measured.low == (0, 500, 0)
    assert measured.high == (0, 563, 0)
    assert [measured.is_flat(channel) for channel in range(3)] == [True, False, True]


def test_not_finite_pixels_do_not_count() -> None:
    image = np.arange(64, dtype=np.float32).reshape(8, 8)
    image[0, 0], image[7, 7], image[3, 3] = np.nan, np.inf, -np.inf
    measured = measure_normalization(ImageView.of(image), (0, 100))
    assert (measured.low, measured.high) == ((1.0,), (62.0,))


def test_nothing_but_nan_is_flat() -> None:
    measured = measure_normalization(ImageView.of(np.full((4, 4), np.nan)))
    assert measured.is_flat(0)
    np.testing.assert_array_equal(measured.apply(np.full((4, 4), np.nan), 0), 0)


@pytest.mark.parametrize("value", [0.0, 7.25, -3.0, 2.0**40 + 1])
def test_a_constant_comes_back(value: float) -> None:
    image = np.full((5, 6), value)
    measured = measure_normalization(ImageView.of(image))
    normalised = measured.apply(image, 0)
    assert normalised.dtype == np.float32
    np.testing.assert_array_equal(normalised, 0)
    if value < 2**24:
        np.testing.assert_array_equal(measured.undo(normalised + 0.3, 0), image)


def test_a_few_bright_spots_are_not_flat() -> None:
    image = np.full((100, 100), 5, np.uint16)
    image[50, 50] = 900
    measured = measure_normalization(ImageView.of(image))
    assert (measured.low, measured.high) == ((5.0,), (900.0,))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_sample_is_close_and_always_the_same(lazy: bool) -> None:
    rng = np.random.default_rng(1)
    stack = rng.normal(1000, 100, (90, 40, 48)).astype(np.float32) + np.arange(90)[:, None, None]
    data = stack
    if lazy:
        data = pytest.importorskip("dask.array").from_array(stack, chunks=(1, 40, 48))
    view = ImageView.of(data, "ZYX")
    sampled = measure_normalization(view, max_pixels=20_000)
    assert sampled.sampled
    assert sampled == measure_normalization(view, max_pixels=20_000)
    low, high = np.percentile(stack, (1, 99.8))
    assert sampled.low[0] == pytest.approx(low, abs=15)
    assert sampled.high[0] == pytest.approx(high, abs=40)


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_darkest_and_the_brightest_pixel_are_found_in_any_number_of_pixels(dtype: type, lazy: bool) -> None:
    stack = np.full((90, 40, 48), 500, dtype)
    stack[41, 13, 7], stack[88, 2, 3] = 60000, 3
    if dtype != np.uint16:
        stack[5], stack[41, 0, 0], stack[41, 0, 1] = np.nan, np.inf, -np.inf
    data = pytest.importorskip("dask.array").from_array(stack, chunks=(1, 40, 48)) if lazy else stack
    view = ImageView.of(data, "ZYX")
    measured = measure_normalization(view, (0, 100), max_pixels=1000)
    assert (measured.low, measured.high, measured.sampled) == ((3.0,), (60000.0,), False)
    assert measure_normalization(view, "full", max_pixels=1000).high == (65535.0,)


def test_a_sample_sees_every_column() -> None:
    # a step of the width, or one that shares a factor with it, would see some columns only
    image = np.tile(np.arange(64.0), (64, 1))
    measured = measure_normalization(ImageView.of(image), (1, 99), max_pixels=1024)
    assert measured.sampled
    assert (measured.low, measured.high) == ((0.0,), (63.0,))


@given(
    low=st.floats(-1e6, 1e6, width=32),
    spread=st.floats(2**-7, 1e6, width=32),
    values=st.lists(st.floats(-1, 2, width=32), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_undo_reverses_apply(low: float, spread: float, values: list[float]) -> None:
    normalization = Normalization((low,), (low + spread,))
    plane = np.array([values], np.float32)
    back = normalization.apply(normalization.undo(plane, 0), 0)
    # float32 grey levels round: by one part in 2^23 of the largest, seen in units of the spread
    slack = 4e-7 * (abs(low) + 2 * spread) / spread + 1e-6
    np.testing.assert_allclose(back, plane, atol=slack)


def test_it_survives_json() -> None:
    normalization = Normalization((0.5, 1), (2, 3), (0.1, 99), True)
    assert Normalization.from_dict(json.loads(json.dumps(normalization.to_dict()))) == normalization


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"low": [1], "high": [0]},
        {"low": [0], "high": [1, 2]},
        {"low": 3, "high": 4},
        {"low": ["a"], "high": [1]},
        {"low": [float("nan")], "high": [1]},
        {"low": [], "high": []},
        {"low": [0], "high": [1], "percentiles": [5]},
    ],
)
def test_damaged_records_are_refused(values: dict) -> None:
    with pytest.raises(ParameterError):
        Normalization.from_dict(values)


@pytest.mark.parametrize("percentiles", [(5, 5), (99, 1), (-1, 50), (0, 101), (1,), ("a", "b"), (float("nan"), 5)])
def test_percentiles_rise(percentiles: tuple) -> None:
    with pytest.raises(ParameterError, match="percentiles"):
        measure_normalization(ImageView.of(np.zeros((4, 4))), percentiles)


@pytest.mark.parametrize("dtype", ["u1", "i1", ">u2", "i2", "u4", "i4", "u8", "i8"])
def test_whole_numbers_are_rounded_and_clipped(dtype: str) -> None:
    limits = np.iinfo(dtype)
    out = undo_to_dtype(np.array([[-1e30, 3.4, 3.6, 1e30, np.nan]]), dtype)
    assert out.dtype == np.dtype(dtype)
    assert out[0, 1:3].tolist() == [3, 4]
    assert out[0, 0] == limits.min
    assert limits.max - int(out[0, 3]) <= limits.max >> 52  # the largest that float64 can hold
    assert out[0, 4] == 0


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8"])
def test_floats_are_clipped_and_keep_what_is_not_finite(dtype: str) -> None:
    out = undo_to_dtype(np.array([[1e39, -1e39, np.nan, np.inf, 0.5]]), dtype)
    assert out.dtype == np.dtype(dtype)
    assert np.isfinite(out[0, :2]).all()
    assert np.isnan(out[0, 2])
    assert np.isposinf(out[0, 3])
    assert out[0, 4] == 0.5


@pytest.mark.parametrize("source", ["f2", "f4", "f8", "u2"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.filterwarnings("error")
def test_floats_become_wider_and_narrower_without_a_warning(source: str, dtype: str) -> None:
    plane = np.array([[3, 60000]], source)
    assert undo_to_dtype(plane, dtype).tolist() == plane.tolist()


@pytest.mark.parametrize("dtype", [bool, complex, object, "U3"])
def test_other_types_are_refused(dtype: object) -> None:
    with pytest.raises(ImageError, match="cannot be of type"):
        undo_to_dtype(np.zeros((2, 2)), dtype)


@pytest.mark.parametrize(
    ("dtype", "highest", "expected"),
    [
        (np.uint8, 3, 255),
        (np.uint8, 255, 255),
        (np.uint16, 200, 255),
        (np.uint16, 256, 1023),
        (np.uint16, 4000, 4095),
        (np.uint16, 60000, 65535),
        (np.int32, 70, 255),
        (np.float32, 0.7, 1),
        (np.float32, 1.0, 1),
        (np.float64, 1.5, 255),
        (np.float32, 65535, 65535),
    ],
)
def test_the_full_range_is_that_of_the_bits_in_use(dtype: type, highest: float, expected: float) -> None:
    image = np.zeros((2, 4, 5, 3), dtype)
    image[1, 2, 3, 1] = highest
    found = measure_normalization(ImageView.of(image, "ZYXS"), "full")
    assert (found.low, found.high, found.percentiles) == ((0.0,) * 3, (expected,) * 3, None)
    assert Normalization.from_dict(found.to_dict()) == found
    np.testing.assert_array_equal(found.apply(image[1, ..., 1], 1), (image[1, ..., 1] / expected).astype(np.float32))


def test_beyond_16_bits_there_is_no_full_range() -> None:
    with pytest.raises(ImageError, match="convert it"):
        measure_normalization(ImageView.of(np.full((4, 5), 70000, np.uint32), "YX"), "full")
