"""Small StarDist models with random weights, in files as Keras writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Weights = dict[str, np.ndarray]

TINY: dict[str, Any] = {
    "n_dim": 2,
    "axes": "YXC",
    "n_channel_in": 1,
    "n_channel_out": 9,
    "train_epochs": 400,
    "train_reduce_lr": {"factor": 0.5},
    "backbone": "unet",
    "grid": [2, 2],
    "n_rays": 8,
    "n_classes": None,
    "unet_n_depth": 2,
    "unet_kernel_size": [3, 3],
    "unet_n_filter_base": 4,
    "unet_n_conv_per_depth": 2,
    "unet_pool": [2, 2],
    "unet_activation": "relu",
    "unet_last_activation": "relu",
    "unet_batch_norm": True,
    "unet_dropout": 0.0,
    "unet_prefix": "",
    "net_conv_after_unet": 6,
}


def keras_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The weights of a StarDist model of two repeats a level and square grid, layer by layer, as Keras names them."""
    shapes: dict[str, tuple[int, ...]] = {}
    kernel, base, depth = tuple(config["unet_kernel_size"]), config["unet_n_filter_base"], config["unet_n_depth"]
    norms = 0

    def add(name: str, size: tuple[int, ...], into: int, out: int, norm: bool = False) -> None:
        nonlocal norms
        shapes[f"{name}/kernel"] = (*size, into, out)
        shapes[f"{name}/bias"] = (out,)
        if norm and config["unet_batch_norm"]:
            number = f"_{norms}" if norms else ""
            for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
                shapes[f"batch_normalization{number}/{variable}"] = (out,)
            norms += 1

    channels = config["n_channel_in"]
    for number in range(2 * (max(config["grid"]).bit_length() - 1)):
        add(f"conv2d_{number}" if number else "conv2d", kernel, channels, base)
        channels = base
    prefix = config["unet_prefix"]
    for level in range(depth):
        for i in (0, 1):
            add(f"{prefix}down_level_{level}_no_{i}", kernel, channels, base * 2**level, True)
            channels = base * 2**level
    add(f"{prefix}middle_0", kernel, channels, base * 2**depth, True)
    channels = base * 2 ** max(0, depth - 1)
    add(f"{prefix}middle_2", kernel, base * 2**depth, channels, True)
    for level in reversed(range(depth)):
        add(f"{prefix}up_level_{level}_no_0", kernel, channels + base * 2**level, base * 2**level, True)
        channels = base * 2 ** max(0, level - 1)
        add(f"{prefix}up_level_{level}_no_2", kernel, base * 2**level, channels, True)
    if config["net_conv_after_unet"]:
        add("features", kernel, channels, config["net_conv_after_unet"])
        if config["n_classes"]:
            add("features_class", kernel, channels, config["net_conv_after_unet"])
        channels = config["net_conv_after_unet"]
    add("prob", (1, 1), channels, 1)
    add("dist", (1, 1), channels, config["n_rays"])
    if config["n_classes"]:
        add("prob_class", (1, 1), channels, config["n_classes"] + 1)
    return shapes


def random_weights(config: Mapping[str, Any], seed: int = 0) -> Weights:
    """Weights that keep the size of what passes through, and give several objects in noise."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in keras_shapes(config).items():
        if name.endswith("kernel"):
            weights[name] = rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)
        elif name.endswith(("gamma", "moving_variance")):
            weights[name] = rng.uniform(0.5, 1.5, shape)
        else:
            weights[name] = rng.normal(0, 0.1, shape)
    weights["prob/kernel"] *= 10  # so that some pixels are nuclei and some are not
    weights["dist/bias"] += 5
    return {name: values.astype(np.float32) for name, values in weights.items()}


def write_keras(path: Path, weights: Mapping[str, np.ndarray], *, keras: int = 2, attributes: bool = True) -> Path:
    """Weights as `save_weights` of Keras 2 and 3 (as csbdeep calls it) lays them out."""
    suffix = ":0" if keras == 2 else ""
    with h5py.File(path, "w") as file:
        layers: dict[str, list[str]] = {}
        for name in weights:
            layers.setdefault(name.partition("/")[0], []).append(name)
        if attributes:
            file.attrs["layer_names"] = [name.encode() for name in ("input", *layers, "max_0")]
            file.attrs["backend"] = b"tensorflow"
        file.create_group("max_0")
        file.create_group("top_level_model_weights")
        for layer, names in layers.items():
            group = file.create_group(layer)
            if attributes:
                group.attrs["weight_names"] = [(name + suffix).encode() for name in names]
            for name in names:
                group.create_dataset(name + suffix, data=weights[name])
    return path


def write_folder(folder: Path, thresholds: Mapping[str, Any] | None = None, seed: int = 0, **changes: Any) -> Path:
    """A model folder as StarDist writes it, of `TINY` with changes."""
    folder.mkdir()
    config = TINY | changes
    (folder / "config.json").write_text(json.dumps(config))
    if thresholds is not None:
        (folder / "thresholds.json").write_text(json.dumps(thresholds))
    write_keras(folder / "weights_best.h5", random_weights(config, seed))
    return folder
