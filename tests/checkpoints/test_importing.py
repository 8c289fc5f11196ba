"""Checkpoints that others saved, honest and hostile, on their way into the library."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from oracle import released_plain as plain

from napari_mpt_deblur import deblur, import_checkpoint, load_model
from napari_mpt_deblur.checkpoints import available_models, foreign, library, read_header
from napari_mpt_deblur.errors import DeblurError, FileError, ModelError, OutOfMemoryError, ParameterError
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.restoration import Deblurrer

SCALES = ((1 / 2, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
SMALL: dict[str, Any] = {"dims": (8,) * 4, "heads": (1, 2, 2, 4), "scales": SCALES, "window": 4, "expansion": 2.6}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; the package has no models."""
    folder = tmp_path / "own"
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(folder))
    return folder


def published(channels: int = 1, prefix: str = "", seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    state = plain.random_state(channels, seed=seed, **SMALL)
    return OrderedDict((f"{prefix}{name}", torch.from_numpy(np.array(values))) for name, values in state.items())


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def plain_restored(channels: int, image: np.ndarray) -> np.ndarray:
    """(C, H, W), about 0 to 1."""
    state = plain.random_state(channels, seed=0, **SMALL)
    exact = {name: values.astype(np.float64) for name, values in state.items()}
    return plain.mpt(image, exact.__getitem__, SMALL["heads"], SCALES, SMALL["window"])


@pytest.mark.parametrize("prefix", ["", "module.", "Network.", "module.Network."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"epoch": torch.tensor(3), "model": {"params": state}},
    ],
)
def test_a_published_checkpoint_becomes_a_model(own: Path, tmp_path: Path, prefix: str, wrap: Callable) -> None:
    path = saved(tmp_path / "best.pth", wrap(published(3, prefix)))
    made = import_checkpoint(path, "theirs", scales=SCALES, licence="CC-BY-4.0")
    assert made == own / "theirs.safetensors"
    model = load_model("theirs", device="cpu")
    assert model.config.network == MPTConfig.from_dict(
        MPTConfig.released(3).to_dict() | SMALL | {"expansion": model.config.network.expansion}
    )
    assert model.config.training["imported"]["file"] == "best.pth"
    assert len(model.config.training["imported"]["sha256"]) == 64
    assert (model.config.licence, model.config.description) == ("CC-BY-4.0", "imported from best.pth")
    image = np.random.default_rng(0).random((3, 32, 32))
    with torch.inference_mode():
        found = model.network(torch.from_numpy(image[None]).float())[0].numpy()
    np.testing.assert_allclose(found, plain_restored(3, image), atol=1e-5)


@pytest.mark.parametrize("place", ["optimizer", "optimizer_states"])
def test_an_optimiser_may_lie_beside_the_weights(tmp_path: Path, place: str) -> None:
    layer = torch.nn.Conv2d(1, 1, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.rand(1, 1, 3, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict() if place == "optimizer" else [optimizer.state_dict()]
    path = saved(tmp_path / "a.ckpt", {"state_dict": published(1), "epoch": 3, place: state})
    import_checkpoint(path, "a", scales=SCALES)
    assert load_model("a", device="cpu").config.network.in_channels == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_and_their_tables(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {name: values.to(dtype) for name, values in published(1).items()}
    import_checkpoint(saved(tmp_path / "a.pth", weights), "a", scales=SCALES)
    loaded = load_model("a", device="cpu").network.state_dict()
    theirs = weights["encoder_level1.0.norm1.body.weight"].float()
    torch.testing.assert_close(loaded["encoder.0.0.norm.weight"], theirs, rtol=0, atol=0)


def test_a_model_is_not_imported_as_weights(tmp_path: Path) -> None:
    made = import_checkpoint(saved(tmp_path / "a.pth", published(1)), "a", scales=SCALES)
    with pytest.raises(ModelError, match="is a model already"):
        import_checkpoint(made, "again")
    assert [info.name for info in available_models()] == ["a"]


@pytest.mark.parametrize("settings", [{"scales": "abcd"}, {"scales": 5}, {"name": None}, {"name": 5}])
def test_settings_of_other_types_are_refused(own: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        import_checkpoint(saved(tmp_path / "a.pth", published(1)), **({"name": "a"} | settings))
    assert not own.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_too_little_memory_is_not_blamed_on_the_file(
    own: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    path = tmp_path / f"a{suffix}"
    safetensors.torch.save_file(published(1), path) if suffix == ".safetensors" else saved(path, published(1))
    monkeypatch.setattr(torch, "load", full)
    monkeypatch.setattr(safetensors.torch, "load_file", full)
    with pytest.raises(OutOfMemoryError, match="does not fit the memory"):
        import_checkpoint(path, "a", scales=SCALES)
    assert not own.exists()


def test_colours_are_divided_by_255_and_clipped(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "a.pth", published(3)), "colour", scales=SCALES)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    restored = plain_restored(3, np.moveaxis(image, -1, 0) / 255)
    assert (restored < 0).any()
    assert (restored > 1).any()
    expected = np.moveaxis(restored.clip(0, 1) * 255, 0, -1)
    found = deblur(image, "colour", axes="YXS", device="cpu", precision="float32", dtype="float32")
    np.testing.assert_allclose(found, expected, atol=3e-3)
    np.testing.assert_array_equal(deblur(image, "colour", axes="YXS", device="cpu", precision="float32").dtype, "uint8")


def test_grey_is_scaled_by_its_minimum_and_maximum(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "a.pth", published(1)), "grey", scales=SCALES)
    image = np.random.default_rng(0).integers(300, 900, (32, 32)).astype(np.uint16)
    low, high = int(image.min()), int(image.max())
    restored = plain_restored(1, (image[None] - low) / (high - low))[0]
    expected = restored.clip(0, 1) * (high - low) + low
    found = deblur(image, "grey", device="cpu", precision="float32", dtype="float32")
    np.testing.assert_allclose(found, expected, atol=1e-2)
    import_checkpoint(tmp_path / "a.pth", "free", scales=SCALES, clip=False)
    found = deblur(image, "free", device="cpu", precision="float32", dtype="float32")
    np.testing.assert_allclose(found, restored * (high - low) + low, atol=1e-2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_size_that_needs_padding(tmp_path: Path, channels: int) -> None:
    """Reflected evenly on opposite sides to multiples of 32, and cropped."""
    import_checkpoint(saved(tmp_path / "a.pth", published(channels)), "a", scales=SCALES, intensities="full")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, channels), np.uint8)
    padded = np.pad(np.moveaxis(image, -1, 0) / 255, ((0, 0), (12, 12), (7, 7)), mode="reflect")
    expected = np.moveaxis(plain_restored(channels, padded)[:, 12:-12, 7:-7], 0, -1).clip(0, 1)
    given, axes = (image, "YXS") if channels == 3 else (image[..., 0], "YX")
    found = deblur(given, "a", axes=axes, device="cpu", precision="float32", dtype="float32")
    np.testing.assert_allclose(found.reshape(image.shape) / 255, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tile", "noted"), [(None, False), (96, True)])
def test_tiles_that_differ_from_the_plane_are_told(tmp_path: Path, tile: int | None, noted: bool) -> None:
    """Windows that are paired by number are paired otherwise in each tile."""
    import_checkpoint(saved(tmp_path / "a.pth", published(1)), "a", scales=SCALES)
    image = np.random.default_rng(0).random((130, 150)).astype(np.float32)
    steps = Deblurrer(load_model("a", device="cpu"), tile_px=tile).run(ImageView.of(image, "YX"))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        notes = end.value.record["notes"]
    assert any("otherwise than a whole plane" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("intensities", "expected"),
    [
        ("full", {"range": "full", "clip": True}),
        ("minmax", {"percentiles": [0, 100], "clip": True}),
        ("percentiles", {"percentiles": [1, 99.8], "clip": True}),
    ],
)
def test_the_range_is_chosen_at_import(tmp_path: Path, intensities: Any, expected: dict[str, Any]) -> None:
    path = saved(tmp_path / "a.pth", published(1))
    made = import_checkpoint(path, "a", scales=SCALES, intensities=intensities, nucleus_diameter_px=(8, 90))
    config = read_header(made).config
    assert (config.normalization, config.nucleus_diameter_px) == (expected, (8, 90))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: values.to(dtype) if values.is_floating_point() else values for name, values in published().items()}
    import_checkpoint(saved(tmp_path / "a.pth", state), "a", scales=SCALES)
    weights = load_model("a", device="cpu").network.state_dict()
    torch.testing.assert_close(weights["input.weight"], state["inproj.weight"].float(), rtol=0, atol=0)


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(published(), tmp_path / "a.safetensors")
    import_checkpoint(tmp_path / "a.safetensors", "a", scales=SCALES)
    assert load_model("a", device="cpu").name == "a"


class Payload:
    """Unpickling this would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def with_parts(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> Path:
    """A checkpoint whose parts are changed."""
    content = io.BytesIO()
    torch.save(published(), content)
    with zipfile.ZipFile(content) as before, zipfile.ZipFile(path, "w", **options) as after:
        for entry in before.infolist():
            after.writestr(entry.filename, change(entry.filename, before.read(entry)))
    return path


def longer(name: str, part: bytes) -> bytes:
    """Claims that the first of the weights, of 72 numbers, has two thousand million."""
    if not name.endswith("data.pkl"):
        return part
    assert part.count(b"KH") > 0
    return part.replace(b"KH", b"J" + struct.pack("<i", 2_000_000_000), 1)


def little_longer(name: str, part: bytes) -> bytes:
    """Claims that the first of the weights has 100 numbers, which no sum over the file tells."""
    return part.replace(b"KH", b"Kd", 1) if name.endswith("data.pkl") else part


def twice(path: Path) -> Path:
    """Each part twice, the second time as long as the first of the weights claims to be."""
    with_parts(path, little_longer)
    with zipfile.ZipFile(path, "a") as archive:
        (first,) = (entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        archive.writestr(first.filename.upper(), bytes(400))
    return path


def hostile_pickle(path: Path) -> Path:
    return saved(path, {"inproj.weight": torch.zeros(1), "x": Payload(path.parent / "executed")})


def overlapping(path: Path) -> Path:
    """A directory that names the same megabyte a thousand times."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(10**6))
        entry = archive.infolist()[-1]
        for number in range(1000):
            archive.filelist.append(entry)
            archive.NameToInfo[f"a/data/{number}"] = entry
    return path


def changed(**values: Any) -> Callable[[Path], Path]:
    return lambda path: saved(path, published() | {name.replace("__", "."): value for name, value in values.items()})


def pickled(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        return with_parts(path, lambda name, part: content if name.endswith("data.pkl") else part)

    return write


def written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def cut(share: float) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        saved(path, published())
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return path

    return write


def lying(shape: list[int]) -> Callable[[Path], Path]:
    """A safetensors file whose header lies."""
    header = b'{"inproj.weight":{"dtype":"F32","shape":%s,"data_offsets":[0,4]}}' % str(shape).encode()

    def write(path: Path) -> Path:
        path = path.with_suffix(".safetensors")
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        return path

    return write


BYTEARRAY = b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x40\x85R."
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a pickle that runs code": (hostile_pickle, "could run code"),
    "a bare pickle": (written(pickle.dumps({"a": 1})), "bare pickle"),
    "a bare pickle that runs code": (
        lambda path: written(pickle.dumps(Payload(path.parent / "executed")))(path),
        "bare pickle",
    ),
    "the format before PyTorch 1.6": (
        lambda path: torch.save(published(), path, _use_new_zipfile_serialization=False) or path,
        "bare pickle",
    ),
    "a pickle that takes memory": (pickled(BYTEARRAY), "could run code"),
    "a pickle of a later protocol": (pickled(pickle.dumps({"a": Path("b")}, 4)), "could run code"),
    "a pickle that is damaged": (pickled(b"\x80\x02}q\x00(X\x05"), "damaged"),
    "a pickle without end": (pickled(bytes(2**24 + 1)), "not a PyTorch checkpoint"),
    "a zip bomb": (
        lambda path: with_parts(path, lambda _, part: part, compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "a zip bomb that overlaps": (overlapping, "more bytes than the file has"),
    "weights longer than their part": (lambda path: with_parts(path, longer), "more bytes|damaged"),
    "weights a little longer than their part": (
        lambda path: with_parts(path, little_longer),
        "more bytes than their part",
    ),
    "weights longer than one of two parts": (twice, "more bytes than their part"),
    "a part that is missing": (
        lambda path: with_parts(path, lambda name, part: part.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00z")),
        "damaged",
    ),
    "a pickle that notes its objects at absurd places": (pickled(b"\x80\x02}r\xff\xff\xff\x7f."), "no state dict"),
    "cut after the start": (cut(0.02), "damaged|not a whole"),
    "cut in the middle": (cut(0.5), "damaged"),
    "cut at the end": (cut(0.999), "damaged"),
    "nothing": (written(b""), "not a whole one"),
    "text": (written(b"<html>404</html>"), "not a whole one"),
    "a header that lies of shapes": (lying([2**40, 2**40]), "not a whole safetensors"),
    "a header that lies of sizes": (lying([2, 1, 3, 3]), "not a whole safetensors"),
    "another network": (lambda path: saved(path, {"conv.weight": torch.zeros(3)}), "no Multi-Pyramid Transformer"),
    "no tensors": (lambda path: saved(path, {"epoch": 3}), "no state dict"),
    "a list": (lambda path: saved(path, [torch.zeros(3)]), "no state dict"),
    "an empty table": (lambda path: saved(path, {}), "no state dict"),
    "numbers for names": (lambda path: saved(path, {1: torch.zeros(3)}), "not a tensor with a name"),
    "NaN": (changed(inproj__weight=torch.full((8, 1, 3, 3), float("nan"))), "not finite"),
    "infinite": (changed(inproj__weight=torch.full((8, 1, 3, 3), -float("inf"))), "not finite"),
    "beyond float32": (changed(inproj__weight=torch.full((8, 1, 3, 3), 1e300, dtype=torch.float64)), "float32"),
    "whole numbers": (changed(inproj__weight=torch.ones((8, 1, 3, 3), dtype=torch.int64)), "not floating point"),
    "complex numbers": (changed(inproj__weight=torch.ones((8, 1, 3, 3)) * 1j), "could run code|complex"),
    "sparse": (changed(inproj__weight=torch.ones(8, 3).to_sparse()), "could run code"),
    "absurd channels": (changed(inproj__weight=torch.zeros(1).expand(8, 10**9, 3, 3)), "more bytes"),
    "a width without end": (changed(encoder_level1__0__norm1__body__weight=torch.zeros(10**5)), "dims|multiple"),
    "positions that are wrong": (
        changed(latent__0__attn__relative_position_index=torch.zeros((16, 16), dtype=torch.int64)),
        "does not count positions",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_broken_files_are_refused_in_a_line(tmp_path: Path, own: Path, case: str) -> None:
    make, message = HOSTILE[case]
    path = make(tmp_path / "a.pth")
    before = set(tmp_path.iterdir())
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=message) as caught:
            import_checkpoint(path, "a", scales=SCALES)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"Cannot import {path}: ")
    assert len(str(caught.value)) < len(str(path)) + 300
    assert set(tmp_path.iterdir()) == before  # neither executed, nor anything written


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_is_replaced_while_it_is_read_is_not_imported_under_the_hash_of_the_other(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from safetensors.torch import save_file

    path, other = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    for seed, place in enumerate((path, other)):
        state = dict(published(seed=seed))
        save_file(state, place) if suffix == "safetensors" else torch.save(state, place)
    check = foreign._check_values
    monkeypatch.setattr(foreign, "_check_values", lambda weights: (check(weights), other.replace(path)))
    with pytest.raises(ModelError, match=r"Cannot import .*: it changed while it was read; try again\.$"):
        import_checkpoint(path, "theirs", scales=SCALES)
    assert not list(own.glob("*.safetensors"))


def test_tables_that_hold_each_other_a_thousand_times_are_gone_through_once(tmp_path: Path) -> None:
    """A few kilobytes, but 10^12 ways to their tensor."""
    content: Any = torch.zeros(1)
    for _ in range(4):
        content = [content] * 1000
    with pytest.raises(ModelError, match="no state dict"):
        import_checkpoint(saved(tmp_path / "a.pth", content), "a")


def test_random_damage_is_an_error_of_ours_or_none(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published())
    content = path.read_bytes()
    start = content.index(b"data.pkl")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(start, start + 6000, rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            foreign.read_foreign(path)
        except DeblurError:
            refused += 1
    assert refused > 20


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        import_checkpoint(tmp_path / "a.pth", "a")
    with pytest.raises(FileError, match="regular file"):
        import_checkpoint(tmp_path, "a")
    with pytest.raises(FileError):
        import_checkpoint("a\0b", "a")


def test_names_and_settings_are_checked_before_the_file_is_read(tmp_path: Path) -> None:
    for name in ("../a", "", "con", "a" * 100):
        with pytest.raises(ParameterError, match="cannot be a model's name"):
            import_checkpoint(tmp_path / "missing", name)
    with pytest.raises(ParameterError, match="full, minmax or percentiles"):
        import_checkpoint(tmp_path / "missing", "a", intensities="unit")  # type: ignore[arg-type]


def test_a_model_is_replaced_only_when_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published())
    first = import_checkpoint(path, "a", scales=SCALES).read_bytes()
    saved(path, published(seed=1))
    with pytest.raises(ParameterError, match="choose another name"):
        import_checkpoint(path, "A", scales=SCALES)
    assert import_checkpoint(path, "a", scales=SCALES, overwrite=True).read_bytes() != first


def _import_many(path: Path, ready: Any, results: Any) -> None:
    ready.wait()
    for number in range(5):
        try:
            import_checkpoint(path, f"model-{number}", scales=SCALES)
            results.put(True)
        except DeblurError:
            results.put(False)


def test_two_processes_importing_at_once_do_no_harm(tmp_path: Path, own: Path) -> None:
    """Of two that want the same name one has it, and every file is whole."""
    context = multiprocessing.get_context("fork")
    path = saved(tmp_path / "a.pth", published())
    ready, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_import_many, args=(path, ready, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=100) for _ in range(10)]
    for worker in workers:
        worker.join(timeout=20)
    assert sum(outcomes) == 5
    models = available_models()
    assert [model.name for model in models] == [f"model-{number}" for number in range(5)]
    assert not any(model.problem for model in models)
    assert len(list(own.iterdir())) == 5
    assert load_model("model-0", device="cpu").config.network.window == 4
