"""Tiles agree with the whole: same channel statistics, no seam, parts as in the full run, batches without effect."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.io import imread

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, Model, available_models, load_model
from napari_mpt_deblur.images import ImageView, Normalization, measure_normalization
from napari_mpt_deblur.networks.channel_pool import ChannelPool
from napari_mpt_deblur.restoration import Deblurrer, Restored
from napari_mpt_deblur.restoration.runner import Finish, Runner


def loss_db(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    return float(10 * np.log10(peak**2 / np.mean((a.astype(float) - b) ** 2)))


def test_tiles_agree_with_the_whole(scene: Callable, restore: Callable) -> None:
    image = scene(420, 380)
    whole, tiled = restore(image, tile_px=512), restore(image, tile_px=128)
    assert whole.record["channel_statistics"] == "whole plane"
    assert "pooled" in tiled.record["channel_statistics"]
    assert len(tiled.record["tiles"]["rows"]) > 2
    assert np.abs(whole.array - image).mean() > 10
    assert loss_db(tiled.array, whole.array, np.ptp(image)) > 45


def test_a_tile_by_itself_would_differ(scene: Callable, model: Model) -> None:
    """What the pooled statistics are for: a dark tile of a bright plane, restored alone, is another."""
    plane = scene(256, 256)[None, None] / 1000
    plane[..., :128] *= 0.1
    runner = Runner(model.network, "cpu", "float32")
    whole = runner(plane)[..., 32:96, 32:96]
    alone = runner(np.ascontiguousarray(plane[..., :128, :128]))[..., 32:96, 32:96]
    pooled = runner(np.ascontiguousarray(plane[..., :128, :128]), runner.measure(plane, 1.0))[..., 32:96, 32:96]
    assert np.abs(pooled - whole).mean() < 0.3 * np.abs(alone - whole).mean()


def test_pooled_statistics_of_the_whole_are_the_whole(model: Model, scene: Callable) -> None:
    plane = scene(128, 128)[None, None] / 1000
    runner = Runner(model.network, "cpu", "float32")
    np.testing.assert_allclose(runner(plane, runner.measure(plane, 1.0)), runner(plane), atol=1e-5)


def test_a_pool_serves_its_own_thread_only(model: Model) -> None:
    seen: list[ChannelPool | None] = []
    pool = ChannelPool()
    with pool.use():
        other = threading.Thread(target=lambda: seen.append(ChannelPool.active()))
        other.start()
        other.join()
        assert ChannelPool.active() is pool
    assert seen == [None]
    assert ChannelPool.active() is None


def test_a_failure_does_not_leave_a_pool_behind(model: Model) -> None:
    runner = Runner(model.network, "cpu", "float32")
    with pytest.raises(Exception, match="multiples"):
        runner.measure(np.zeros((1, 1, 65, 64), np.float32), 1.0)
    assert ChannelPool.active() is None


def test_literal_attention_scales_with_the_area() -> None:
    from napari_mpt_deblur.networks import IntraScaleChannelAttention

    torch.manual_seed(0)
    module = IntraScaleChannelAttention(8, 2, "literal").eval()
    x = torch.rand(1, 8, 16, 16) * 0.05
    big = x.repeat(1, 1, 2, 2)
    pool = ChannelPool(area_ratio=4.0)
    with torch.no_grad(), pool.use():
        module(x)
    direct = ChannelPool()
    with torch.no_grad(), direct.use():
        module(big)
    a, b = pool.get(module), direct.get(module)
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a, b, atol=0.05, rtol=0)


@pytest.mark.parametrize("tile_px", [None, 128])
def test_the_result_does_not_depend_on_what_else_is_in_the_batch(
    tile_px: int | None, scene: Callable, restore: Callable
) -> None:
    stack = np.stack([scene(150, 200, seed=1), scene(150, 200, seed=2) * 5, scene(150, 200, seed=3) * 0.1])
    together = restore(stack, tile_px=tile_px, batch=3)
    statistics: Normalization = measure_normalization(ImageView.of(stack))
    for plane, restored in zip(stack, together.array, strict=True):
        alone = restore(plane, tile_px=tile_px, batch=1, normalization=statistics).array
        np.testing.assert_allclose(restored, alone, atol=0.02)


@pytest.mark.parametrize("tile_px", [None, 128])
@pytest.mark.parametrize("region", [(0, 0, 10, 12), (100, 90, 260, 131), (299, 259, 300, 260), (-5, -5, 999, 40)])
def test_a_region_is_what_the_full_run_gives(
    region: tuple[int, int, int, int], tile_px: int | None, scene: Callable, restore: Callable
) -> None:
    image = scene(2, 300, 260)
    y0, x0, y1, x1 = (max(0, edge) for edge in region)
    full = restore(image, tile_px=tile_px).array
    part = restore(image, tile_px=tile_px, region=region)
    np.testing.assert_allclose(part.array, full[:, y0:y1, x0:x1], atol=1e-3)
    assert part.record["region_px"] == [y0, x0, min(300, y1), min(260, x1)]


def test_single_planes_are_what_the_full_run_gives(scene: Callable, restore: Callable) -> None:
    view = ImageView.of(scene(2, 3, 70, 80), "TZYX")
    full = restore(view).array
    some = restore(view, planes=(view.planes[4], view.planes[0]))
    assert some.array.shape == (2, 70, 80)
    np.testing.assert_allclose(some.array[0], full[1, 1], atol=1e-3)
    np.testing.assert_allclose(some.array[1], full[0, 0], atol=1e-3)
    assert some.record["planes"] == [[1, 1], [0, 0]]
    assert some.record["normalization"] == restore(view).record["normalization"]


@pytest.mark.parametrize(
    ("shape", "options", "how"),
    [
        ((3, 250, 400), {"tile_px": 128, "batch": 2}, {"region": (5, 10, 240, 300)}),
        ((3, 250, 400), {}, {"dtype": "float32"}),
        ((1, 90, 120, 3), {}, {"region": (5, 10, 80, 30)}),
        ((600, 420), {}, {}),
    ],
)
def test_a_run_is_repeated_from_its_record(
    shape: tuple[int, ...], options: dict, how: dict, tiny: Callable, scene: Callable, drive: Callable, monkeypatch: Any
) -> None:
    """With nothing but what the record says, also where the automatic choice would be another by now."""
    model = tiny(nucleus_diameter_px=(8.0, 100.0))
    image = scene(*shape) if shape[-1] > 3 else np.moveaxis(scene(*shape[:1], 3, *shape[1:3]), 1, -1)
    image = (image / 4).astype(np.uint8)
    with monkeypatch.context() as patch:
        if not options:  # little memory: several tiles that are not square
            patch.setattr("napari_mpt_deblur.restoration.settings.tile_budget_px", lambda *_: 128 * 192)
        source = ImageView.of(image, nucleus_diameter_px=150.0 if image.ndim == 2 else None)
        planes = source.planes[1:] if image.ndim == 3 else None
        first, _ = drive(Deblurrer(model, precision="float32", **options).run(source, planes=planes, **how))
    record = json.loads(json.dumps(first.record))

    view = ImageView.of(image, record["axes"], nucleus_diameter_px=record["nucleus_diameter_px"])
    chosen = [plane for plane in view.planes if record["planes"] is None or list(plane.index) in record["planes"]]
    tiles = {name: record["tiles"][name] for name in ("tile_px", "batch", "max_pixels")}
    deblurrer = Deblurrer(model, device=record["device"], precision=record["precision"], **tiles)
    again, _ = drive(
        deblurrer.run(
            view,
            planes=tuple(chosen),
            region=record["region_px"],
            normalization=Normalization.from_dict(record["normalization"]),
            dtype=record["dtype"],
        )
    )
    np.testing.assert_array_equal(again.array, first.array)
    assert again.record | {"seconds": 0} == record | {"seconds": 0}
    assert record["reduced_by"] == (2 if image.ndim == 2 else 1)


@pytest.mark.parametrize("options", [{"tile_px": 128}, {"tile_px": 128, "batch": 4}, {"tile_px": 192}, {}])
def test_how_many_passes_a_job_costs(
    options: dict, scene: Callable, drive: Callable, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts instead of clocks: the estimate is what happens, and it is committed here."""
    calls: list[tuple[int, ...]] = []
    forward = Runner.begin

    def counted(self: Runner, tiles: np.ndarray, pool: ChannelPool | None = None) -> Finish:
        calls.append(tiles.shape)
        return forward(self, tiles, pool)

    monkeypatch.setattr(Runner, "begin", counted)
    view = ImageView.of(scene(3, 250, 250))
    deblurrer = Deblurrer(model, precision="float32", **options)
    estimate = deblurrer.estimate(view)
    _, steps = drive(deblurrer.run(view))
    assert len(calls) == estimate.forwards
    assert sum(n * h * w for n, _, h, w in calls) / 1e6 == pytest.approx(estimate.megapixels)
    assert steps[-1].done == steps[-1].total == estimate.tiles
    committed = {(128, None): (27, 6), (128, 4): (27, 12), (192, None): (12, 6), (None, None): (3, 1)}
    key = (options.get("tile_px"), options.get("batch"))
    assert (estimate.tiles, estimate.forwards) == committed[key]


@pytest.fixture(scope="module")
def bundled() -> Model:
    names = [info.name for info in available_models() if not info.problem]
    if DEFAULT_MODEL not in names:
        pytest.skip("needs the bundled model, which is not in this source tree")
    return load_model(DEFAULT_MODEL, device="cpu")


def real_field(folder: Path) -> tuple[np.ndarray, float]:
    """A validation field out of focus (a plain Gaussian will do here), and its peak for PSNR."""
    index = json.loads((folder / "bbbc039" / "index.json").read_text())
    name = next(entry["id"] for entry in index if entry["split"] != "train")
    image = imread(next((folder / "bbbc039" / "images").glob(f"{name}.*"))).astype(np.float32)
    blurred = ndimage.gaussian_filter(image, 3).astype(np.uint16)
    return blurred, float(np.percentile(image, 99.8) - np.percentile(image, 1))


@pytest.fixture(scope="module")
def untiled(data_folder: Path, bundled: Model, restore: Callable) -> Restored:
    return restore(real_field(data_folder)[0], use=bundled, tile_px=1024, dtype="float32")


@pytest.mark.parametrize("tile", [256, pytest.param(384, marks=pytest.mark.slow), 512])
def test_real_fields_show_no_seam(
    data_folder: Path, bundled: Model, restore: Callable, untiled: Restored, tile: int, request: pytest.FixtureRequest
) -> None:
    """PSNR of tiled against untiled, and the difference near the borders of tiles against that elsewhere."""
    image, peak = real_field(data_folder)
    whole = untiled
    tiled = restore(image, use=bundled, tile_px=tile, dtype="float32")
    assert len(whole.record["tiles"]["rows"]) == 1
    assert loss_db(tiled.array, whole.array, peak) > 45
    near = _near_borders(tiled.record["tiles"], image.shape)
    squares = (tiled.array - whole.array) ** 2
    ratio = np.sqrt(squares[near].mean() / squares[~near].mean())
    assert ratio < 1.6
    if tile > 256:  # the level above holds for all
        request.applymarker(pytest.mark.xfail(reason="a known fault: see benchmarks/README.md"))
    assert ratio < 1.1


@pytest.mark.parametrize("part", [np.s_[128:384, 128:384], pytest.param(np.s_[:, :], marks=pytest.mark.slow)])
def test_the_fast_precision_loses_nothing_visible(
    data_folder: Path, bundled: Model, restore: Callable, part: tuple[slice, slice]
) -> None:
    """In a field's middle; without bfloat16 in the processor the whole field takes ten times as long as in float32."""
    image, peak = real_field(data_folder)
    image = image[part]
    exact = restore(image, use=bundled, dtype="float32")
    fast = restore(image, use=bundled, dtype="float32", precision="bfloat16")
    assert loss_db(fast.array, exact.array, peak) > 50


def _near_borders(tiles: dict, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels within 8 of where one tile passes into the next."""
    near = np.zeros(shape, bool)
    for axis, starts in enumerate((tiles["rows"], tiles["columns"])):
        side, padded = tiles["tile_px"][axis], tiles["padded_px"][axis]
        before = (padded - shape[axis]) // 2
        for first, second in pairwise(starts):
            middle = (first + side + second) // 2 - before
            index = [slice(None), slice(None)]
            index[axis] = slice(max(0, middle - 8), max(0, middle + 8))
            near[tuple(index)] = True
    assert near.any()
    return near
