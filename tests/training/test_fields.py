"""Images read for training: as the Deblurrer reads them, by patches, and refused where they hold nothing."""

import dask.array as da
import numpy as np
import pytest
from training.small import SIDE, small_config, source, spots

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.areas import Draw, split, whole_planes
from napari_mpt_deblur.training.fields import Field


def test_beyond_the_edges_an_image_goes_on_by_reflection():
    array = spots((20, 24))
    field = Field.of(source("a", array), 1)
    wide = field.read(0, -5, -30, 40, 70)
    expected = np.pad(field.plane(0)[0], ((5, 15), (30, 16)), mode="symmetric")
    np.testing.assert_array_equal(wide[0], expected)


def test_a_lazy_image_is_read_plane_by_plane_and_kept_no_longer_than_there_is_room(monkeypatch):
    class Recorder:
        shape, dtype, reads = (6, 20, 20), np.dtype(np.float32), []

        def __getitem__(self, key):
            self.reads.append(key[0])
            return spots((20, 20), key[0])

    reads = Recorder.reads
    monkeypatch.setattr("napari_mpt_deblur.training.fields._MOST_KEPT_BYTES", 2 * 20 * 20 * 4)
    field = Field.of(source("lazy", Recorder(), "ZYX"), 1)
    reads.clear()
    for group in (0, 1, 0, 1, 2, 1, 0):
        field.read(group, 0, 0, 4, 4)
    assert reads == [0, 1, 2, 0]


def test_colours_are_planes_for_a_grey_network_and_channels_for_one_of_three():
    colour = np.stack([spots((20, 24), seed) for seed in range(3)], -1)
    planes, channels, together = (
        Field.of(source("a", colour, "YXS"), count, colours_together=kept)
        for count, kept in ((1, False), (3, False), (1, True))
    )
    assert [(field.channels, len(field.groups)) for field in (planes, channels, together)] == [(1, 3), (3, 1), (3, 1)]
    np.testing.assert_array_equal(channels.plane(0), np.concatenate([planes.plane(group) for group in range(3)]))
    assert Field.of(source("a", colour[..., 0]), 3).channels == 1  # repeated later
    with pytest.raises(TrainingError, match=r"Cannot train on a: The model takes 2 channels, the image has 3 colours"):
        Field.of(source("a", colour, "YXS"), 2)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(value, lazy):
    array = np.stack([spots((20, 20))] * 3)
    array[2, 5, 5] = value
    with pytest.raises(TrainingError, match="Cannot train on a: it holds pixels that are NaN or infinite"):
        Field.of(source("a", da.from_array(array, chunks=(1, 20, 20)) if lazy else array, "ZYX"), 1)


def test_a_constant_image_is_refused():
    with pytest.raises(TrainingError, match="Cannot train on a: all its pixels are the same"):
        Field.of(source("a", np.full((20, 20), 7, np.uint16)), 1)


def test_patches_lie_within_their_areas_and_cover_them():
    field = Field.of(source("a", spots((40, 64))), 1)
    config = small_config(scaled=0.5, scales=(0.5, 1.0))
    train, held = split([field], SIDE)
    assert (train[0].x1, held[0].x0) == (48, 48)  # a strip of the longer side, as wide as the thinnest
    draw, rng = Draw(train, config), np.random.default_rng(0)
    crops = [draw.crop(rng, SIDE) for _ in range(300)]
    assert {crop.turns for crop in crops} == {0, 1, 2, 3}
    assert {crop.mirrored for crop in crops} == {True, False}
    assert min(crop.size for crop in crops) == SIDE
    assert max(crop.size for crop in crops) == 2 * SIDE
    covered = np.zeros((40, 64), int)
    for crop in crops:
        assert crop.finish(field.read(0, crop.y, crop.x, crop.size, crop.size)).shape == (1, SIDE, SIDE)
        covered[crop.y : crop.y + crop.size, crop.x : crop.x + crop.size] += 1
    assert covered.any(1).all()
    assert covered.any(0)[:48].all()
    assert covered[:, 48:].max() == 0


def test_without_flips_and_scales_a_patch_is_the_image_itself():
    field = Field.of(source("a", spots((40, 40))), 1)
    crop = Draw(whole_planes(0, field, SIDE), small_config(flips=False, scaled=0)).crop(np.random.default_rng(0), SIDE)
    pixels = field.read(0, crop.y, crop.x, SIDE, SIDE)
    np.testing.assert_array_equal(crop.finish(pixels), pixels)
