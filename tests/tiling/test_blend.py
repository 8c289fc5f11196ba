"""Blending: the stitched identity is the identity, bands come in order, an edge's influence does not show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_mpt_deblur.tiling import Blender, Region, TilePlan


def stitch(
    plane: np.ndarray, plan: TilePlan, restore: Callable[[np.ndarray], np.ndarray], region: Region | None = None
) -> np.ndarray:
    """Cut, restore and blend as the engine does; checks that bands follow each other without a gap."""
    blender = Blender(plan, region, channels=plane.shape[0])
    bands, following = [], blender.region[0]
    for tile in blender.tiles:
        rows, columns = plan.source(tile.y, tile.x, plan.tile_height, plan.tile_width)
        finished = blender.add(tile, restore(plane[:, rows[:, None], columns]))
        if finished is not None:
            first, values = finished
            assert first == following
            following += values.shape[1]
            bands.append(values)
    assert following == blender.region[2]
    return np.concatenate(bands, axis=1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, TilePlan, Region]:
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    plan = TilePlan.of(
        height,
        width,
        multiple=draw(st.sampled_from([1, 8, 32])),
        overlap_px=draw(st.integers(0, 40)),
        tile_px=draw(st.integers(1, 120)),
    )
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    region = (y0, x0, draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width)))
    plane = np.random.default_rng(draw(st.integers(0, 99))).random((2, height, width), dtype=np.float32)
    return plane, plan, region


@given(cases())
@settings(max_examples=80, deadline=None)
def test_the_stitched_identity_is_the_identity(case: tuple[np.ndarray, TilePlan, Region]) -> None:
    plane, plan, region = case
    y0, x0, y1, x1 = region
    if len(plan.tiles) > 3000:
        return
    np.testing.assert_allclose(stitch(plane, plan, lambda tile: tile), plane, atol=1e-6)
    np.testing.assert_allclose(stitch(plane, plan, lambda tile: tile, region), plane[:, y0:y1, x0:x1], atol=1e-6)


def leak(reach: int) -> Callable[[np.ndarray], np.ndarray]:
    """A network that sees zeros beyond its tile, `reach` pixels far."""
    return lambda tile: ndimage.uniform_filter(tile, (0, 2 * reach + 1, 2 * reach + 1), mode="constant")


def test_what_a_tile_edge_does_stays_out_of_the_result() -> None:
    """An influence of 31 pixels, less than half the overlap less the blend, leaves no trace; a longer one does."""
    plane = np.random.default_rng(0).random((1, 512, 512), dtype=np.float32) + 1
    plan = TilePlan.of(512, 512, multiple=128, overlap_px=128, tile_px=256)
    assert len(plan.tiles) == 9
    np.testing.assert_allclose(stitch(plane, plan, leak(31)), leak(31)(plane), atol=1e-5)
    assert np.abs(stitch(plane, plan, leak(60)) - leak(60)(plane)).max() > 1e-3


def test_without_an_overlap_the_edge_shows() -> None:
    plane = np.ones((1, 256, 256), np.float32)
    plan = TilePlan.of(256, 256, multiple=64, overlap_px=0, tile_px=128)
    assert np.abs(stitch(plane, plan, leak(3)) - leak(3)(plane)).max() > 0.1


def test_the_blender_holds_one_row_of_tiles() -> None:
    plan = TilePlan.of(4096, 256, multiple=64, tile_px=128)
    blender = Blender(plan)
    assert sum(value.nbytes for value in vars(blender).values() if isinstance(value, np.ndarray)) <= 128 * 256 * 4
