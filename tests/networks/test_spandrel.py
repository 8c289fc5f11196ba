"""Networks of others', through spandrel: found by their weights, rebuilt from their configuration, bounded."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_mpt_deblur.errors import ImageError, ModelError
from napari_mpt_deblur.networks import spandrel_network
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig

REASON = "needs the extra spandrel-extra: pip install --no-deps spandrel spandrel-extra-arches einops"
if not find_spec("spandrel") or not find_spec("spandrel_extra_arches"):
    pytest.skip(REASON, allow_module_level=True)


def restormer(**changes: Any) -> SpandrelConfig:
    parameters = {"inp_channels": 1, "out_channels": 1, "dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}
    parameters |= {"num_refinement_blocks": 1, "ffn_expansion_factor": 2.0}
    return SpandrelConfig("Restormer", **{"in_channels": 1, "size_multiple": 8, "parameters": parameters} | changes)


def grl(channels: int = 3) -> SpandrelConfig:
    parameters = {"in_channels": channels, "out_channels": channels, "embed_dim": 12, "depths": [2, 2]}
    parameters |= {"num_heads_window": [2, 2], "num_heads_stripe": [2, 2], "anchor_window_down_factor": 4}
    return SpandrelConfig("GRL", channels, 8, parameters=parameters | {"stripe_shift": True})


CONFIGS = {
    "Restormer": restormer(),
    "GRL": grl(),
    "Uformer": SpandrelConfig("Uformer", 3, 128, True, parameters={"embed_dim": 4, "depths": [1] * 9}),
    "NAFNet": SpandrelConfig(
        "NAFNet",
        3,
        16,
        parameters={"width": 4, "middle_blk_num": 1, "enc_blk_nums": [1] * 4} | {"dec_blk_nums": [1] * 4},
    ),
    "MPRNet": SpandrelConfig(
        "MPRNet", 3, 8, parameters={"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4} | {"num_cab": 2}
    ),
}


def built(config: SpandrelConfig) -> spandrel_network.SpandrelNetwork:
    torch.manual_seed(0)
    return spandrel_network.build(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_is_found_by_its_weights(name: str) -> None:
    network = built(CONFIGS[name])
    found = spandrel_network.identify({f"module.{key}": values for key, values in network.model.state_dict().items()})
    assert found.config.architecture == name
    assert (found.config.in_channels, found.config.square) == (network.config.in_channels, network.config.square)
    image = torch.rand(1, network.config.in_channels, network.config.size_multiple, 2 * network.config.size_multiple)
    with torch.inference_mode():
        expected = network(image)
        torch.testing.assert_close(found(image), expected, rtol=0, atol=0)
    assert expected.shape == image.shape
    assert (expected - image).abs().max() > 1e-4
    assert 100 < found.config.bytes_per_px < 1e6
    assert SpandrelConfig.from_dict(found.config.to_dict()) == found.config


def test_the_size_rule_is_checked() -> None:
    network = built(restormer())
    for shape in ((1, 1, 12, 16), (1, 3, 16, 16), (1, 16, 16)):
        with pytest.raises(ImageError, match="multiples of 8"):
            network(torch.zeros(shape))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (restormer(size_multiple=12), "multiples of 8"),
        (restormer(in_channels=3), "the configuration says 3"),
        (restormer(parameters={"dim": 8, "colour": 1}), "cannot be built"),
        (restormer(parameters={"dim": "wide"}), "cannot be built"),
        (SpandrelConfig("Deblurrer9000"), "knows no Deblurrer9000"),
        (
            SpandrelConfig("ESRGAN", 3, parameters={"in_nc": 3, "out_nc": 3, "num_filters": 4, "num_blocks": 1}),
            "4 times",
        ),
        (SpandrelConfig("Uformer", 3, 128, parameters={"embed_dim": 4, "depths": [1] * 9}), "squares only"),
    ],
)
def test_configurations_that_make_no_restoring_network(config: SpandrelConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        spandrel_network.build(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "parameters", [{"dim": 10**5}, {"num_blocks": [10**5, 1, 1, 1]}, {"ffn_expansion_factor": 1e5}]
)
def test_absurd_parameters_do_not_fill_the_memory(parameters: dict[str, Any]) -> None:
    config = restormer(parameters=restormer().parameters | parameters)
    weights = built(restormer()).state_dict()
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"more memory than its weights|cannot be built"):
            spandrel_network.build(config, weights)
        assert tracemalloc.get_traced_memory()[1] < 3e8
    finally:
        tracemalloc.stop()


def test_tables_of_absurd_size_are_not_made() -> None:
    """Of windows, which have no weights: 3600 x 3600 positions for a side of 60."""
    parameters = {"embed_dim": 8, "depths": [1], "num_heads": [2], "upscale": 1, "img_size": 120, "window_size": 60}
    with pytest.raises(ModelError, match="more memory than its weights"):
        spandrel_network.build(SpandrelConfig("SwinIR", 3, 120, parameters=parameters), {"w": torch.zeros(10**5)})


def test_words_that_look_like_numbers_are_words() -> None:
    parameters = {"version": "1.2.3-4", "rate": 1e-9}
    assert SpandrelConfig("Restormer", parameters=parameters).parameters == parameters


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "../os"},
        {"architecture": 3},
        {"in_channels": 2},
        {"size_multiple": 0},
        {"size_multiple": 10**6},
        {"square": 1},
        {"bytes_per_px": float("nan")},
        {"parameters": [1]},
        {"parameters": {"dim": float("inf")}},
        {"parameters": {"dim": object()}},
        {"parameters": {"dim": 10**6}},
        {"parameters": {"dim": -1e30}},
        {"parameters": {"dim": [1] * 10**5}},
        {"colour": 1},
    ],
)
def test_configurations_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        SpandrelConfig.from_dict({"architecture": "Restormer"} | values)
    assert len(str(caught.value)) < 250


def test_weights_of_other_kinds_are_refused() -> None:
    state = built(restormer()).model.state_dict()
    with pytest.raises(ModelError, match="no network that spandrel knows"):
        spandrel_network.identify({"weight": torch.zeros(3)})
    broken = {key: values[:1] if key == "latent.0.attn.qkv.weight" else values for key, values in state.items()}
    with pytest.raises(ModelError, match="look like Restormer, but do not fit"):
        spandrel_network.identify(broken)
    from spandrel.architectures.ESRGAN import ESRGAN

    larger = ESRGAN(in_nc=3, out_nc=3, num_filters=4, num_blocks=1, scale=4)
    with pytest.raises(ModelError, match="something else than restoring"):
        spandrel_network.identify(larger.state_dict())


TORCHVISION = """
import sys
from napari_mpt_deblur.networks import spandrel_network
registry = spandrel_network._registry()
assert {"Restormer", "GRL", "LaMa"} <= {support.architecture.id for support in registry}
assert not [name for name in sys.modules if name.startswith("torchvision")], "a stand-in was left behind"
try:
    import torchvision
except (ImportError, RuntimeError):
    print("as before")
"""


@pytest.mark.parametrize("broken", [False, True])
def test_it_needs_no_torchvision(tmp_path: Path, broken: bool) -> None:
    """Missing, or made for another torch: then its import raises a RuntimeError."""
    package = tmp_path / "torchvision"
    package.mkdir()
    error = "RuntimeError('operator torchvision::nms does not exist')" if broken else "ModuleNotFoundError('it')"
    (package / "__init__.py").write_text(f"import sys\nraise {error}\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{TORCHVISION}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "as before\n"), done.stderr


def test_without_spandrel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    spandrel_network._registry.cache_clear()
    monkeypatch.setitem(sys.modules, "spandrel", None)
    for attempt in (lambda: spandrel_network.build(restormer()), lambda: spandrel_network.identify({})):
        with pytest.raises(ModelError, match=r"pip install 'napari-mpt-deblur\[spandrel\]'"):
            attempt()
    monkeypatch.undo()
    spandrel_network._registry.cache_clear()
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    with pytest.raises(ModelError, match=r"knows no Restormer; .*spandrel-extra"):
        spandrel_network.build(restormer())
    spandrel_network._registry.cache_clear()
