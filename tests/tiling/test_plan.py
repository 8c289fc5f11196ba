"""Tile plans: coverage, alignment, reflection, the automatic choice; shapes drawn by hypothesis."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.tiling import TilePlan
from napari_mpt_deblur.tiling.plan import reflect

sizes = st.integers(1, 400)
multiples = st.sampled_from([1, 4, 16, 64])
tile_sides = st.one_of(st.none(), st.integers(1, 300), st.tuples(st.integers(1, 300), st.integers(1, 300)))


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    return TilePlan.of(
        draw(sizes),
        draw(sizes),
        multiple=draw(multiples),
        overlap_px=draw(st.integers(0, 70)),
        tile_px=draw(tile_sides),
        max_pixels=draw(st.sampled_from([1, 5000, 40000, 10**6])),
    )


@given(plans())
@settings(max_examples=150, deadline=None)
def test_every_pixel_is_covered_once_by_weight(plan: TilePlan) -> None:
    for weights, offsets, side, padded in (
        (plan.row_weights, plan.rows, plan.tile_height, plan.padded_height),
        (plan.column_weights, plan.columns, plan.tile_width, plan.padded_width),
    ):
        total = np.zeros(padded)
        for offset, weight in zip(offsets, weights, strict=True):
            assert 0 <= offset <= padded - side
            total[offset : offset + side] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert weights.min() >= 0


@given(st.integers(1, 400), st.integers(1, 400), multiples, st.integers(0, 70), tile_sides)
@settings(max_examples=100, deadline=None)
def test_offsets_and_sides_keep_the_size_rule_and_the_overlap(
    height: int, width: int, multiple: int, overlap: int, tile: int | tuple[int, int] | None
) -> None:
    plan = TilePlan.of(height, width, multiple=multiple, overlap_px=overlap, tile_px=tile, max_pixels=20000)
    assert plan.overlap_px >= overlap
    for offsets, side, size, padded in (
        (plan.rows, plan.tile_height, height, plan.padded_height),
        (plan.columns, plan.tile_width, width, plan.padded_width),
    ):
        assert 0 <= padded - size < multiple
        assert side % multiple == 0
        assert offsets[0] == 0
        assert offsets[-1] + side == padded
        for first, second in pairwise(offsets):
            assert second % multiple == 0
            assert first < second
            assert first + side - second >= overlap


@given(st.integers(1, 12), st.integers(-40, 0), st.integers(1, 60))
def test_reflection_is_numpys(size: int, start: int, stop: int) -> None:
    line = np.arange(size)
    after = max(0, stop - size)
    expected = np.pad(line, (-start, after), mode="reflect" if size > 1 else "edge")[: stop - start]
    np.testing.assert_array_equal(line[reflect(start, stop, size)], expected)


def test_a_plane_that_fits_is_one_tile() -> None:
    plan = TilePlan.of(520, 696, multiple=128, max_pixels=2**20)
    assert len(plan.tiles) == 1
    assert (plan.tile_height, plan.tile_width) == (640, 768)
    assert (plan.top, plan.left) == (60, 36)


def test_automatic_tiles_read_the_fewest_pixels_that_memory_allows() -> None:
    plan = TilePlan.of(2048, 2048, multiple=128, overlap_px=64, max_pixels=850_000)
    assert plan.tile_pixels <= 850_000
    read = len(plan.tiles) * plan.tile_pixels
    for side in range(256, 1024, 128):  # no square of the same limit does better
        other = TilePlan.of(2048, 2048, multiple=128, overlap_px=64, tile_px=side)
        if other.tile_pixels <= 850_000:
            assert read <= len(other.tiles) * other.tile_pixels
    assert read < 1.4 * 2048**2


def test_number_of_tiles_grows_with_the_area() -> None:
    counts = [len(TilePlan.of(side, side, multiple=128, max_pixels=850_000).tiles) for side in (512, 1024, 2048, 4096)]
    assert counts == [1, 2, 9, 32]


def test_a_memory_limit_below_the_smallest_tile_gives_the_smallest_tile() -> None:
    plan = TilePlan.of(1000, 1000, multiple=128, overlap_px=64, max_pixels=1)
    assert (plan.tile_height, plan.tile_width) == (256, 256)


def test_a_small_tile_is_enlarged_to_what_the_overlap_needs() -> None:
    plan = TilePlan.of(520, 696, multiple=128, overlap_px=64, tile_px=1)
    assert (plan.tile_height, plan.tile_width, plan.overlap_px) == (256, 256, 128)


def test_samples_are_spread_over_the_plane_whatever_its_tiles() -> None:
    few, many = (TilePlan.of(2048, 1024, multiple=128, tile_px=side) for side in (256, 1024))
    samples = few.samples(128, 16, 128)
    assert samples == many.samples(128, 16, 128)
    assert 8 <= len(samples) <= 16
    rows, columns = {y for y, _ in samples}, {x for _, x in samples}
    assert len(rows) > len(columns)  # the plane is taller than wide
    assert min(rows) <= 256
    assert max(rows) >= 2048 - 384
    assert all(y % 128 == 0 and x % 128 == 0 for y, x in samples)


def test_tiles_of_a_region_are_those_that_count_in_it() -> None:
    plan = TilePlan.of(2048, 2048, multiple=128, tile_px=512)
    region = (700, 700, 760, 760)
    chosen = plan.tiles_for(region)
    assert 1 <= len(chosen) <= 4
    share = np.zeros((plan.padded_height, plan.padded_width))
    for tile in chosen:
        weight = plan.row_weights[tile.row][:, None] * plan.column_weights[tile.column]
        share[tile.y : tile.y + plan.tile_height, tile.x : tile.x + plan.tile_width] += weight
    np.testing.assert_allclose(share[700:760, 700:760], 1, atol=1e-6)
    assert plan.tiles_for((0, 0, 2048, 2048)) == plan.tiles


@pytest.mark.parametrize("tile_px", [0, -5])
def test_a_tile_below_one_pixel_is_refused(tile_px: int) -> None:
    with pytest.raises(ParameterError, match="tile size"):
        TilePlan.of(10, 10, tile_px=tile_px)


@pytest.mark.parametrize(("height", "width", "overlap"), [(0, 5, 0), (5, 0, 0), (5, 5, -1)])
def test_sizes_that_make_no_plane_are_refused(height: int, width: int, overlap: int) -> None:
    with pytest.raises(ParameterError, match="at least"):
        TilePlan.of(height, width, overlap_px=overlap)


def test_the_record_is_plain_data() -> None:
    record = TilePlan.of(300, 500, multiple=64, tile_px=256).to_dict()
    assert record["tile_px"] == [256, 256]
    assert record["padded_px"] == [320, 512]
    assert record["overlap_px"] == 64


@given(st.integers(1, 400), st.integers(1, 400), multiples, st.integers(0, 70), tile_sides)
@settings(max_examples=50, deadline=None)
def test_a_plan_is_made_again_from_what_its_record_says(
    height: int, width: int, multiple: int, overlap: int, tile: int | tuple[int, int] | None
) -> None:
    plan = TilePlan.of(height, width, multiple=multiple, overlap_px=overlap, tile_px=tile, max_pixels=20000)
    tile_px = tuple(plan.to_dict()["tile_px"])
    assert TilePlan.of(height, width, multiple=multiple, overlap_px=overlap, tile_px=tile_px) == plan
