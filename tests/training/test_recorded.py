"""Pairs that were recorded: two images of a field, and stacks through focus."""

import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from training.small import SIDE, small_config, source, spots

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.images import measure_normalization
from napari_mpt_deblur.training.fields import Field
from napari_mpt_deblur.training.recorded import focus_pairs, recorded_pairs

PLAIN = small_config(scaled=0.0)


def _field(name, array, axes=None, **options):
    return Field.of(source(name, array, axes), 1, **options)


def _draw(pairs, count=12, side=SIDE):
    blurred, sharp = pairs.batch(0, count, side)
    return blurred.numpy(), sharp.numpy()


def test_both_sides_are_cut_at_one_place_and_depend_on_the_number_alone():
    array = spots((60, 64))
    field = _field("a", array)
    pairs, _, notes = recorded_pairs([field], [_field("b", array)], PLAIN, 1)
    blurred, sharp = _draw(pairs)
    np.testing.assert_allclose(blurred, sharp, atol=1e-6)
    assert notes == []
    again, _, _ = recorded_pairs([field], [_field("b", array)], PLAIN, 1)
    again.batch(5, 2, SIDE)
    np.testing.assert_array_equal(again.batch(3, 1, SIDE)[0], pairs.batch(3, 1, SIDE)[0])
    np.testing.assert_array_equal(pairs.batch(3, 1, SIDE)[0], blurred[3:4])
    other, _, _ = recorded_pairs([field], [field], small_config(scaled=0.0, seed=1), 1)
    assert (_draw(other)[0] != blurred).any()


def test_values_are_those_that_the_deblurrer_gives_its_network():
    array = spots((60, 64))
    field = _field("a", array, rule=(2.0, 99.0))
    low, high = np.percentile(array, (2, 99))
    np.testing.assert_allclose(field.plane(0)[0], (array - low) / (high - low), rtol=1e-5)
    assert field.normalization == measure_normalization(field.view, (2.0, 99.0))


def test_a_shift_is_undone_and_told():
    sharp = spots((70, 72), sigma=2)
    blurred = gaussian_filter(shift(sharp, (3.4, -2.0), order=3, mode="reflect"), 1)
    pairs, held, notes = recorded_pairs([_field("a", blurred)], [_field("b", sharp)], PLAIN, 1)
    assert len(notes) == 1
    assert re.fullmatch(r"a was registered to its sharp image by up to 3\.[345] pixels\.", notes[0])
    mine, theirs = _draw(pairs)
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.97
    assert all(area.y0 >= 4 and area.x0 >= 4 and area.y1 <= 66 for area in [*pairs.areas, *held])


def test_the_sharp_side_has_the_blurred_sides_grey_levels():
    """Percentiles of a blurred image are not those of the sharp one: grey levels are compared, not they."""
    sharp = spots((80, 84), sigma=1.2)
    blurred = gaussian_filter(sharp, 2.5)
    first = _field("a", blurred)
    pairs, _, _ = recorded_pairs([first], [_field("b", sharp)], PLAIN, 1)
    low, high = first.normalization.low[0], first.normalization.high[0]
    _, patches = _draw(pairs, 40)
    grey = patches * (high - low) + low
    assert grey.max() == pytest.approx(sharp.max(), rel=0.1)  # not what the blurred image's brightest pixel is
    assert grey.max() > 1.5 * blurred.max()


def test_one_sharp_plane_serves_all_planes_of_a_stack():
    sharp = spots((60, 64))
    stack = np.stack([gaussian_filter(sharp, sigma) for sigma in (2, 1, 0.5)])
    pairs, _, _ = recorded_pairs([_field("a", stack, "ZYX")], [_field("b", sharp)], PLAIN, 1)
    assert {area.group for area in pairs.areas} == {0, 1, 2}
    _, patches = _draw(pairs, 4)
    assert np.isfinite(patches).all()


@pytest.mark.parametrize(
    ("blurred", "sharp", "message"),
    [
        ((60, 64), (60, 60), r"a and b differ in size \(60 x 64 and 60 x 60 pixels\)"),
        ((4, 60, 64), (3, 60, 64), r"a and b differ in planes \(4 and 3\)"),
        ((1, 20, 20), (1, 20, 20), "too small: beside a patch of 16"),
        ((1, 12, 64), (1, 12, 64), r"a is too small: it is 12 x 64 pixels, a patch 16 x 16"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_by_name(blurred, sharp, message):
    fields = [
        _field(name, np.broadcast_to(spots(shape[-2:]), shape).copy()) for name, shape in (("a", blurred), ("b", sharp))
    ]
    with pytest.raises(TrainingError, match=message):
        recorded_pairs(fields[:1], fields[1:], PLAIN, 1)


def test_what_is_held_out_is_never_drawn():
    """The held-out strip is marked; no patch shows the mark, and all held-out parts do."""
    array = spots((80, 40))
    marked = array.copy()
    marked[64:] += 1e5  # a fifth of the longer side
    field = _field("a", marked)
    pairs, held, _ = recorded_pairs([field], [field], small_config(), 1)
    highest = (array.max() - field.normalization.low[0]) / (field.normalization.high[0] - field.normalization.low[0])
    assert _draw(pairs, 200)[0].max() < 1.2 * highest
    parts = pairs.held_out(held, 6, SIDE)
    assert len(parts) == 6
    assert min(float(blurred.min()) for blurred, _ in parts) > 1.2 * highest


def test_of_several_images_some_are_held_out_whole():
    fields = [_field(str(number), spots((40, 40), number)) for number in range(6)]
    pairs, held, _ = recorded_pairs(fields, fields, PLAIN, 1)
    assert {area.field for area in held} == {4}
    assert {area.field for area in pairs.areas} == {0, 1, 2, 3, 5}


def test_of_a_stack_of_small_planes_some_planes_are_held_out():
    field = _field("a", np.stack([spots((20, 20), number) for number in range(3)]), "TYX")
    pairs, held, _ = recorded_pairs([field], [field], PLAIN, 1)
    assert {area.group for area in held} == {2}
    assert {area.group for area in pairs.areas} == {0, 1}


@pytest.fixture(scope="module")
def tilted():
    """A field whose left half is sharp in plane 1 and whose right half is sharp in plane 3, of five."""
    sharp = spots((64, 128), sigma=1)
    stack = np.stack(
        [
            np.hstack(
                [
                    gaussian_filter(sharp, 1e-3 + 1.2 * abs(z - middle))[:, cut]
                    for middle, cut in ((1, np.s_[:64]), (3, np.s_[64:]))
                ]
            )
            for z in range(5)
        ]
    )
    return stack


def test_the_sharpest_plane_is_found_for_each_part_of_a_stack(tilted):
    pairs, _, _ = focus_pairs([_field("s", tilted, "ZYX")], PLAIN, 1)
    for area in pairs.areas:
        for x, best in ((0, 1), (24, 1), (72, 3), (100, 3)):
            assert pairs.match(area._replace(y0=8, y1=40, x0=x, x1=x + 28)).group == best
    assert {area.group for area in pairs.areas} == set(range(5))


def test_planes_that_are_sharp_themselves_are_not_validated_on(tilted):
    pairs, held, _ = focus_pairs([_field("s", tilted, "ZYX")], PLAIN, 1)
    parts = pairs.held_out(held, 10, SIDE)
    assert 0 < len(parts) < 10
    assert all((blurred != sharp).any() for blurred, sharp in parts)


def test_a_stack_that_drifts_is_registered():
    sharp = spots((72, 72), sigma=2)
    stack = np.stack(
        [
            shift(gaussian_filter(sharp, 0.8 * abs(z - 1)), (2.0 * (z - 1), -1.0 * (z - 1)), order=3, mode="reflect")
            for z in range(4)
        ]
    )
    pairs, held, notes = focus_pairs([_field("s", stack, "ZYX")], PLAIN, 1)
    assert len(notes) == 1
    assert "registered" in notes[0]
    found = {area.group: pairs.match(area) for area in pairs.areas}
    for z, match in found.items():
        assert match.group == 1
        np.testing.assert_allclose((match.dy, match.dx), (-2.0 * (z - 1), 1.0 * (z - 1)), atol=0.3)
    assert all(area.y0 >= 4 and area.y1 <= 68 for area in [*pairs.areas, *held])


def test_each_channel_and_time_has_a_stack_of_its_own():
    sharp = spots((40, 40))
    rising, falling = (
        np.stack([gaussian_filter(sharp, 1e-3 + sigma) for sigma in sigmas]) for sigmas in ((0, 1, 2), (2, 1, 0))
    )
    pairs, _, _ = focus_pairs([_field("s", np.stack([rising, falling]), "CZYX")], PLAIN, 1)
    assert {area.group: pairs.match(area).group for area in pairs.areas} == {0: 0, 1: 0, 2: 0, 3: 5, 4: 5, 5: 5}


@pytest.mark.parametrize(("shape", "axes"), [((40, 40), "YX"), ((3, 40, 40), "TYX"), ((1, 40, 40), "ZYX")])
def test_what_is_no_stack_through_focus_is_refused(shape, axes):
    with pytest.raises(TrainingError, match=r"s is no stack through focus"):
        focus_pairs([_field("s", np.broadcast_to(spots((40, 40)), shape).copy(), axes)], PLAIN, 1)
