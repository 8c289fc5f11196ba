"""The run as a generator: progress, cancel, failures of memory and precision, outputs, lazy inputs, records."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from restoration.faults import failing
from torch import nn

from napari_mpt_deblur import deblur
from napari_mpt_deblur.checkpoints import Model, load_model
from napari_mpt_deblur.errors import DeblurError, DeviceError, ImageError, ModelError, ParameterError
from napari_mpt_deblur.images import ImageView, Normalization
from napari_mpt_deblur.restoration import Deblurrer, available_devices, devices, pick_device
from napari_mpt_deblur.restoration.session import Session
from napari_mpt_deblur.tiling import TilePlan


def test_progress_is_told_after_every_batch(model: Model, scene: Callable, drive: Callable) -> None:
    view = ImageView.of(scene(2, 250, 250))
    restored, steps = drive(Deblurrer(model, tile_px=128, batch=4, precision="float32").run(view))
    assert [step.done for step in steps] == [0, 0, 4, 8, 9, 13, 17, 18]
    assert [step.measuring for step in steps] == [True] + [False] * 7
    assert {step.total for step in steps} == {18}
    assert steps[-1].plane == view.planes[1]
    assert restored.array.shape == view.shape


def test_a_device_that_computes_by_itself_has_its_next_batch_before_one_is_fetched(
    model: Model, scene: Callable, drive: Callable, request: pytest.FixtureRequest
) -> None:
    view = ImageView.of(scene(250, 250))
    deblurrer = Deblurrer(model, tile_px=128, batch=4, precision="float32")
    plain, steps = drive(deblurrer.run(view))
    events = request.getfixturevalue("overlapping")
    overlapped, same_steps = drive(deblurrer.run(view))
    np.testing.assert_array_equal(overlapped.array, plain.array)
    assert same_steps == steps
    assert events == ["begin", "finish", "begin", "begin", "finish", "begin", "finish", "finish"]  # first the samples


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("precision", "least_db"), [("float32", 80), ("float16", 50), ("bfloat16", 50)])
def test_a_cuda_device_restores_what_the_cpu_restores(
    model: Model, scene: Callable, drive: Callable, precision: str, least_db: float
) -> None:
    view = ImageView.of(scene(2, 250, 250))
    expected = drive(Deblurrer(model, device="cpu", precision="float32", tile_px=128).run(view))[0].array
    restored = drive(Deblurrer(model, device="cuda", precision=precision, tile_px=128).run(view))[0].array
    assert 20 * np.log10(np.ptp(expected) / np.sqrt(np.mean((restored - expected) ** 2))) > least_db


def test_the_work_around_the_tiles_grows_with_their_number_only(
    model: Model, scene: Callable, drive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which tiles a region needs is found by a look at all of them: once a run and once a plane, not once a batch."""
    find, asked = TilePlan.tiles_for, []
    monkeypatch.setattr(TilePlan, "tiles_for", lambda plan, region: asked.append(1) or find(plan, region))
    _, steps = drive(Deblurrer(model, tile_px=128, batch=1, precision="float32").run(ImageView.of(scene(2, 250, 250))))
    assert len(steps) == 2 + 18
    assert len(asked) == 3


def test_a_run_can_be_left_while_intensities_are_measured(model: Model, scene: Callable) -> None:
    """A lazy stack's planes are read one between two steps, not all in one."""
    image = scene(5, 40, 40)

    class Lazy:
        shape, dtype, reads = image.shape, image.dtype, 0

        def __getitem__(self, key: Any) -> np.ndarray:
            Lazy.reads += 1
            return image[key]

    steps = Deblurrer(model, precision="float32").run(ImageView.of(Lazy(), "ZYX"))
    seen = []
    for _ in range(6):
        seen.append((next(steps).done, Lazy.reads))
    steps.close()
    assert seen == [(0, 0), (0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]


def test_numbers_of_numpy_are_numbers(model: Model) -> None:
    assert Deblurrer(model, tile_px=np.int64(256), batch=np.uint8(2)).settings.tile_px == 256


def test_closing_the_generator_ends_the_work_and_frees_its_memory(
    model: Model, scene: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[weakref.ref[Session]] = []

    def noted(*args: Any) -> Session:
        session = Session(*args)
        sessions.append(weakref.ref(session))
        return session

    monkeypatch.setattr("napari_mpt_deblur.restoration.deblurrer.Session", noted)
    image = scene(2, 250, 250)
    out = np.zeros_like(image)
    steps = Deblurrer(model, tile_px=128, batch=1, precision="float32").run(ImageView.of(image), out=out)
    for _ in range(3):
        next(steps)
    assert sessions[0]() is not None
    steps.close()
    del steps
    gc.collect()
    assert all(reference() is None for reference in sessions)
    assert not out[1].any()


def test_a_model_that_gives_nan_is_refused(tiny: Callable, scene: Callable, restore: Callable) -> None:
    model = tiny()
    with torch.no_grad():
        model.network.output.weight[0] = float("nan")
    with pytest.raises(ModelError, match="not numbers"):
        restore(scene(70, 70), use=model)


def test_no_runtime_error_leaves_the_engine(
    scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, RuntimeError("mat1 and mat2 shapes\ncannot be multiplied"), lambda *_: True)
    with pytest.raises(DeblurError, match="shapes cannot be multiplied") as caught:
        restore(scene(70, 70))
    assert not isinstance(caught.value, RuntimeError)
    assert "\n" not in str(caught.value)


class Lazy:
    """An array that is read one plane at a time and notes what was asked of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.reads: list[tuple[int, ...]] = []

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self.array[key]
        self.reads.append(found.shape)
        return found

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise AssertionError("the lazy array was read whole")


@pytest.mark.parametrize("tile_px", [None, 128])
def test_a_lazy_array_is_read_plane_by_plane(tile_px: int | None, scene: Callable, restore: Callable) -> None:
    image = scene(4, 150, 150)
    lazy = Lazy(image)
    np.testing.assert_array_equal(restore(lazy, tile_px=tile_px).array, restore(image, tile_px=tile_px).array)
    assert set(lazy.reads) == {(150, 150)}
    assert len(lazy.reads) == 8  # once for the statistics, once to restore


def test_dask_and_zarr_go_in_and_out(scene: Callable, restore: Callable, tmp_path: Any) -> None:
    da, zarr = pytest.importorskip("dask.array"), pytest.importorskip("zarr")
    image = scene(3, 150, 150).astype(np.uint16)
    expected = restore(image, tile_px=128).array
    np.testing.assert_array_equal(restore(da.from_array(image, chunks=(1, 64, 64)), tile_px=128).array, expected)
    out = zarr.create_array(tmp_path / "out.zarr", shape=image.shape, dtype=image.dtype, chunks=(1, 64, 64))
    source = zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 64, 64))
    restored = restore(source, tile_px=128, out=out)
    assert restored.array is out
    np.testing.assert_array_equal(out[:], expected)
    mapped = np.memmap(tmp_path / "out.raw", image.dtype, "w+", shape=image.shape)
    restore(image, tile_px=128, out=mapped)
    np.testing.assert_array_equal(mapped, expected)


def test_the_record_says_what_was_done(model: Model, scene: Callable, restore: Callable) -> None:
    view = ImageView.of(scene(2, 70, 70).astype(np.uint16), "ZYX", pixel_size_um=0.65)
    record = restore(view).record
    assert json.loads(json.dumps(record)) == record
    assert record["model"] == {"name": "tiny", "sha256": "0" * 64}
    assert (record["axes"], record["shape"], record["dtype"]) == ("ZYX", [2, 70, 70], "uint16")
    assert (record["device"], record["precision"], record["notes"]) == ("cpu", "float32", [])
    assert record["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert record["seconds"] >= 0
    again = restore(view, normalization=Normalization.from_dict(record["normalization"]))
    np.testing.assert_array_equal(again.array, restore(view).array)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"region": (0, 0, 0, 9)}, ParameterError, "no pixel"),
        ({"region": (80, 0, 90, 9)}, ParameterError, "no pixel"),
        ({"region": (1, 2)}, ParameterError, "four whole numbers"),
        ({"planes": ()}, ParameterError, "planes"),
        ({"dtype": "complex64"}, ImageError, "float32"),
        ({"dtype": "bool"}, ImageError, "float32"),
        ({"dtype": "no such type"}, ParameterError, "output type"),
        ({"out": np.zeros((3, 3))}, ParameterError, "2 x 70 x 70"),
        ({"normalization": Normalization((0, 0), (1, 1))}, ParameterError, "2 channels"),
        ({"tile_px": 0}, ParameterError, "tile"),
        ({"tile_px": 1.5}, ParameterError, "tile"),
        ({"batch": -1}, ParameterError, "batch"),
        ({"threads": True}, ParameterError, "threads"),
        ({"precision": "float16"}, DeviceError, "not offered on cpu"),
        ({"precision": "double"}, DeviceError, "choose auto"),
        ({"device": "tpu"}, DeviceError, "choose"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_computed(
    options: dict,
    error: type[Exception],
    text: str,
    scene: Callable,
    restore: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = failing(monkeypatch, AssertionError("computed"), lambda *_: True)
    with pytest.raises(error, match=text) as caught:
        restore(scene(2, 70, 70), **options)
    assert "\n" not in str(caught.value)
    assert not failures


def test_a_model_is_computed_with_in_the_precision_that_it_was_loaded_with(
    model: Model, scene: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: False)
    half = load_model("nuclei", "cpu", precision="bfloat16")
    assert Deblurrer(half).precision == "bfloat16"
    assert Deblurrer(half.to("cpu")).precision == "bfloat16"
    assert Deblurrer(half, precision="float32").precision == "float32"
    assert Deblurrer(load_model("nuclei", "cpu")).precision == "float32"
    image, half = scene(40, 40), replace(model, precision="bfloat16")
    restored = deblur(image, half, dtype="float32")
    np.testing.assert_array_equal(restored, deblur(image, model, dtype="float32", precision="bfloat16"))
    assert not np.array_equal(restored, deblur(image, half, dtype="float32", precision="float32"))


@pytest.mark.parametrize("precision", ["float16", "double", None, 16])
def test_a_precision_that_the_device_lacks_is_refused_before_the_model_is_read(precision: Any) -> None:
    with pytest.raises(DeviceError, match="not offered on cpu: choose auto, float32, bfloat16"):
        load_model("no such model", "cpu", precision=precision)


def test_threads_are_torchs_own_again_after_a_run(scene: Callable, restore: Callable) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        torch.set_num_threads(2)
        hook = nn.modules.module.register_module_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        restore(scene(70, 70), threads=1)
        hook.remove()
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_devices_are_those_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert available_devices() == ("cpu",)
    assert pick_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="cuda"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert available_devices() == ("cuda", "cuda:1", "cpu")
    assert pick_device("auto") == "cuda"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert available_devices() == ("cuda", "cuda:1", "mps", "cpu")


def test_automatic_precision_and_tile_follow_the_device(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    network = model.config.network
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: True)
    assert devices.pick_precision("auto", "cpu") == "bfloat16"
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: False)
    assert devices.pick_precision("auto", "cpu") == "float32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    assert devices.pick_precision("auto", "cuda:1") == "bfloat16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert devices.pick_precision("auto", "cuda") == "float16"
    assert devices.pick_precision("auto", "mps") == "float32"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**8, 10**10))
    little = devices.tile_budget_px(network, "cuda", "float32")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**10, 10**10))
    assert little < devices.tile_budget_px(network, "cuda", "float32")
