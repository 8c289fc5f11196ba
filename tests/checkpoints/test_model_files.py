"""Model files, honest and hostile."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_mpt_deblur.checkpoints import ModelConfig, load_model, read_header, read_model_file, save_model
from napari_mpt_deblur.checkpoints.shapes import index_bytes
from napari_mpt_deblur.errors import DeblurError, DeviceError, FileError, ModelError, OutOfMemoryError
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPT, MPTConfig
from napari_mpt_deblur.restoration import Deblurrer, Restored

TINY = MPTConfig.tiny()


@pytest.fixture(scope="module")
def network() -> MPT:
    torch.manual_seed(0)
    return MPT(TINY).eval()


@pytest.fixture
def model_path(tmp_path: Path, network: MPT) -> Path:
    return save_model(tmp_path / "tiny.safetensors", network, ModelConfig(TINY, training={"seed": 0}))


def rewrite(path: Path, change: Callable[[dict[str, Any]], object], data: bytes | None = None) -> Path:
    """Change a model file's header, and its weights where given."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    changed = change(header)
    text = json.dumps(header if changed is None else changed).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + (content[8 + length :] if data is None else data))
    return path


def change_config(**values: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        config = json.loads(header["__metadata__"]["mpt_deblur"]) | values
        header["__metadata__"]["mpt_deblur"] = json.dumps(config)

    return change


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 1e-3)])
def test_a_saved_network_computes_the_same(tmp_path: Path, network: MPT, half: bool, tolerance: float) -> None:
    path = save_model(tmp_path / "tiny.safetensors", network, ModelConfig(TINY), half=half)
    model = load_model(path, device="cpu")
    image = torch.rand(1, 1, TINY.size_multiple, TINY.size_multiple)
    with torch.inference_mode():
        torch.testing.assert_close(model.network(image), network(image), atol=tolerance, rtol=0)
    assert all(weights.dtype == torch.float32 for weights in model.network.state_dict().values())
    assert not model.network.training
    assert model.name == "tiny"
    assert model.config == ModelConfig(TINY)
    assert len(model.sha256) == 64


def test_half_precision_halves_the_file(tmp_path: Path, network: MPT, model_path: Path) -> None:
    half = save_model(tmp_path / "half.safetensors", network, ModelConfig(TINY), half=True)
    header = read_header(half)
    assert model_path.stat().st_size - half.stat().st_size > 1.9 * header.parameter_count


def test_bfloat16_weights_are_read(model_path: Path, network: MPT) -> None:
    from safetensors.torch import save_file

    weights = {name: values.to(torch.bfloat16) for name, values in network.state_dict().items()}
    save_file(weights, model_path, metadata={"mpt_deblur": ModelConfig(TINY).to_json()})
    read = read_model_file(model_path).weights
    for name, values in weights.items():
        np.testing.assert_array_equal(read[name], values.float().numpy())


def test_the_file_is_what_safetensors_reads(model_path: Path, network: MPT) -> None:
    from safetensors.torch import load_file

    weights = load_file(model_path)
    assert weights.keys() == network.state_dict().keys()


def test_the_header_alone_says_what_a_model_is(model_path: Path, network: MPT) -> None:
    header = read_header(model_path)
    assert header.config == ModelConfig(TINY, training={"seed": 0})
    assert header.parameter_count == sum(p.numel() for p in network.parameters())


class Payload:
    """Unpickling this would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int, name: str) -> None:
    trap, path = tmp_path / "executed", tmp_path / name
    path.write_bytes(pickle.dumps(Payload(trap), protocol) + b"\0" * 100)
    with pytest.raises(ModelError, match="pickle"):
        load_model(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())
    assert trap.exists()  # it would have been


def test_a_torch_checkpoint_is_refused(tmp_path: Path, network: MPT) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(network.state_dict(), path)
    with pytest.raises(ModelError, match="pickle or PyTorch"):
        load_model(path)


def lie(name: str, **values: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[name].update(values)

    return change


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for name in names:
            del header[name]

    return change


FIRST = "input.weight"
HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "shape too large": lie(FIRST, shape=[2**40, 2**40]),
    "shape of another size": lie(FIRST, shape=[1]),
    "shape transposed": lambda header: header[FIRST].update(shape=header[FIRST]["shape"][::-1]),
    "shape negative": lie(FIRST, shape=[-1, -32]),
    "shape of floats": lie(FIRST, shape=[2.0]),
    "shape of booleans": lie(FIRST, shape=[True]),
    "shape missing": lambda header: {**header, FIRST: {"dtype": "F32"}},
    "offsets backwards": lie(FIRST, data_offsets=[128, 0]),
    "offsets beyond the file": lie(FIRST, data_offsets=[2**40, 2**40 + 1152]),
    "offsets overlap": lambda header: header[FIRST].update(data_offsets=header["output.weight"]["data_offsets"]),
    "type of integers": lie(FIRST, dtype="I64"),
    "type unknown": lie(FIRST, dtype="F7"),
    "type no text": lie(FIRST, dtype=["F32"]),
    "weights renamed": lambda header: header.update({"surplus": header.pop(FIRST)}),
    "weights not a table": lambda header: header.update({FIRST: 3}),
    "no weights": lambda header: {"__metadata__": header["__metadata__"]},
    "no metadata": without("__metadata__"),
    "metadata no table": lambda header: header.update({"__metadata__": "x"}),
    "no configuration": lambda header: header.update({"__metadata__": {"format": "pt"}}),
    "configuration no JSON": lambda header: header.update({"__metadata__": {"mpt_deblur": "{"}}),
    "configuration a list": lambda header: header.update({"__metadata__": {"mpt_deblur": "[]"}}),
    "configuration very deep": lambda header: header.update({"__metadata__": {"mpt_deblur": "[" * 100_000}}),
    "configuration with NaN": lambda header: header.update({"__metadata__": {"mpt_deblur": '{"name": NaN}'}}),
    "network much larger": change_config(network=MPTConfig.paper().to_dict()),
    "network absurd": change_config(
        network=TINY.to_dict() | {"dims": [4096] * 4, "heads": [1] * 4, "scales": [[1.0] * 64] * 4}
    ),
    "network of another window": change_config(network=TINY.to_dict() | {"window": 8}),
    "network with more heads": change_config(network=TINY.to_dict() | {"heads": [2, 2, 2, 2]}),
    "network with an unknown setting": change_config(network=TINY.to_dict() | {"__class__": "os.system"}),
    "network with infinite expansion": change_config(network=TINY.to_dict() | {"expansion": 1e400}),
    "network with a stem of floats": change_config(network=TINY.to_dict() | {"stem": 2.0}),
    "network for giants": change_config(network=TINY.to_dict() | {"scales": [[1 / 64, 1.0]] * 4}),
    "network with a setting without end": change_config(network=TINY.to_dict() | {"x" * 10**6: 1}),
    "format without end": change_config(format="9" * 10**6),
    "format of the future": change_config(format=99),
    "header a list": lambda header: [header],
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused(model_path: Path, case: str) -> None:
    rewrite(model_path, HEADERS[case])
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            load_model(model_path, device="cpu")
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(model_path) in str(caught.value)
    assert len(str(caught.value)) < len(str(model_path)) + 250


def test_windows_that_would_fill_the_memory_are_refused(model_path: Path) -> None:
    """Position tables grow with the window's fourth power: a file of a few megabytes could ask for 60 GB of them."""
    values = {"dims": [2, 4, 4, 4], "heads": [1] * 4, "window": 64, "scales": [[1.0] * 2] * 4, "expansion": 0.5}
    config = MPTConfig.from_dict(TINY.to_dict() | values)
    entries: dict[str, Any] = {"a": {"dtype": "F16", "shape": [10**6], "data_offsets": [0, 2 * 10**6]}}

    def change(header: dict[str, Any]) -> dict[str, Any]:
        return entries | {"__metadata__": {"mpt_deblur": ModelConfig(config).to_json()}}

    rewrite(model_path, change, bytes(2 * 10**6))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="windows of 64 pixels"):
            load_model(model_path, device="cpu")
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_the_tables_of_a_network_are_counted_before_it_is_built() -> None:
    for config in (TINY, MPTConfig.compact()):
        built = sum(table.nbytes for name, table in MPT(config).named_buffers() if name.endswith("relative_index"))
        assert index_bytes(config) == built


def test_what_a_file_says_of_itself_is_one_line(model_path: Path) -> None:
    rewrite(model_path, change_config(description="two\nlines, \x1b[31mred\x07", name=" a\tb "))
    config = read_header(model_path).config
    assert (config.description, config.name) == ("two lines, [31mred", "a b")


def test_a_name_that_stands_twice_is_refused(model_path: Path) -> None:
    content = model_path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode().rstrip()
    entry = json.dumps(json.loads(header)[FIRST])
    text = f'{header[:-1]},"{FIRST}":{entry}}}'.encode()
    model_path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ModelError, match="damaged"):
        read_header(model_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(model_path: Path, value: float) -> None:
    content = bytearray(model_path.read_bytes())
    content[-4:] = np.float32(value).tobytes()
    model_path.write_bytes(content)
    with pytest.raises(ModelError, match="not finite"):
        load_model(model_path)


def test_a_file_without_end_is_refused_before_it_is_read(model_path: Path) -> None:
    with model_path.open("r+b") as file:
        file.truncate(2**33 + 1)  # takes no room on the disk
    with pytest.raises(ModelError, match="8 GB, more than any model"):
        read_header(model_path)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 5000, -1, -4000])
def test_a_truncated_model_is_refused(model_path: Path, length: int) -> None:
    model_path.write_bytes(model_path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"safetensors|damaged"):
        load_model(model_path)


def test_a_model_with_something_behind_it_is_refused(model_path: Path) -> None:
    model_path.write_bytes(model_path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="bytes of weights"):
        load_model(model_path)


@pytest.mark.parametrize("content", [b"not a model\n" * 50, b"{}", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"\xff\xff"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        load_model(path)


def test_random_damage_is_an_error_of_ours_or_none(model_path: Path) -> None:
    content = model_path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, 6000, rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        model_path.write_bytes(damaged)
        try:
            read_model_file(model_path)
        except DeblurError:
            refused += 1
    assert refused > 30


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_model(tmp_path / "a.safetensors")
    with pytest.raises(FileError, match="no such file"):
        load_model(tmp_path)
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(FileError):
        load_model(tmp_path / "b.safetensors")


def test_saving_refuses_what_loading_would(tmp_path: Path, network: MPT) -> None:
    with pytest.raises(ModelError, match="another network"):
        save_model(tmp_path / "a.safetensors", network, ModelConfig(MPTConfig.compact()))
    with pytest.raises(ModelError, match=r"end in \.safetensors"):
        save_model(tmp_path / "a.pt", network, ModelConfig(TINY))
    broken = MPT(TINY)
    with torch.no_grad():
        next(broken.parameters()).fill_(1e6)
    with pytest.raises(ModelError, match="as float16"):
        save_model(tmp_path / "a.safetensors", broken, ModelConfig(TINY), half=True)
    with pytest.raises(FileError, match="create it"):
        save_model(tmp_path / "missing" / "a.safetensors", network, ModelConfig(TINY))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_device_without_room_for_the_model(
    model_path: Path, device: str, network: MPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was chosen for the user is the CPU instead, and it is said; what the user chose is an error."""
    move = torch.nn.Module.to

    def to(self: torch.nn.Module, where: torch.device) -> torch.nn.Module:
        if where.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return move(self, where)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.nn.Module, "to", to)
    if device == "cuda":
        with pytest.raises(OutOfMemoryError, match="does not fit the memory of cuda: choose another device"):
            load_model(model_path, device=device)
        return
    model = load_model(model_path, device=device)
    assert model.device == next(model.network.parameters()).device == torch.device("cpu")
    assert model.notes == ("out of memory on cuda: the model stays on the CPU",)
    image = np.random.default_rng(0).random((40, 40), np.float32)
    record = drive(Deblurrer(model, precision="float32").run(ImageView.of(image))).record
    assert (record["device"], record["notes"]) == ("cpu", list(model.notes))
    assert model.to("cpu").notes == ()


def drive(steps: Generator[Any, None, Restored]) -> Restored:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("device", ["warp", "", "cuda:99", "meta", "xpu", "cpu:0:1", None])
def test_devices_that_are_not_there(model_path: Path, device: Any) -> None:
    with pytest.raises(DeviceError) as caught:
        load_model(model_path, device=device)
    assert "\n" not in str(caught.value)
