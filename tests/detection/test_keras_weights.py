"""Weights as Keras saves them, honest and hostile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from detection.keras_files import TINY, Weights, random_weights, write_keras

from napari_mpt_deblur.detection.config import StarDistConfig
from napari_mpt_deblur.detection.keras_weights import read_keras_weights
from napari_mpt_deblur.errors import FileError, ModelError

CONFIG = StarDistConfig.from_dict(TINY)


@pytest.fixture
def weights() -> Weights:
    return random_weights(TINY)


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("keras", [2, 3])
@pytest.mark.parametrize("attributes", [True, False])
def test_both_key_styles_with_and_without_attributes(
    tmp_path: Path, weights: Weights, keras: int, attributes: bool
) -> None:
    expected = read_keras_weights(write_keras(tmp_path / "a.h5", weights), CONFIG)
    path = write_keras(tmp_path / "b.h5", weights, keras=keras, attributes=attributes)
    assert_same(read_keras_weights(path, CONFIG), expected)


def test_kernels_are_turned(tmp_path: Path, weights: Weights) -> None:
    found = read_keras_weights(write_keras(tmp_path / "a.h5", weights), CONFIG)
    np.testing.assert_array_equal(
        found["layers.features.conv.weight"][5, 3, 2, 1], weights["features/kernel"][2, 1, 3, 5]
    )


def renumbered(weights: Weights, first: int) -> Weights:
    """As of a model that was made after others in one session: Keras goes on counting."""

    def name(old: str) -> str:
        layer, _, variable = old.partition("/")
        for kind in ("conv2d", "batch_normalization"):
            if layer == kind or layer.startswith(f"{kind}_"):
                number = int(layer.removeprefix(kind).removeprefix("_") or 0)
                return f"{kind}_{number + first}/{variable}"
        return old

    return {name(old): values for old, values in weights.items()}


@pytest.mark.parametrize("first", [1, 7, 9, 98])
def test_layers_that_keras_numbered_are_in_order(tmp_path: Path, weights: Weights, first: int) -> None:
    """9 before 10, which is not the order of the alphabet."""
    expected = read_keras_weights(write_keras(tmp_path / "a.h5", weights), CONFIG)
    path = write_keras(tmp_path / "b.h5", renumbered(weights, first))
    assert_same(read_keras_weights(path, CONFIG), expected)


def test_keras_3_s_own_format(tmp_path: Path, weights: Weights) -> None:
    """Layers by class and number in the order of the model, variables by number."""
    expected = read_keras_weights(write_keras(tmp_path / "a.h5", weights), CONFIG)
    convs = list(dict.fromkeys(name.partition("/")[0] for name in weights if name.endswith("kernel")))
    path = tmp_path / "own.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("layers/input_layer/vars")
        for number, layer in enumerate(convs):
            group = file.create_group(f"layers/conv2d_{number}/vars" if number else "layers/conv2d/vars")
            group["0"], group["1"] = weights[f"{layer}/kernel"], weights[f"{layer}/bias"]
        for name, values in weights.items():
            layer, _, variable = name.partition("/")
            if layer.startswith("batch_normalization"):
                number = ("gamma", "beta", "moving_mean", "moving_variance").index(variable)
                file[f"layers/{layer}/vars/{number}"] = values
    assert_same(read_keras_weights(path, CONFIG), expected)


def test_a_model_saved_whole(tmp_path: Path, weights: Weights) -> None:
    expected = read_keras_weights(write_keras(tmp_path / "a.h5", weights), CONFIG)
    with h5py.File(tmp_path / "b.h5", "w") as file, h5py.File(tmp_path / "a.h5") as source:
        source.copy("/", file, "model_weights")
        file.create_group("optimizer_weights")["iteration"] = 7
    assert_same(read_keras_weights(tmp_path / "b.h5", CONFIG), expected)


def test_the_class_head_is_left_out(tmp_path: Path) -> None:
    values = TINY | {"n_classes": 3}
    path = write_keras(tmp_path / "a.h5", random_weights(values))
    found = read_keras_weights(path, StarDistConfig.from_dict(values))
    assert not any("class" in name for name in found)


Change = Callable[[h5py.File], object]


def replace_features_bias(values: object) -> Change:
    def change(file: h5py.File) -> None:
        del file["features/features/bias:0"]
        file["features/features/bias:0"] = values

    return change


def external_link(file: h5py.File) -> None:
    del file["prob"]
    file["prob"] = h5py.ExternalLink("/etc/other.h5", "/prob")


def external_data(file: h5py.File) -> None:
    del file["features/features/bias:0"]
    file["features/features"].create_dataset("bias:0", (6,), "f4", external=[("other.bin", 0, 24)])


def soft_link(file: h5py.File) -> None:
    del file["prob"]
    file["prob"] = h5py.SoftLink("/dist")


def cycle(file: h5py.File) -> None:
    file["prob/again"] = file["/"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__("features"), "lacks the layer 'features'"),
        (lambda file: file.__delitem__("conv2d_1"), "too few named conv2d"),
        (lambda file: file.__delitem__("batch_normalization_9"), "too few named batch_normalization"),
        (lambda file: file.__delitem__("prob/prob/bias:0"), "'prob' lacks the weights 'bias'"),
        (lambda file: file.__setitem__("more/more/kernel:0", np.zeros(3)), "has the layer 'more'"),
        (lambda file: file.__setitem__("prob/prob/scale:0", np.zeros(3)), "unknown weights 'scale'"),
        (lambda file: file.__setitem__("prob/other/bias:0", np.zeros(1)), "has them twice"),
        (lambda file: file.__setitem__("loose:0", np.zeros(1)), "belong to no layer"),
        (replace_features_bias(np.zeros(7)), "are 7, config.json asks for 6"),
        (replace_features_bias(1.0), "are a single number"),
        (replace_features_bias(np.full(6, np.nan)), "not finite"),
        (replace_features_bias(np.zeros(6, "i4")), "no floats"),
        (replace_features_bias(np.array([b"x"] * 6)), "no floats"),
        (replace_features_bias(h5py.Empty("f4")), "config.json asks for 6"),
        (external_link, "refers to other places"),
        (soft_link, "refers to other places"),
        (external_data, "no floats within the file"),
        (cycle, "has them twice|not laid out as Keras does"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, weights: Weights, change: Change, message: str) -> None:
    path = write_keras(tmp_path / "weights_best.h5", weights)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ModelError, match=message) as caught:
        read_keras_weights(path, CONFIG)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variance_below_0_is_refused(tmp_path: Path, weights: Weights) -> None:
    weights["batch_normalization/moving_variance"][0] = -1
    with pytest.raises(ModelError, match="variance below 0"):
        read_keras_weights(write_keras(tmp_path / "a.h5", weights), CONFIG)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x89HDF\r\n\x1a\n", b"\x80\x04\x95 a pickle"])
def test_what_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights_best.h5"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="copy"):
        read_keras_weights(path, CONFIG)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, weights: Weights, share: float) -> None:
    path = write_keras(tmp_path / "weights_best.h5", weights)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="cut short"):
        read_keras_weights(path, CONFIG)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_keras_weights(tmp_path / "weights_best.h5", CONFIG)
