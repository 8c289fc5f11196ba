"""The network against plain loops, and how far its pixels look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detection.keras_files import TINY, random_weights, write_keras
from oracle import stardist_plain

from napari_mpt_deblur.detection.config import StarDistConfig
from napari_mpt_deblur.detection.keras_weights import read_keras_weights
from napari_mpt_deblur.detection.layout import weight_shapes
from napari_mpt_deblur.detection.network import StarDistNetwork

VARIANTS: list[dict[str, Any]] = [
    {},
    {"unet_batch_norm": False, "grid": [1, 1], "net_conv_after_unet": 0, "unet_n_depth": 1},
    {"unet_kernel_size": [2, 4], "unet_last_activation": "tanh", "unet_activation": "elu", "grid": [4, 4]},
    {"n_channel_in": 3, "unet_pool": [2, 1], "unet_prefix": "my_", "unet_n_depth": 2, "n_classes": 2},
    {"unet_n_depth": 0, "unet_last_activation": "sigmoid"},
]


def loaded(tmp_path: Any, changes: dict[str, Any]) -> tuple[StarDistNetwork, dict[str, Any], dict[str, np.ndarray]]:
    values = TINY | changes
    weights = random_weights(values)
    config = StarDistConfig.from_dict(values)
    network = StarDistNetwork(config).eval()
    read = read_keras_weights(write_keras(tmp_path / "weights_best.h5", weights), config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in read.items()})
    return network, values, weights


@pytest.mark.parametrize("changes", VARIANTS)
def test_equals_plain_loops(tmp_path: Any, changes: dict[str, Any]) -> None:
    network, values, weights = loaded(tmp_path, changes)
    height, width = (3 * divisor for divisor in network.size_divisor)
    image = np.random.default_rng(1).random((height, width, values["n_channel_in"]))
    prob, dist = stardist_plain.network(image, values, weights)
    with torch.inference_mode():
        found = network(torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None])
    assert found[0].shape == (1, 1, height // values["grid"][0], width // values["grid"][1])
    np.testing.assert_allclose(found[0][0, 0].numpy(), prob, atol=1e-5)
    np.testing.assert_allclose(found[1][0].permute(1, 2, 0).numpy(), dist, atol=1e-4)
    assert prob.std() > 0.01, "the comparison must be of something"


@pytest.mark.parametrize("changes", VARIANTS)
def test_context_is_exact(changes: dict[str, Any]) -> None:
    """With all weights positive every pixel within the context counts, and none beyond it."""
    config = StarDistConfig.from_dict(TINY | changes)
    network = StarDistNetwork(config).double()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    for layer in network.layers.values():
        layer.activation = torch.nn.Identity()
    (above, below), (left, right) = network.context_px
    divisor = network.size_divisor
    padding = [-(-max(pair) // d) * d + d for pair, d in zip(network.context_px, divisor, strict=True)]
    shape = (1, config.n_channel_in, *(2 * p + d for p, d in zip(padding, divisor, strict=True)))
    cells = [slice(p // g, (p + d) // g) for p, d, g in zip(padding, divisor, config.grid, strict=True)]
    touched = torch.zeros(shape[2:], dtype=torch.bool)
    for _ in range(40):  # max-pooling passes the gradient to one pixel of several, another for other images
        x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
        dist = network(x)[1][:, :, cells[0], cells[1]]
        (gradient,) = torch.autograd.grad(dist.sum(), x)
        touched |= (gradient[0] != 0).any(0)
    rows, columns = touched.any(1).nonzero()[:, 0], touched.any(0).nonzero()[:, 0]
    found = (
        (padding[0] - int(rows[0]), int(rows[-1]) + 1 - padding[0] - divisor[0]),
        (padding[1] - int(columns[0]), int(columns[-1]) + 1 - padding[1] - divisor[1]),
    )
    assert found == ((above, below), (left, right))


def test_weight_shapes_are_the_network_s() -> None:
    for changes in VARIANTS:
        config = StarDistConfig.from_dict(TINY | changes)
        found = {name: tuple(values.shape) for name, values in StarDistNetwork(config).state_dict().items()}
        assert weight_shapes(config) == found


def test_stardist_s_default_network_has_its_size() -> None:
    assert sum(p.numel() for p in StarDistNetwork(StarDistConfig(grid=(2, 2))).parameters()) == 1_425_185
