"""Nothing but one image: where it is sharp, and what is done where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from training.small import source, spots

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.fields import Field
from napari_mpt_deblur.training.layer import sharp_regions


def _edges(shape, seed=0):
    """Discs with edges of a pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape, np.float32)
    for cy, cx in rng.uniform(0, 1, (40, 2)) * shape:
        image = np.maximum(image, 1000.0 * (np.hypot(y - cy, x - cx) < 9))
    return gaussian_filter(image, 0.7) + 100 + rng.normal(0, 5, shape).astype(np.float32)


def _regions(array, axes=None, side=48, channels=1, restore=None):
    return sharp_regions(Field.of(source("layer", array, axes), channels), side, restore)


def _holds(plane, pixels):
    windows = np.lib.stride_tricks.sliding_window_view(plane, pixels.shape)
    return bool((windows == pixels).all((-2, -1)).any())


def test_the_sharp_part_of_an_image_is_the_sharp_side():
    sharp = _edges((144, 288))
    half = np.hstack([sharp[:, :144], gaussian_filter(sharp, 6)[:, 144:]])
    found = _regions(half)
    assert found.sharp
    assert found.edge_px < 1.5
    assert "regions of the image" in found.note
    assert 5 <= len(found.train) <= 40
    blurred = Field.of(source("layer", half), 1).plane(0)[0][:, 150:]
    for region in found.train:
        assert np.abs(np.diff(region.pixels)).max() > 2 * np.abs(np.diff(blurred)).max()


def test_how_wide_edges_are_is_said_in_words_where_they_are_too_narrow_to_tell():
    found = _regions(_edges((144, 288)))
    assert "edges are less than half a pixel wide" in replace(found, edge_px=0.04).note
    assert "edges are about 1.3 pixels wide" in replace(found, edge_px=1.31).note


def test_the_planes_in_focus_are_found_in_a_stack():
    sharp = _edges((96, 120))
    stack = np.stack([gaussian_filter(sharp, sigma) for sigma in (5, 1e-3, 5)])
    found = _regions(stack, "ZYX")
    field = Field.of(source("layer", stack, "ZYX"), 1)
    assert found.sharp
    for region in found.train:
        height, width = region.pixels.shape
        places = [(y, x) for y in range(0, 96 - height + 1) for x in range(0, 120 - width + 1)]
        assert any(np.array_equal(field.read(1, y, x, height, width)[0], region.pixels) for y, x in places)


def test_where_nothing_is_sharp_the_image_is_its_own_target_and_the_note_says_so():
    found = _regions(gaussian_filter(_edges((96, 240)), 6))
    assert not found.sharp
    assert found.edge_px > 2
    assert "Nothing in the image is sharp" in found.note
    assert "blurred once more" in found.note
    assert len(found.train) > 1
    assert found.held_out


def test_where_nothing_is_sharp_a_model_makes_the_sharp_side_of_the_sharpest_regions():
    sharp = _edges((144, 192))
    stack = np.stack([gaussian_filter(sharp, sigma) for sigma in (16, 5, 16)])
    read = []

    def restore(pixels):
        read.append(pixels)
        return 10 + pixels

    found = _regions(stack, "ZYX", restore=restore)
    field = Field.of(source("layer", stack, "ZYX"), 1)
    assert (found.sharp, found.restored) == (False, True)
    assert "as the model restores them" in found.note
    assert 1 < len(found.train) <= 48
    assert found.held_out
    plane = field.plane(1)[0] + 10
    nearest = [_holds(plane, region.pixels) for region in found.train]
    assert sum(nearest) > 0.8 * len(nearest)  # the plane nearest to focus, and hardly any part of another
    assert all(pixels.shape[1] > 48 for pixels in read)  # with what lies around them


def test_what_a_model_sees_around_a_region_ends_where_the_held_out_part_begins():
    blurred = gaussian_filter(_edges((96, 240)), 6)
    blurred[:, 192:] += 1e4
    seen = []

    def restore(pixels):
        seen.append((pixels.min(), pixels.max()))
        return pixels

    found = _regions(blurred, restore=restore)
    step = Field.of(source("layer", blurred), 1).plane(0)[0]
    middle = (step[:, :192].max() + step[:, 192:].min()) / 2
    assert found.restored
    assert {low > middle for low, _ in seen} == {True, False}
    assert not any(low < middle < high for low, high in seen)


def test_where_the_image_is_sharp_no_model_is_asked():
    assert not _regions(_edges((144, 240)), restore=lambda pixels: pytest.fail("restored")).restored


def test_noise_is_not_sharp():
    with pytest.raises(TrainingError, match="nothing in it stands out of the noise"):
        _regions(np.random.default_rng(0).normal(100, 10, (96, 240)))


def test_what_is_held_out_is_not_trained_on():
    array = _edges((80, 240))
    array[:, 192:] += 1e4
    found = _regions(array)
    assert min(region.pixels.min() for region in found.held_out) > max(region.pixels.max() for region in found.train)


def test_colours_stay_together():
    colour = np.stack([_edges((96, 144))] * 3, -1)
    found = _regions(colour, "YXS", channels=3)
    assert all(region.pixels.shape[0] == 3 for region in [*found.train, *found.held_out])


@pytest.mark.parametrize("shape", [(40, 200), (60, 60)])
def test_an_image_too_small_for_a_patch_is_refused(shape):
    with pytest.raises(TrainingError, match="layer is too small"):
        _regions(spots(shape), side=48)
