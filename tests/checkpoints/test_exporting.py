"""Models as packages of the bioimage.io format: read, checked and run by the format's own library, as others do."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import bioimageio.spec
import httpx
import numpy as np
import pytest
import torch
from oracle import released_plain as plain

from napari_mpt_deblur import deblur, export_bioimageio, import_checkpoint, load_model
from napari_mpt_deblur.checkpoints import ModelConfig, exporting, library, save_model
from napari_mpt_deblur.checkpoints.model_rdf import ModelFacts, documentation
from napari_mpt_deblur.checkpoints.torchscript import record
from napari_mpt_deblur.errors import DeblurError, FileError, ModelError, OutOfMemoryError, ParameterError
from napari_mpt_deblur.networks import MPT, MPTConfig

TINY = MPTConfig.tiny()
CONFIGS = {
    "paper": TINY,
    "released": MPTConfig.from_dict(
        MPTConfig.released(3).to_dict()
        | {name: TINY.to_dict()[name] for name in ("dims", "heads", "scales", "window", "stem")}
    ),
    "variants": replace(
        TINY,
        down_sampling="bicubic",
        channel_attention="literal",
        global_residual="features",
        fefn_join="concatenate",
        fefn_shortcut="none",
    ),
    "others": replace(
        TINY, in_channels=2, down_sampling="convolution", np_conv=False, fefn_activate="both", branches=("isca", "cswa")
    ),
}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; the package has no models, and there is no network to be reached."""

    def no_network(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"asked the network for {arguments}")

    monkeypatch.setattr(httpx, "request", no_network)
    monkeypatch.setattr(httpx, "stream", no_network)
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(folder))
    return folder


@lru_cache
def recorded(config: MPTConfig) -> bytes:
    """One recording for all tests of the same weights."""
    return record(network_of(config))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "record", lambda network: recorded(network.config))


def network_of(config: MPTConfig) -> MPT:
    torch.manual_seed(0)
    network = MPT(config).eval().requires_grad_(False)
    torch.nn.init.normal_(network.output.weight, std=0.05)  # away from the identity
    return network


def saved(folder: Path, name: str = "mine", network: MPTConfig = TINY, **values: Any) -> Path:
    return save_model(folder / f"{name}.safetensors", network_of(network), ModelConfig(network, name=name, **values))


def described(package: Path) -> Any:
    found = bioimageio.spec.load_description(package)
    assert not isinstance(found, bioimageio.spec.InvalidDescr), found.get_reason()
    return found


def predicted(package: Path, image: np.ndarray) -> np.ndarray:
    """What a consumer makes of (N, C, H, W): steps and weights as the description says, without this package."""
    model = described(package)
    with zipfile.ZipFile(package) as archive:
        network = torch.jit.load(io.BytesIO(archive.read(str(model.weights.torchscript.source))))
    values = processed(model.inputs[0].preprocessing, image)
    with torch.no_grad():
        values = network(torch.from_numpy(values)).numpy()
    return processed(model.outputs[0].postprocessing, values)


def processed(steps: list[Any], values: np.ndarray) -> np.ndarray:
    for step in steps:
        told = step.kwargs
        if step.id == "ensure_dtype":
            values = values.astype(told.dtype)
        elif step.id == "scale_linear":
            values = values * told.gain + told.offset
        elif step.id == "clip":
            values = values.clip(told.min, told.max)
        elif step.id == "scale_range":
            axes = tuple(["batch", "channel", "y", "x"].index(axis) for axis in told.axes)
            low, high = np.percentile(values, (told.min_percentile, told.max_percentile), axis=axes, keepdims=True)
            values = (values - low) / (high - low + told.eps)
        else:
            raise AssertionError(f"this consumer knows no {step.id}")
    return values


def check_example(package: Path) -> None:
    """The test tensors belong together, and are of sizes that are allowed."""
    with zipfile.ZipFile(package) as archive:
        given, expected = (np.load(io.BytesIO(archive.read(f"test_{name}.npy"))) for name in ("input", "output"))
    assert given.shape == expected.shape
    assert given.dtype == expected.dtype == np.float32
    scale = 255 if given.shape[1] == 3 else 1
    np.testing.assert_allclose(predicted(package, given), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    "name", ["paper", *(pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name != "paper")]
)
def test_the_record_serves_every_size(name: str) -> None:
    network = network_of(CONFIGS[name])
    loaded = torch.jit.load(io.BytesIO(recorded(CONFIGS[name])))
    assert 'value="cpu"' not in str(loaded.inlined_graph), "would not run on another device"
    multiple, channels = network.config.size_multiple, network.config.in_channels
    for number, rows, columns in ((1, 1, 1), (3, 1, 2), (1, 3, 2)):
        image = torch.rand((number, channels, rows * multiple, columns * multiple))
        with torch.no_grad():
            expected = network(image)
            assert (expected - image).abs().max() > 0.01
            torch.testing.assert_close(loaded(image), expected, rtol=0, atol=1e-5)


@dataclass(frozen=True)
class _Described:
    size_multiple: int = 8
    in_channels: int = 1

    def describe(self) -> str:
        return "a network of others'"


class _Restores(torch.nn.Module):
    """A network whose forward pass is a function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.config = function, _Described()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.function(image)


class _Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize(
    ("function", "reason"),
    [(lambda x: x * int(x.shape[3]), "serves one size"), (_Doubles.apply, "TorchScript cannot hold a network")],
)
def test_what_cannot_be_recorded_is_refused_in_a_line(function: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        record(_Restores(function))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("network", "normalization"),
    [
        ("paper", {"percentiles": [1.0, 99.8]}),
        pytest.param("others", {"percentiles": [0.0, 100.0], "clip": True}, marks=pytest.mark.slow),
        pytest.param("released", {"range": "full", "clip": True}, marks=pytest.mark.slow),
    ],
)
def test_others_get_what_deblur_gives(own: Path, tmp_path: Path, network: str, normalization: dict[str, Any]) -> None:
    config = CONFIGS[network]
    saved(own, network=config, normalization=normalization)
    package = export_bioimageio("mine", tmp_path / "mine.zip")
    check_example(package)
    full = "range" in normalization
    shape = (config.in_channels, 2 * config.size_multiple, config.size_multiple)
    image = (
        np.random.default_rng(0)
        .integers(*((0, 256) if full else (300, 9000)), shape)
        .astype(np.uint8 if full else np.uint16)
    )
    found = predicted(package, image[None])[0]
    if not full:  # the documentation says how to come back to grey levels
        low, high = np.percentile(image, normalization["percentiles"], axis=(1, 2))[..., None, None]
        found, image_range = found * (high - low) + low, float((high - low).min())
    else:
        image_range = 255
    if config.in_channels == 2:  # two planes in one network input are no image of ours: by the network itself
        model = load_model("mine", "cpu")
        scaled = ((image - low) / (high - low)).astype(np.float32)
        expected = model.network(torch.from_numpy(scaled[None]))[0].numpy().clip(0, 1) * (high - low) + low
    else:
        given, axes = (np.moveaxis(image, 0, -1), "YXS") if full else (image[0], "YX")
        expected = deblur(given, "mine", axes=axes, device="cpu", precision="float32", dtype="float32")
        expected = np.moveaxis(expected, -1, 0) if full else expected[None]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * image_range)


@pytest.mark.usefixtures("quick")
def test_what_is_told_of_a_model(own: Path, tmp_path: Path) -> None:
    path = saved(own, "my.cells_2", description="for cells", licence="CC-BY-4.0", nucleus_diameter_px=(8, 90))
    path.with_suffix(".md").write_text("# my.cells_2\n\n## Depth\n\nGood at all depths.\n", encoding="utf-8")
    package = export_bioimageio("my.cells_2", tmp_path / "a.zip", authors=["A. Author", "B. Author"])
    model = described(package)
    sha256 = load_model("my.cells_2", "cpu").sha256
    assert (model.name, model.description) == ("my_cells_2 (defocus deblurring)", "for cells")
    assert ([author.name for author in model.authors], str(model.license)) == (["A. Author", "B. Author"], "CC-BY-4.0")
    assert [str(entry.doi) for entry in model.cite] == ["10.48550/arXiv.2403.02611"]
    assert {"image-restoration", "defocus"} <= set(model.tags)
    assert sha256 in model.weights.torchscript.comment
    assert model.config.mpt_deblur["sha256"] == sha256
    assert ModelConfig.from_dict({key: v for key, v in model.config.mpt_deblur.items() if key != "sha256"}) == (
        load_model("my.cells_2", "cpu").config
    )
    with zipfile.ZipFile(package) as archive:
        text = archive.read("README.md").decode()
        assert {"weights.pt", "test_input.npy", "test_output.npy", "cover.png"} <= set(archive.namelist())
    assert "### my.cells_2" in text
    assert "#### Depth" in text
    for part in ("multiples of 64", "output * (high - low) + low", "CC-BY-4.0", sha256, "nuclei of 8 to 90 pixels"):
        assert part in text


@pytest.mark.usefixtures("quick")
def test_a_model_that_says_nothing_of_itself(own: Path, tmp_path: Path) -> None:
    save_model(
        own / "a.safetensors", network_of(TINY), ModelConfig(TINY, licence="ask me", training={"data": {"n": 1}})
    )
    model = described(export_bioimageio(own / "a.safetensors", tmp_path / "a.zip"))
    assert (model.authors, model.license) == ([], None)
    assert model.name == "a (defocus deblurring)"
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        text = archive.read("README.md").decode()
    for part in ("Licence: ask me", '`{"n": 1}`', "This model has none."):
        assert part in text


@pytest.mark.usefixtures("quick")
def test_a_bundled_model_is_by_its_developers(tmp_path: Path) -> None:
    (tmp_path / "bundled").mkdir()
    saved(tmp_path / "bundled", "nuclei")
    (author,) = described(export_bioimageio("nuclei", tmp_path / "a.zip", licence="MIT")).authors
    assert author.name == "napari-mpt-deblur developers"


def test_an_imported_checkpoint_of_the_authors(tmp_path: Path) -> None:
    scales = ((1 / 2, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    state = plain.random_state(1, seed=0, dims=(8,) * 4, heads=(1, 2, 2, 4), scales=scales, window=4, expansion=2.6)
    torch.save({name: torch.from_numpy(np.array(values)) for name, values in state.items()}, tmp_path / "best.pth")
    import_checkpoint(tmp_path / "best.pth", "theirs", scales=scales, licence="MIT")
    package = export_bioimageio("theirs", tmp_path / "a.zip")
    check_example(package)
    facts = ModelFacts("theirs", load_model("theirs", "cpu").config, "0", 1)
    assert "imported from best.pth" in documentation(facts)
    image = np.random.default_rng(0).random((1, 32, 64)).astype(np.float32)
    expected = deblur(image[0], "theirs", device="cpu", precision="float32")
    low, high = image.min(), image.max()
    np.testing.assert_allclose(predicted(package, image[None])[0, 0] * (high - low) + low, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"path": "a.rdf"}, ParameterError, "must end in .zip"),
        ({"path": "none/a.zip"}, FileError, "folder does not exist"),
        ({"name_or_path": "unknown"}, ModelError, "Unknown model 'unknown'"),
        ({"licence": "mine"}, ParameterError, "SPDX"),
        ({"authors": ["a/b"]}, ParameterError, "slashes"),
        ({"authors": [" "]}, ParameterError, "slashes"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: type, reason: str
) -> None:
    saved(own)
    monkeypatch.setattr(exporting, "load_model", None)
    given = {"name_or_path": "mine", "path": "a.zip"} | options
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=reason):
        export_bioimageio(**given | {"path": tmp_path / given["path"]})
    assert sorted(tmp_path.rglob("*")) == before


def test_percentiles_that_the_format_does_not_know(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "record", None)  # said before the work
    saved(own, normalization={"percentiles": [0.0, 0.5]})
    with pytest.raises(ModelError, match=r"upper percentile as low as 0\.5") as caught:
        export_bioimageio("mine", tmp_path / "a.zip")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.zip"))


NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes.")


@pytest.mark.parametrize("place", ["torch.jit.trace", "napari_mpt_deblur.checkpoints.exporting._drawn"])
@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        (NO_MEMORY, OutOfMemoryError, r"memory does not suffice to export this model: close other programs\.$"),
        (MemoryError(), OutOfMemoryError, "memory does not suffice to export this model"),
        (RuntimeError("mat1\nand mat2"), DeblurError, r"Cannot export this model: .* \(mat1( and mat2)?\)\.$"),
    ],
    ids=["torch", "python", "another"],
)
def test_what_fails_while_it_is_exported_is_told_in_a_line(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, failure: Exception, error: Any, words: str
) -> None:
    saved(own)
    if "trace" not in place:
        monkeypatch.setattr(exporting, "record", lambda _: b"")
    monkeypatch.setattr(place, lambda *_, **__: (_ for _ in ()).throw(failure))
    with pytest.raises(error, match=words) as caught:
        export_bioimageio("mine", tmp_path / "a.zip")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, RuntimeError)
    assert not list(tmp_path.glob("*.zip"))


@pytest.mark.parametrize("kind", ["fifo", "endless", "huge"])
def test_a_card_that_is_no_text_is_refused_before_the_work(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    saved(own)
    card = own / "mine.md"
    card.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(card)
    elif kind == "endless":
        card.symlink_to("/dev/zero")
    else:
        with card.open("wb") as file:
            file.truncate(10**10)  # takes no room
    monkeypatch.setattr(exporting, "load_model", None)
    with pytest.raises(FileError, match=r"Cannot read the model's card .*mine\.md: it .*; move it away"):
        export_bioimageio("mine", tmp_path / "a.zip")


def test_without_the_library_it_says_what_to_install(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(own)
    monkeypatch.setitem(sys.modules, "bioimageio.spec.generic.v0_3", None)
    with pytest.raises(ParameterError, match=r"pip install 'napari-mpt-deblur\[bioimageio\]'"):
        export_bioimageio("mine", tmp_path / "a.zip")


@pytest.mark.usefixtures("quick")
def test_a_file_is_replaced_when_asked_and_never_half(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(own)
    target = tmp_path / "a.zip"
    target.write_bytes(b"theirs")
    with pytest.raises(FileError, match="exists"):
        export_bioimageio("mine", target)

    def full_disk(_: Path, to: Path) -> None:
        Path(to).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    copied = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(FileError, match="disk is full"):
        export_bioimageio("mine", target, overwrite=True)
    assert target.read_bytes() == b"theirs"
    monkeypatch.setattr(shutil, "copyfile", copied)
    export_bioimageio("mine", target, overwrite=True)
    assert zipfile.is_zipfile(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "own"]


@pytest.mark.slow
def test_the_model_in_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    check_example(export_bioimageio("nuclei", tmp_path / "nuclei.zip"))


@pytest.mark.parametrize("training", [{"imported": "by hand"}, {"imported": None}, {"data": ["a"]}, {"data": "\ud800"}])
def test_training_records_of_others_are_told_as_far_as_they_go(training: dict[str, Any]) -> None:
    config = ModelConfig(MPTConfig.tiny(), training=training)
    told = documentation(ModelFacts("name", config, "0" * 64, 1))
    assert told.encode("utf-8", "replace").count(b"\n## Training data\n") == 1
