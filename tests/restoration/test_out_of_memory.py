"""Memory that runs out, at every stage of a run: less is tried, the result stays, and it is said what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from restoration.faults import MORE_NO_MEMORY, NO_MEMORY, STAGES, failing, failing_at, on_fake_accelerator

from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.errors import OutOfMemoryError
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPT
from napari_mpt_deblur.restoration import Deblurrer, devices, pace, runner
from napari_mpt_deblur.restoration.planes import ReducedPixels
from napari_mpt_deblur.restoration.request import Request
from napari_mpt_deblur.restoration.runner import Runner

TILED: dict[str, Any] = {"tile_px": 128, "batch": 2}
ONE_TILE = {"a plane is read", "a tile is read", "a batch is sent", "a batch is computed", "a batch is fetched"}


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """To 45 dB: fewer samples measure the channel attention, and smaller tiles see less around them."""
    return bool(10 * np.log10(np.ptp(expected) ** 2 / np.mean((found - expected) ** 2 + 1e-9)) > 45)


@pytest.fixture(scope="module")
def planes(scene: Callable, restore: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Two planes of several tiles, and what becomes of them where memory suffices."""
    image = scene(2, 130, 130)
    image.flags.writeable = False  # whatever wrote to it would fail
    return image, restore(image, **TILED).array


@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_memory_that_runs_out_once_changes_nothing_but_the_settings(
    stage: tuple[Any, str],
    error: Exception,
    planes: tuple[np.ndarray, np.ndarray],
    restore: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the second call of each stage: with some of the work done already."""
    image, expected = planes
    out = np.full_like(image, np.nan)
    failures = failing_at(monkeypatch, stage, error, lambda call: call == 2)
    restored = restore(image, **TILED, out=out)
    assert failures == [2]
    assert restored.record["notes"] == ["out of memory on cpu: batch halved to 1"]
    assert restored.record["tiles"]["batch"] == 1
    assert same(out, expected)


@pytest.mark.parametrize("stage", [STAGES[name] for name in sorted(ONE_TILE)], ids=sorted(ONE_TILE))
def test_memory_that_runs_out_in_a_batch_of_small_planes(
    stage: tuple[Any, str], scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There nothing differs but the batch: the result agrees to a thousandth of a grey level."""
    image = scene(6, 60, 60)
    expected = restore(image, batch=4).array
    failures = failing_at(monkeypatch, stage, MemoryError(), lambda call: call == 2)
    restored = restore(image, batch=4)
    assert failures == [2]
    assert restored.record["notes"] == ["out of memory on cpu: batch halved to 2"]
    np.testing.assert_allclose(restored.array, expected, atol=1e-3)


@pytest.mark.parametrize("error", MORE_NO_MEMORY.values(), ids=MORE_NO_MEMORY)
def test_whatever_says_that_memory_ran_out_is_understood(
    error: Exception, scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(monkeypatch, STAGES["a batch is computed"], error, lambda call: call == 1)
    assert restore(scene(60, 60), batch=2).record["notes"] == ["out of memory on cpu: batch halved to 1"]


def test_an_error_of_the_system_that_is_another_is_not_taken_for_it(
    scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = failing_at(monkeypatch, STAGES["pixels are written"], OSError(28, "No space left"), lambda _: True)
    with pytest.raises(OSError, match="No space left"):
        restore(scene(60, 60))
    assert failures == [1]


def test_a_plane_that_cannot_be_enlarged_again(
    tiny: Callable, scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, view = tiny(nucleus_diameter_px=(8.0, 20.0)), ImageView.of(scene(100, 100), nucleus_diameter_px=40.0)
    expected = restore(view, use=model, batch=2).array
    failing_at(monkeypatch, (ReducedPixels, "finish"), MemoryError(), lambda call: call == 1)
    restored = restore(view, use=model, batch=2)
    assert restored.record["notes"] == ["out of memory on cpu: batch halved to 1"]
    np.testing.assert_allclose(restored.array, expected, atol=1e-3)


@pytest.mark.parametrize("moment", ["begun", "awaited"])
def test_memory_that_runs_out_under_way_on_a_device_that_computes_by_itself(
    moment: str,
    model: Model,
    scene: Callable,
    drive: Callable,
    monkeypatch: pytest.MonkeyPatch,
    overlapping: list[str],
) -> None:
    """With one batch begun ahead of the one that fails, or of the one that is waited for."""
    view = ImageView.of(scene(250, 250))
    deblurrer = Deblurrer(model, tile_px=128, batch=4, precision="float32")
    expected = drive(deblurrer.run(view))[0].array
    overlapping.clear()
    error = torch.OutOfMemoryError("out of memory")
    if moment == "begun":
        third = iter([False, False, True])
        failures = failing(monkeypatch, error, lambda *_: next(third, False))
    else:
        failures, fetched = [], Runner._fetched

        def failing_fetch(self: Runner, restored: torch.Tensor) -> Callable[[], torch.Tensor]:
            wait, number = fetched(self, restored), len(overlapping)

            def fail() -> torch.Tensor:
                failures.append(str(number))
                raise error

            return fail if number == 4 and not failures else wait  # the second batch of tiles, while the third is begun

        monkeypatch.setattr(Runner, "_fetched", failing_fetch)
    restored, _ = drive(deblurrer.run(view))
    assert len(failures) == 1
    assert restored.record["notes"] == ["out of memory on cpu: batch halved to 2"]
    assert same(restored.array, expected)


@pytest.mark.parametrize(
    ("shape", "options", "when", "note"),
    [
        ((5, 70, 70), {"batch": 4}, lambda tiles: len(tiles) > 2, "batch halved to 2"),
        ((1, 250, 250), {}, lambda tiles: tiles[0].size > 170 * 170, "tile reduced"),
        ((1, 250, 250), {"tile_px": 192, "batch": 4}, lambda tiles: tiles.size > 2 * 128 * 128, "batch halved to 2"),
        ((1, 250, 250), {"tile_px": 128, "batch": 1}, lambda tiles: tiles.size > 128 * 128, "from fewer pixels"),
    ],
)
def test_out_of_memory_takes_smaller_steps_until_it_suffices(
    shape: tuple[int, ...],
    options: dict,
    when: Callable,
    note: str,
    scene: Callable,
    restore: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = scene(*shape)
    expected = restore(image).array
    failures = failing(monkeypatch, NO_MEMORY["accelerator"], lambda _, tiles: when(tiles))
    restored = restore(image, **options)
    assert failures
    assert any(note in text for text in restored.record["notes"])
    assert same(restored.array, expected)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_memory_that_never_suffices_ends_in_one_line_with_a_remedy(
    stage: tuple[Any, str], scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scene(150, 150)
    before = image.copy()
    failures = failing_at(monkeypatch, stage, NO_MEMORY["cpu"], lambda _: True)
    with pytest.raises(OutOfMemoryError, match=r"smallest tile: close other programs, or restore a part\.$") as caught:
        restore(image, **TILED)
    assert len(failures) >= 2
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
@pytest.mark.parametrize("place", [(ImageView, "read_pixels"), (Request, "copy_alpha")], ids=["measured", "allocated"])
def test_no_memory_for_the_image_or_its_result_is_told_with_another_remedy(
    place: tuple[Any, str], error: Exception, scene: Callable, restore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no tile is worked on yet, there is nothing to make smaller."""
    failing_at(monkeypatch, place, error, lambda call: call == 1)
    with pytest.raises(OutOfMemoryError, match=r"^The memory .* restore a part, or give a memory-mapped output\.$"):
        restore(scene(60, 60))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_accelerator_without_memory_hands_over_to_the_cpu(
    precision: str, model: Model, scene: Callable, drive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: True)
    view = ImageView.of(scene(250, 250))
    expected = drive(Deblurrer(model, precision=precision).run(view))[0].array
    deblurrer = on_fake_accelerator(monkeypatch, model, precision)
    failures = failing(monkeypatch, NO_MEMORY["accelerator"], lambda used, _: used.device.type == "cuda")
    restored, _ = drive(deblurrer.run(view))
    assert len(failures) >= 2
    assert (restored.record["device"], restored.record["precision"]) == ("cpu", precision)
    assert restored.record["notes"][-1] == "out of memory on cuda: moved to the CPU"
    np.testing.assert_array_equal(restored.array, expected)


def test_on_the_cpu_a_run_has_the_tiles_that_the_user_chose(
    model: Model, scene: Callable, drive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, chosen = ImageView.of(scene(250, 250)), {"tile_px": (128, 192), "batch": 2, "max_pixels": 30_000}
    expected = drive(Deblurrer(model, precision="float32", **chosen).run(view))[0]
    deblurrer = on_fake_accelerator(monkeypatch, model, "float32")
    deblurrer.settings = type(deblurrer.settings).of(model.config.network, "cuda", "float32", **chosen)
    failing(monkeypatch, NO_MEMORY["accelerator"], lambda used, _: used.device.type == "cuda")
    restored, _ = drive(deblurrer.run(view))
    assert restored.record["notes"][-1] == "out of memory on cuda: moved to the CPU"
    assert len(restored.record["notes"]) > 2  # smaller ones were tried before
    assert restored.record["tiles"] == expected.record["tiles"]
    np.testing.assert_array_equal(restored.array, expected.array)


def test_a_model_that_finds_no_room_on_the_device_goes_to_the_cpu_at_once(
    model: Model, scene: Callable, drive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = ImageView.of(scene(2, 250, 250))
    expected = drive(Deblurrer(model, precision="float32").run(view))[0].array
    deblurrer = on_fake_accelerator(monkeypatch, model, "float32")
    failures = failing_at(monkeypatch, (runner, "_on"), NO_MEMORY["accelerator"], lambda call: call == 1)
    restored, _ = drive(deblurrer.run(view))
    assert failures == [1]
    assert restored.record["notes"] == ["out of memory on cuda: moved to the CPU"]
    np.testing.assert_array_equal(restored.array, expected)


def test_a_model_goes_to_another_device_without_a_copy_where_it_is(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full device has no room for a copy of the model that leaves it."""
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", lambda *_: pytest.fail("copied where it is"))
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", lambda *_: pytest.fail("copied where it is"))
    there = runner._on(model.network, torch.device("meta"))
    assert {each.device.type for each in (*there.parameters(), *there.buffers())} == {"meta"}
    assert {each.device.type for each in (*model.network.parameters(), *model.network.buffers())} == {"cpu"}
    assert there.state_dict().keys() == model.network.state_dict().keys()
    assert isinstance(there, MPT)
    assert not any(each.requires_grad for each in there.parameters())
    assert runner._on(model.network, torch.device("cpu")) is model.network


def test_a_device_too_full_to_be_asked_gets_the_smallest_tiles(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    place = (torch.cuda, "mem_get_info")
    failing_at(monkeypatch, place, RuntimeError("CUDA error: out of memory"), lambda call: call == 1)
    assert devices.tile_budget_px(model.config.network, "cuda", "float32") == 1
    failing_at(monkeypatch, place, RuntimeError("CUDA error: unknown"), lambda call: call == 1)
    with pytest.raises(RuntimeError, match="unknown"):
        devices.tile_budget_px(model.config.network, "cuda", "float32")


def test_a_device_that_cannot_even_free_memory_ends_no_run(
    model: Model, scene: Callable, drive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    deblurrer = on_fake_accelerator(monkeypatch, model, "float32")
    freeing = failing_at(monkeypatch, (torch.cuda, "empty_cache"), RuntimeError("CUDA error"), lambda _: True)
    failing(monkeypatch, NO_MEMORY["accelerator"], lambda used, _: used.device.type == "cuda")
    restored, _ = drive(deblurrer.run(ImageView.of(scene(60, 60))))
    assert freeing
    assert restored.record["device"] == "cpu"


def test_the_pace_of_a_device_without_memory_is_that_of_the_cpu(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the run will end; to tell its time must not stop it."""
    monkeypatch.setattr(pace, "_measured", {})
    deblurrer = on_fake_accelerator(monkeypatch, model, "float32")
    failing(monkeypatch, NO_MEMORY["accelerator"], lambda used, _: used.device.type == "cuda")
    assert deblurrer.pace() == pace._measured[model.sha256, "cpu", "float32", torch.get_num_threads()]
    monkeypatch.setattr(pace, "_measured", {})
    failing(monkeypatch, NO_MEMORY["cpu"], lambda *_: True)
    with pytest.raises(OutOfMemoryError, match="restore a part"):
        deblurrer.pace()
