from __future__ import annotations

import numpy as np
import pytest

from napari_mpt_deblur.errors import AxesError, ImageError, ParameterError
from napari_mpt_deblur.images import ImageView, PlaneIndex


class Counting:
    """An array that notes what is read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.reads: list[int] = []

    def __getitem__(self, key: object) -> np.ndarray:
        part = self.array[key]
        self.reads.append(part.size)
        return part

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise AssertionError("the whole array was asked for")


def test_planes_of_a_stack_with_channels() -> None:
    view = ImageView.of(np.zeros((2, 3, 4, 5)), "CZYX")
    assert [plane.index for plane in view.planes] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [plane.channel for plane in view.planes] == [0, 0, 0, 1, 1, 1]
    assert view.channel_count == 2
    assert (view.height, view.width) == (4, 5)


def test_planes_of_a_single_image() -> None:
    assert ImageView.of(np.zeros((4, 5))).planes == (PlaneIndex((), 0, None),)


@pytest.mark.parametrize("samples", [3, 4])
def test_alpha_is_no_plane(samples: int) -> None:
    array = np.arange(4 * 5 * samples, dtype=np.uint8).reshape(4, 5, samples)
    view = ImageView.of(array)
    assert [plane.sample for plane in view.planes] == [0, 1, 2]
    assert [plane.channel for plane in view.planes] == [0, 1, 2]
    assert view.channel_count == 3
    for plane in view.planes:
        np.testing.assert_array_equal(view.read_plane(plane), array[..., plane.sample])


def test_channels_and_colours_count_on() -> None:
    view = ImageView.of(np.zeros((2, 4, 5, 3), np.uint8), "CYXS")
    assert [plane.channel for plane in view.planes] == [0, 1, 2, 3, 4, 5]
    assert view.channel_count == 6


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", ">i4", "u4", "i8", "u8", "f2", ">f4", "f8"])
def test_a_plane_is_native_float32_and_a_copy(dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) + 3).astype(dtype)
    view = ImageView.of(array, "ZYX")
    plane = view.read_plane(view.planes[1])
    assert plane.dtype == np.float32
    assert plane.dtype.isnative
    np.testing.assert_array_equal(plane, np.arange(12, 24).reshape(3, 4) + 3)
    plane[:] = 0
    assert array[1].min() == 15


def test_nan_and_infinity_stay() -> None:
    array = np.array([[np.nan, np.inf], [-np.inf, 1]])
    view = ImageView.of(array)
    np.testing.assert_array_equal(view.read_plane(view.planes[0]), array)


def test_one_plane_is_read_at_a_time() -> None:
    data = Counting(np.zeros((6, 8, 9), np.uint16))
    view = ImageView.of(data, "ZYX")
    assert data.reads == []
    view.read_plane(view.planes[3])
    assert data.reads == [72]


def test_a_dask_array_computes_only_the_plane() -> None:
    da = pytest.importorskip("dask.array")
    computed = []

    def load(block_id: tuple[int, ...]) -> np.ndarray:
        computed.append(block_id[0])
        return np.full((1, 8, 9), block_id[0], np.uint16)

    array = da.map_blocks(
        lambda block_id: load(block_id),
        chunks=((1,) * 5, (8,), (9,)),
        dtype=np.uint16,
        meta=np.zeros((0, 0, 0), np.uint16),
    )
    computed.clear()
    view = ImageView.of(array, "ZYX")
    assert view.read_plane(view.planes[2])[0, 0] == 2
    assert computed == [2]


def test_a_zarr_array_is_read_by_plane() -> None:
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(store={}, shape=(3, 8, 9), chunks=(1, 8, 9), dtype="uint16")
    array[1] = 7
    view = ImageView.of(array, "ZYX")
    assert view.read_plane(view.planes[1]).mean() == 7


def test_lists_become_arrays() -> None:
    assert ImageView.of([[1.0, 2.0], [3.0, 4.0]]).shape == (2, 2)


def test_tensors_become_arrays() -> None:
    torch = pytest.importorskip("torch")
    view = ImageView.of(torch.arange(12, dtype=torch.float32).reshape(3, 4))
    assert (view.dtype, view.read_plane(view.planes[0])[2, 3]) == (np.float32, 11)
    with pytest.raises(ImageError, match="array of numbers"):
        ImageView.of(torch.zeros(3, 4, requires_grad=True))


def test_an_image_of_unknown_size_is_refused() -> None:
    da = pytest.importorskip("dask.array")
    image = da.ones((6, 8))
    with pytest.raises(ImageError, match="compute_chunk_sizes"):
        ImageView.of(image[image[:, 0] > 0])


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (np.zeros((4, 4), bool), "mask"),
        (np.zeros((4, 4), complex), "complex"),
        (np.zeros((4, 4), object), "object"),
        (np.array([["a", "b"]]), "type"),
        (np.zeros((4, 4), "M8[s]"), "type"),
        (np.zeros((4, 4), "u1,f4"), "type"),
        (np.zeros((4, 4), np.longdouble), "type"),
        (np.full((4, 4), 2**53 + 2, np.uint64), r"2\^53"),
        (np.full((4, 4), -(2**53) - 2, np.int64), r"2\^53"),
        (np.zeros((0, 4)), "empty"),
        (np.zeros((3, 0, 4)), "empty"),
        ([[1], [1, 2]], "array of numbers"),
        ("image.tif", "type"),
        (None, "type"),
    ],
)
def test_what_cannot_be_restored_is_refused(data: object, word: str) -> None:
    with pytest.raises(ImageError, match=word) as caught:
        ImageView.of(data)
    assert "\n" not in str(caught.value)


def test_whole_numbers_up_to_the_limit_are_accepted() -> None:
    ImageView.of(np.full((2, 2), 2**53, np.uint64))


def test_lazy_whole_numbers_are_checked_as_they_are_read() -> None:
    view = ImageView.of(Counting(np.full((2, 4, 4), 2**60, np.uint64)), "ZYX")
    with pytest.raises(ImageError, match=r"2\^53"):
        view.read_plane(view.planes[0])


def test_values_beyond_float32_are_refused_when_read() -> None:
    view = ImageView.of(np.full((2, 2), 1e300))
    with pytest.raises(ImageError, match=r"3\.4e38"):
        view.read_plane(view.planes[0])


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "wide"])
def test_pixel_sizes_are_above_zero(value: object) -> None:
    with pytest.raises(ParameterError, match="pixel_size_um"):
        ImageView.of(np.zeros((4, 4)), pixel_size_um=value)


def test_wrong_axes_are_refused() -> None:
    with pytest.raises(AxesError):
        ImageView.of(np.zeros((4, 4)), "ZYX")


def test_keys_write_what_they_read() -> None:
    view = ImageView.of(np.zeros((2, 4, 5, 3), np.uint8))
    out = np.zeros(view.shape, np.uint8)
    for number, plane in enumerate(view.planes):
        out[plane.key] += number + 1
    assert out.min() == 1
    assert len(np.unique(out)) == 6
