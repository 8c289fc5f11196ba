"""The torch network against StarDist itself, in an environment that has TensorFlow: `tox -e parity`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="parity with StarDist is checked by `tox -e parity`, which has TensorFlow")

from stardist.matching import matching
from stardist.models import Config2D, Config3D, StarDist2D, StarDist3D

from napari_mpt_deblur import detect
from napari_mpt_deblur.detection.folder import load_detector
from napari_mpt_deblur.detection.prediction import predict
from napari_mpt_deblur.detection.run import detection_steps
from napari_mpt_deblur.detection.settings import DetectionSettings
from napari_mpt_deblur.images import ImageView

CONFIGS: dict[str, dict[str, Any]] = {
    "usual": {"n_rays": 32, "grid": (2, 2)},
    "normalised": {"n_rays": 16, "unet_n_filter_base": 8, "unet_batch_norm": True, "net_conv_after_unet": 0},
    "colour": {
        "n_rays": 8,
        "grid": (4, 2),
        "n_channel_in": 3,
        "unet_n_filter_base": 4,
        "unet_kernel_size": (2, 5),
        "unet_n_conv_per_depth": 3,
        "unet_batch_norm": True,
        "unet_activation": "elu",
        "unet_last_activation": "tanh",
        "unet_prefix": "pre_",
        "unet_n_depth": 2,
        "unet_pool": (2, 3),
    },
    "classes": {"n_rays": 8, "grid": (2, 2), "n_classes": 2, "unet_n_filter_base": 4, "net_conv_after_unet": 16},
    "flat": {"n_rays": 8, "unet_n_depth": 0, "unet_n_filter_base": 4, "unet_n_conv_per_depth": 1},
}


def _image(channels: int) -> np.ndarray:
    shape = (131, 97, channels) if channels > 1 else (131, 97)
    image = ndimage.gaussian_filter(np.random.default_rng(1).random(shape), (3, 3, 0)[: len(shape)])
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


def _make(folder: Path, name: str, image: np.ndarray) -> StarDist2D:
    """A model of StarDist's own with random weights that finds something: a fifth of the pixels are candidates."""
    model, rng = StarDist2D(Config2D(**CONFIGS[name]), name=name, basedir=str(folder)), np.random.default_rng(0)
    noisy = (w if w.ndim > 1 else np.abs(w + 0.2 * rng.normal(size=w.shape)) for w in model.keras_model.get_weights())
    model.keras_model.set_weights([np.asarray(weights, np.float32) for weights in noisy])
    probability, distances = model.predict(image, normalizer=None)[:2]
    logit = np.log(probability / (1 - probability))
    for layer, shift in (("prob", -np.quantile(logit, 0.8)), ("dist", 6 - distances.mean())):
        kernel, bias = model.keras_model.get_layer(layer).get_weights()
        model.keras_model.get_layer(layer).set_weights([kernel, bias + np.float32(shift)])
    model.keras_model.save_weights(str(folder / name / "weights_best.h5"))
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_and_labels_are_those_of_stardist(tmp_path: Path, name: str) -> None:
    image = _image(CONFIGS[name].get("n_channel_in", 1))
    reference = _make(tmp_path, name, image)
    expected_probability, expected_distances = reference.predict(image, normalizer=None)[:2]
    detector = load_detector(tmp_path / name, device="cpu")
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    probability, distances = predict(detector.network, planes)
    np.testing.assert_allclose(probability, expected_probability, atol=1e-4)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-4)
    expected, _ = reference.predict_instances(image, normalizer=None)
    assert expected.max() > 5
    # the same image once more, from 0 to 1 already
    view = ImageView.of(image, "YXS" if image.ndim == 3 else "YX")
    steps = detection_steps(view, detector, DetectionSettings(percentiles=(0.0, 100.0)))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            labels = end.value.labels
            break
    assert matching(expected, labels, thresh=0.9).accuracy == 1.0


def test_a_model_for_volumes_is_run_by_stardist_itself(tmp_path: Path) -> None:
    config = Config3D(n_rays=8, backbone="resnet", resnet_n_blocks=1, resnet_n_filter_base=4, net_conv_after_resnet=8)
    model, rng = StarDist3D(config, name="volumes", basedir=str(tmp_path)), np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.random((12, 40, 44)), 2)
    image = ((image - image.min()) / np.ptp(image)).astype(np.float32)
    probability, distances = model.predict(image, normalizer=None)[:2]
    logit = np.log(probability / (1 - probability))
    for layer, shift in (("prob", -np.quantile(logit, 0.8)), ("dist", 3 - distances.mean())):
        kernel, bias = model.keras_model.get_layer(layer).get_weights()
        model.keras_model.get_layer(layer).set_weights([kernel, bias + np.float32(shift)])
    model.keras_model.save_weights(str(tmp_path / "volumes" / "weights_best.h5"))
    expected, _ = model.predict_instances(image, normalizer=None)
    assert expected.max() > 3
    labels = detect(image, tmp_path / "volumes", axes="ZYX", percentiles=(0.0, 100.0))
    np.testing.assert_array_equal(labels, expected)
