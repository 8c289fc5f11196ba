"""Two hundred runs in one process leave nothing behind, however they end."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from restoration.faults import STAGES, failing_at

from napari_mpt_deblur.checkpoints import Model, load_model, save_model
from napari_mpt_deblur.errors import DeblurError, ModelError
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import windows
from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.networks.guard import free_memory
from napari_mpt_deblur.networks.windows import Windows
from napari_mpt_deblur.restoration import Deblurrer, deblur

_OURS = "napari_mpt_deblur"


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    tensors: int
    of_ours: int
    threads: int
    files: int
    traced_bytes: int
    resident_bytes: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        objects, process = gc.get_objects(), psutil.Process()
        return cls(
            sum(issubclass(type(each), torch.Tensor) for each in objects),
            sum(_is_ours(each) for each in objects),
            process.num_threads(),
            len(process.open_files()) if psutil.WINDOWS else process.num_fds(),
            tracemalloc.get_traced_memory()[0],
            process.memory_info().rss,
        )


def _is_ours(each: Any) -> bool:
    if type(each) is GeneratorType:
        return _OURS in each.gi_code.co_filename
    return str(type(each).__module__).startswith(_OURS)


@dataclass(frozen=True)
class Kinds:
    """The ways in which a run begins and ends; the methods are called in turn."""

    folder: Path
    stack: np.ndarray
    wide: np.ndarray

    @property
    def all(self) -> tuple[Callable[[], None], ...]:
        return (
            self.stack_with_progress,
            self.tiled,
            self.preview,
            self.cancelled,
            self.left,
            self.from_file_to_file,
            self.failed,
            self.out_of_memory,
            self.not_a_number,
            self.estimated,
        )

    def model(self) -> Model:
        return load_model(self.folder / "tiny.safetensors", device="cpu")

    def deblurrer(self, **options: Any) -> Deblurrer:
        return Deblurrer(self.model(), **{"precision": "float32"} | options)

    def stack_with_progress(self) -> None:
        steps: list[Any] = []
        deblur(self.stack, self.folder / "tiny.safetensors", device="cpu", precision="float32", progress=steps.append)
        assert steps

    def tiled(self) -> None:
        _finish(self.deblurrer(tile_px=128, batch=2, threads=1).run(ImageView.of(self.wide)))

    def preview(self) -> None:
        view = ImageView.of(self.stack)
        _finish(self.deblurrer(precision="bfloat16").run(view, planes=view.planes[1:2], region=(5, 5, 30, 40)))

    def cancelled(self) -> None:
        steps = self.deblurrer(tile_px=128, batch=1).run(ImageView.of(self.wide))
        assert [step.done for step in islice(steps, 3)] == [0, 0, 1]
        steps.close()

    def left(self) -> None:
        next(self.deblurrer().run(ImageView.of(self.stack)))

    def from_file_to_file(self) -> None:
        source = np.memmap(self.folder / "in.raw", np.float32, "r", shape=self.stack.shape)
        out = np.memmap(self.folder / "out.raw", np.float32, "w+", shape=self.stack.shape)
        _finish(self.deblurrer().run(ImageView.of(source), out=out))

    def failed(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            failing_at(patch, STAGES["a batch is fetched"], RuntimeError("broken"), lambda call: call == 2)
            with pytest.raises(DeblurError, match="broken"):
                _finish(self.deblurrer(tile_px=128, batch=2).run(ImageView.of(self.wide)))

    def out_of_memory(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            failing_at(patch, STAGES["a batch is computed"], MemoryError(), lambda call: call == 1)
            _finish(self.deblurrer(batch=2).run(ImageView.of(self.stack)))

    def not_a_number(self) -> None:
        model = self.model()
        with torch.no_grad():
            model.network.output.weight.fill_(torch.nan)
        with pytest.raises(ModelError, match="not numbers"):
            _finish(Deblurrer(model, precision="bfloat16").run(ImageView.of(self.stack)))

    def estimated(self) -> None:
        deblurrer = self.deblurrer()
        assert deblurrer.estimate(ImageView.of(self.stack)).describe(deblurrer.pace())


@pytest.fixture
def kinds(model: Model, scene: Callable, tmp_path: Path) -> Kinds:
    save_model(tmp_path / "tiny.safetensors", model.network, model.config)
    stack = scene(2, 50, 60)
    stack.tofile(tmp_path / "in.raw")
    return Kinds(tmp_path, stack, scene(60, 190))


@pytest.fixture
def tracing() -> Iterator[None]:
    """What numpy and Python allocate is counted, which makes runs four times as slow."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("tracing")
def test_two_hundred_runs_leave_nothing(kinds: Kinds) -> None:
    check_runs(kinds, 200, warm_up=40)


def test_runs_leave_nothing(kinds: Kinds) -> None:
    """The same in little, without tracing."""
    check_runs(kinds, 30, warm_up=20)


def check_runs(kinds: Kinds, count: int, warm_up: int) -> None:
    """Counted after a warm-up, in which caches fill and libraries load: what is held must not grow with the runs.

    One small plane kept by one run in ten, 12 kB, would be twice of what is allowed to Python; to all else, of which
    allocators keep some, 100 kB a run.
    """
    runs = cycle(kinds.all)
    for run in islice(runs, warm_up):
        run()
    before = Held.now()
    for run in islice(runs, count - warm_up):
        run()
    after = Held.now()
    assert after.tensors <= before.tensors
    assert after.of_ours <= before.of_ours
    assert after.threads <= before.threads
    assert after.files <= before.files
    assert after.traced_bytes - before.traced_bytes < 100_000
    assert after.resident_bytes - before.resident_bytes < (count - warm_up) * 100_000
    assert ChannelPool.active() is None


def test_images_of_two_hundred_sizes_fill_no_memory_with_their_windows() -> None:
    """Where windows lie is kept for the sizes that were used last."""
    cut = Windows(side=2, patches=1, shifted=True)
    for rows in range(1, 201):
        cut.cut(torch.zeros(1, 1, 2 * rows, 2))
    kept = windows._places.cache_info().currsize
    assert 1 < kept <= 64
    assert (
        windows._places(1, 400, 2, cut, torch.device("cpu"))[0]
        is windows._places(1, 400, 2, cut, torch.device("cpu"))[0]
    )


def test_memory_of_a_device_is_given_back_with_the_places_of_windows() -> None:
    Windows(side=2, patches=1, shifted=False).cut(torch.zeros(1, 1, 2, 2))
    free_memory("cpu")
    assert windows._places.cache_info().currsize
    free_memory("mps")  # a device that is not there has nothing else to give
    assert not windows._places.cache_info().currsize


def _finish(steps: Any) -> None:
    for _ in steps:
        pass
