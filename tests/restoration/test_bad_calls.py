"""What `deblur` answers to arrays and parameters that make no sense, and to odd ones that do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_mpt_deblur import deblur, load_model
from napari_mpt_deblur.checkpoints import ModelConfig, save_model
from napari_mpt_deblur.checkpoints.loading import Model
from napari_mpt_deblur.errors import (
    AxesError,
    DeblurError,
    DeviceError,
    FileError,
    ImageError,
    ModelError,
    ParameterError,
)
from napari_mpt_deblur.networks import MPT, MPTConfig

IMAGE = (np.arange(30 * 40).reshape(30, 40) % 211).astype(np.uint16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.manual_seed(0)
    network = MPT(MPTConfig.tiny())
    with torch.no_grad():
        network.output.weight.normal_(std=0.05)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    return load_model(save_model(path, network, ModelConfig(MPTConfig.tiny())), device="cpu")


def ragged() -> list[Any]:
    return [[1, 2], [3]]


CALLS: dict[str, tuple[Any, dict[str, Any], type[DeblurError]]] = {
    "nothing": (None, {}, ImageError),
    "a file name": ("image.tif", {}, ImageError),
    "a ragged list": (ragged(), {}, ImageError),
    "a number": (np.float32(3), {}, AxesError),
    "a line": (np.zeros(40), {}, AxesError),
    "6-D": (np.zeros((1, 1, 1, 1, 8, 8)), {}, AxesError),
    "empty": (np.zeros((0, 0)), {}, ImageError),
    "empty stack": (np.zeros((0, 30, 40), np.uint16), {}, ImageError),
    "bool": (IMAGE > 9, {}, ImageError),
    "complex": (IMAGE * 1j, {}, ImageError),
    "object": (IMAGE.astype(object), {}, ImageError),
    "text": (IMAGE.astype(str), {}, ImageError),
    "dates": (IMAGE.astype("M8[s]"), {}, ImageError),
    "records": (np.zeros((8, 8), "u2,f4"), {}, ImageError),
    "uint64 beyond 2^53": (np.full((8, 8), 2**53 + 2, np.uint64), {}, ImageError),
    "float64 beyond float32": (np.array([[1e300, 1.0], [2.0, 3.0]]), {}, ImageError),
    "axes too many": (IMAGE, {"axes": "ZYX"}, AxesError),
    "axes too few": (IMAGE[None], {"axes": "YX"}, AxesError),
    "axes unknown": (IMAGE, {"axes": "QX"}, AxesError),
    "axes of samples": (IMAGE[..., None], {"axes": "YXS"}, AxesError),
    "axes a number": (IMAGE, {"axes": 2}, AxesError),
    "model unknown": (IMAGE, {"model": "no such model"}, ModelError),
    "model a number": (IMAGE, {"model": 3}, ParameterError),
    "model missing": (IMAGE, {"model": Path("missing.safetensors")}, FileError),
    "device unknown": (IMAGE, {"device": "warp"}, DeviceError),
    "device absent": (IMAGE, {"device": "cuda:99"}, DeviceError),
    "precision unknown": (IMAGE, {"precision": "float8"}, DeviceError),
    "tile zero": (IMAGE, {"tile": 0}, ParameterError),
    "tile negative": (IMAGE, {"tile": -64}, ParameterError),
    "tile a fraction": (IMAGE, {"tile": 64.5}, ParameterError),
    "tile true": (IMAGE, {"tile": True}, ParameterError),
    "tile of three": (IMAGE, {"tile": (64, 64, 64)}, ParameterError),
    "tile of nothing": (IMAGE, {"tile": (64, None)}, ParameterError),
    "dtype bool": (IMAGE, {"dtype": bool}, ImageError),
    "dtype complex": (IMAGE, {"dtype": "complex64"}, ImageError),
    "dtype unknown": (IMAGE, {"dtype": "sharp"}, ParameterError),
    "pixel size zero": (IMAGE, {"pixel_size_um": 0}, ParameterError),
    "pixel size NaN": (IMAGE, {"pixel_size_um": float("nan")}, ParameterError),
    "diameter negative": (IMAGE, {"nucleus_diameter_px": -8}, ParameterError),
    "diameter beyond the image": (IMAGE, {"nucleus_diameter_px": 401}, ParameterError),
    "diameter absurd": (IMAGE, {"nucleus_diameter_px": 1e300}, ParameterError),
    "masked": (np.ma.masked_less(IMAGE, 9), {}, ImageError),
    "diameter a word": (IMAGE, {"nucleus_diameter_px": "large"}, ParameterError),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_calls_are_one_clear_line(model: Model, case: str) -> None:
    image, options, kind = CALLS[case]
    before = image.copy() if isinstance(image, np.ndarray) else image
    with pytest.raises(kind) as caught:
        deblur(image, **{"model": model, **options})
    text = str(caught.value)
    assert "\n" not in text
    assert 10 < len(text) < 300
    assert text.endswith(".")
    if isinstance(image, np.ndarray):
        assert image.dtype == before.dtype
        assert image.tobytes() == before.tobytes()


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i2", "u4", "i8", "f2", "f4", ">f8"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (30, 1), (1, 1, 1), (3, 2)])
def test_a_constant_of_any_size_comes_back(model: Model, dtype: str, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 100, dtype)
    restored = deblur(image, model)
    assert (restored.dtype, restored.shape) == (image.dtype, shape)
    np.testing.assert_array_equal(restored, image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_of_nothing_finite_comes_back(model: Model, value: float) -> None:
    image = np.full((2, 20, 20), value, np.float32)
    np.testing.assert_array_equal(deblur(image, model), image)


def test_the_input_is_never_changed(model: Model) -> None:
    image = IMAGE.copy()
    image.flags.writeable = False
    restored = deblur(image, model)
    np.testing.assert_array_equal(image, IMAGE)
    assert not np.shares_memory(restored, image)
    assert np.any(restored != image)
