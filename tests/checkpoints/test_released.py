"""Published weights, converted, compute what the released arithmetic in plain loops does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from oracle import released_plain as plain

from napari_mpt_deblur.checkpoints.released import convert, infer_config, is_released, without_prefix
from napari_mpt_deblur.checkpoints.shapes import network_shapes
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks import MPT, MPTConfig

SCALES = ((1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 1.0), (1 / 2, 1 / 2))
SMALL: dict[str, Any] = {"dims": (8, 8, 16, 16), "heads": (1, 2, 2, 4), "scales": SCALES, "window": 4, "expansion": 2.6}


def shapes_of(state: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: values.shape for name, values in state.items()}


def random_image(channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((channels, height, width))


def plain_result(state: Mapping[str, np.ndarray], image: np.ndarray, window: int = SMALL["window"]) -> np.ndarray:
    exact = {name: values.astype(np.float64) for name, values in state.items()}
    return plain.mpt(image, exact.__getitem__, SMALL["heads"], SMALL["scales"], window)


def result(network: MPT, image: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    with torch.inference_mode():
        return network.to(dtype)(torch.from_numpy(image[None]).to(dtype))[0].numpy()


def imported(state: Mapping[str, np.ndarray], **told: Any) -> MPT:
    config = infer_config(shapes_of(state), **told)
    shapes = network_shapes(config, most_parameters=10**8)
    assert shapes is not None
    network = MPT(config).eval()
    weights = convert(state, config, shapes)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    return network


@pytest.mark.parametrize(
    ("channels", "height", "width", "window"),
    [
        (1, 128, 128, 4),
        (3, 64, 192, 4),
        (1, 256, 256, 8),  # windows as published
        (3, 128, 384, 8),
        pytest.param(1, 128, 384, 8, marks=pytest.mark.slow),
        pytest.param(3, 256, 256, 8, marks=pytest.mark.slow),
    ],
)
def test_released_arithmetic(channels: int, height: int, width: int, window: int) -> None:
    state = plain.random_state(channels, seed=channels, **SMALL | {"window": window})
    image = random_image(channels, height, width)
    expected = plain_result(state, image, window)
    assert np.abs(expected - image).max() > 0.1
    network = imported(state, scales=SMALL["scales"])
    np.testing.assert_allclose(result(network, image, torch.float32), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(result(network, image, torch.float64), expected, rtol=0, atol=1e-11)


def test_several_images_at_once() -> None:
    """Windows of one image never meet those of another."""
    network = imported(plain.random_state(1, seed=0, **SMALL), scales=SMALL["scales"])
    images = torch.from_numpy(random_image(3, 64, 128)).float()[:, None]
    with torch.inference_mode():
        one_by_one = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(network(images), one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "Network.", "module.Network.", "net_g.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_left_out(prefix: str) -> None:
    names = [f"{prefix}{name}" for name in plain.random_state(1, seed=0, **SMALL)]
    found = without_prefix(names)
    assert list(found.values()) == names
    assert is_released(list(found))
    assert not is_released([f"other.{name}" for name in found])
    assert list(without_prefix([*names, "another"])) == [*names, "another"]
    assert list(without_prefix([f"x{name}" for name in found])) == [f"x{name}" for name in found]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_papers_configuration_is_told_by_the_shapes(channels: int) -> None:
    expected = MPTConfig.released(channels)
    settings = {name: getattr(expected, name) for name in SMALL}
    assert infer_config(shapes_of(plain.random_state(channels, seed=0, **settings))) == expected


def test_a_network_without_scales_is_told_by_the_shapes() -> None:
    ones = ((1.0, 1.0),) * 4
    state = plain.random_state(2, seed=0, **SMALL | {"scales": ones, "dims": (6, 8, 12, 16), "window": 4})
    config = infer_config(shapes_of(state))
    assert (config.scales, config.window, config.in_channels) == (ones, 4, 2)
    assert (config.dims, config.heads) == ((6, 8, 12, 16), SMALL["heads"])
    assert [int(config.expansion * dim) for dim in config.dims] == [15, 20, 31, 41]


BROKEN: dict[str, tuple[Any, str]] = {
    "scales not told": (None, "give the scales"),
    "scales of other places": (((1.0, 1.0),) * 4, "not those of its sub-blocks"),
    "too few scales": (((1 / 2, 1.0),) * 3, "not those of its sub-blocks"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_scales_that_do_not_fit(case: str) -> None:
    scales, message = BROKEN[case]
    with pytest.raises(ModelError, match=message):
        infer_config(shapes_of(plain.random_state(1, seed=0, **SMALL)), scales)


def change(name: str, values: np.ndarray | None) -> Callable[[dict[str, np.ndarray]], None]:
    def apply(state: dict[str, np.ndarray]) -> None:
        state.pop(name, None)
        if values is not None:
            state[name] = values

    return apply


LIES: dict[str, tuple[Callable[[dict[str, np.ndarray]], None], str]] = {
    "missing": (change("latent.1.attn.kv.0.weight", None), "lacks the weights"),
    "missing, and needed to tell": (change("inproj.weight", None), "inproj"),
    "surplus": (change("latent.1.attn.rest", np.zeros(3, np.float32)), "does not have"),
    "another shape": (change("latent.1.ffn.project_out.weight", np.zeros((16, 3), np.float32)), "the network needs"),
    "a number": (change("latent.1.norm1.body.bias", np.zeros((), np.float32)), "the network needs"),
    "no sub-block 0": (change("latent.0.attn.q.1.weight", None), "lacks"),
    "a gap": (change("latent.3.attn.q.1.weight", np.zeros((16, 16), np.float32)), "gap"),
    "no window": (change("encoder_level1.0.attn.relative_position_bias_table", np.zeros((224, 1))), "window"),
    "absurd width": (change("encoder_level1.0.norm1.body.weight", np.zeros(5001, np.float32)), "dims|multiple"),
    "positions of another window": (
        change("latent.1.attn.relative_position_index", np.zeros((64, 64), int)),
        "does not count positions",
    ),
    "positions shuffled": (
        change("latent.1.attn.relative_position_index", plain.position_index(4)[::-1].copy()),
        "does not count positions",
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_weights_that_do_not_fit_are_refused(case: str) -> None:
    state = plain.random_state(1, seed=0, **SMALL)
    alter, message = LIES[case]
    alter(state)
    with pytest.raises(ModelError, match=message) as caught:
        imported(state, scales=SMALL["scales"])
    assert "\n" not in str(caught.value)


def test_positions_may_be_left_out() -> None:
    state = plain.random_state(1, seed=0, **SMALL)
    imported({name: values for name, values in state.items() if not name.endswith("index")}, scales=SMALL["scales"])
