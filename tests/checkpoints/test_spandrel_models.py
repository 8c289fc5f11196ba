"""Networks of others' as models of the library: imported, loaded, used, and their files distrusted like ours."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_mpt_deblur import deblur, export_bioimageio, import_checkpoint, load_model
from napari_mpt_deblur.checkpoints import ModelConfig, available_models, library, read_header, save_model
from napari_mpt_deblur.cli.main import main
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig
from napari_mpt_deblur.restoration import Deblurrer

REASON = "needs the extra spandrel-extra: pip install --no-deps spandrel spandrel-extra-arches einops"
if not find_spec("spandrel") or not find_spec("spandrel_extra_arches"):
    pytest.skip(REASON, allow_module_level=True)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; the package has no models."""
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "own"))
    return tmp_path / "own"


def restormer(channels: int = 1) -> torch.nn.Module:
    from napari_mpt_deblur.networks import spandrel_network

    spandrel_network._registry()
    from spandrel_extra_arches.architectures.Restormer import Restormer

    torch.manual_seed(0)
    few = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]}
    return Restormer(inp_channels=channels, out_channels=channels, dim=8, ffn_expansion_factor=2.0, **few).eval()


def grl() -> torch.nn.Module:
    from napari_mpt_deblur.networks import spandrel_network

    spandrel_network._registry()
    from spandrel.architectures.GRL import GRL

    torch.manual_seed(0)
    few = {"depths": [2, 2], "num_heads_window": [2, 2], "num_heads_stripe": [2, 2], "stripe_shift": True}
    return GRL(embed_dim=12, anchor_window_down_factor=4, **few).eval()


@pytest.mark.parametrize("make", [lambda: restormer(3), grl])
def test_a_checkpoint_restores_as_its_network_does(tmp_path: Path, make: Callable[[], torch.nn.Module]) -> None:
    network = make()
    torch.save({"params": network.state_dict()}, tmp_path / "net_g.pth")
    import_checkpoint(tmp_path / "net_g.pth", "others", licence="MIT")
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.moveaxis(image, -1, 0)[None] / np.float32(255))).clamp(0, 1)[0]
    found = deblur(image, "others", axes="YXS", device="cpu", dtype="float32")
    np.testing.assert_allclose(found, 255 * np.moveaxis(expected.numpy(), 0, -1), atol=1e-2)
    config = load_model("others", device="cpu").config
    assert config.network.architecture == type(network).__name__
    assert (config.licence, config.normalization) == ("MIT", {"range": "full", "clip": True})
    assert [model.problem for model in available_models()] == [""]


def test_tiles_are_restored_each_by_itself(tmp_path: Path) -> None:
    torch.save(restormer().state_dict(), tmp_path / "a.pth")
    import_checkpoint(tmp_path / "a.pth", "a", intensities="percentiles")
    image = np.random.default_rng(0).random((150, 210)).astype(np.float32)
    deblurrer, passes = Deblurrer(load_model("a", device="cpu"), tile_px=96, batch=4), []
    deblurrer.model.network.register_forward_hook(lambda *_: passes.append(1))
    assert deblurrer.precision == "float32"
    view = ImageView.of(image, "YX")
    steps = deblurrer.run(view)
    done = []
    try:
        while True:
            done.append(next(steps))
    except StopIteration as end:
        restored = end.value
    estimate = deblurrer.estimate(view)
    assert estimate.tiles == done[-1].total > 4
    assert estimate.forwards == len(passes) == -(-estimate.tiles // 4)
    assert restored.record["channel_statistics"] == "each tile's own"
    assert np.isfinite(restored.array).all()
    assert (restored.array != image).any()


def test_the_command_line_imports_lists_and_uses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    torch.save(restormer().state_dict(), tmp_path / "a.pth")
    assert main(["models", "import", str(tmp_path / "a.pth"), "--name", "restormer"]) == 0
    assert "Restormer (through spandrel), 1 channels" in capsys.readouterr().out
    assert main(["models"]) == 0
    assert "restormer" in capsys.readouterr().out
    tifffile.imwrite(tmp_path / "in.tif", np.random.default_rng(0).integers(0, 4000, (2, 40, 50), np.uint16))
    arguments = ["deblur", str(tmp_path / "in.tif"), "--axes", "ZYX", "-o", str(tmp_path / "out.tif")]
    assert main([*arguments, "--model", "restormer"]) == 0
    assert tifffile.imread(tmp_path / "out.tif").shape == (2, 40, 50)


def test_scales_are_for_the_authors_networks_alone(tmp_path: Path) -> None:
    torch.save(restormer().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ModelError, match="to which alone scales belong"):
        import_checkpoint(tmp_path / "a.pth", "a", scales=((1.0, 1.0),) * 4)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A model's file with another configuration."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header["__metadata__"]["mpt_deblur"])
    change(config["network"])
    header["__metadata__"]["mpt_deblur"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a wider network": (lambda network: network["parameters"].update(dim=16), "do not fit its network|more memory"),
    "an absurd network": (lambda network: network["parameters"].update(dim=50_000), "more memory|cannot be built"),
    "a giant": (lambda network: network["parameters"].update(dim=10**9), "numbers beyond"),
    "another network": (lambda network: network.update(architecture="GRL"), "cannot be built"),
    "no network": (lambda network: network.update(architecture="os.system"), "a name that spandrel knows"),
    "other channels": (lambda network: network.update(in_channels=3), "the configuration says 3"),
    "another size": (lambda network: network.update(size_multiple=9), "multiples of 8"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_configuration_that_lies_is_refused(tmp_path: Path, case: str) -> None:
    torch.save(restormer().state_dict(), tmp_path / "a.pth")
    path = import_checkpoint(tmp_path / "a.pth", "a")
    change, message = LIES[case]
    rewritten(path, change)
    with pytest.raises(ModelError, match=message) as caught:
        load_model("a", device="cpu")
    assert str(caught.value).startswith(f"Cannot use the model {path}: ")
    assert "\n" not in str(caught.value)


def test_tables_of_whole_numbers_are_kept(tmp_path: Path) -> None:
    """Networks with window attention keep their tables of positions among the weights."""
    from napari_mpt_deblur.networks.spandrel_network import build

    parameters = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 8, "upscale": 1}
    config = SpandrelConfig("SwinIR", 3, 16, parameters=parameters | {"img_size": 16, "in_chans": 3})
    network = build(config)
    tables = {key: values for key, values in network.state_dict().items() if not values.is_floating_point()}
    assert tables
    path = save_model(tmp_path / "a.safetensors", network, ModelConfig(config), half=True)
    found = load_model(path, device="cpu").network.state_dict()
    for key, values in tables.items():
        assert torch.equal(found[key], values)
    assert read_header(path).config.network == config


def test_what_can_be_recorded_is_exported(tmp_path: Path) -> None:
    """For every size, or not at all: what depends on the size is refused in a line."""
    torch.save(restormer().state_dict(), tmp_path / "a.pth")
    import_checkpoint(tmp_path / "a.pth", "a", licence="MIT")
    export_bioimageio("a", tmp_path / "a.zip")
    image, network = torch.rand((1, 1, 40, 72)), load_model("a", device="cpu").network
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, torch.no_grad():
        recorded = torch.jit.load(io.BytesIO(archive.read("weights.pt")))
        torch.testing.assert_close(recorded(image), network(image), rtol=0, atol=1e-5)
    torch.save(grl().state_dict(), tmp_path / "b.pth")
    import_checkpoint(tmp_path / "b.pth", "b")
    with pytest.raises(ModelError, match="GRL") as caught:
        export_bioimageio("b", tmp_path / "b.zip")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b.zip").exists()
