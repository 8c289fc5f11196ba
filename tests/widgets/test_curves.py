"""What the plot of a training draws: the history, thinned; and axes with round ticks."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from napari_mpt_deblur.training.events import Estimate, Losses, Scores, Started, Step
from napari_mpt_deblur.widgets.plot import Axis
from napari_mpt_deblur.widgets.train.curves import Curves

BEFORE = Scores(0, 24.0, 20.0, 0.8, 0.7)


def curves_of(values, began=0, every=0):
    curves = Curves.of(Started(began, 1000, BEFORE, Estimate(1, 1, 1), (), "cpu", "float32"))
    for number, value in enumerate(values, start=began + 1):
        scores = Scores(number, 25.0, 20.0, 0.8, 0.7) if every and number % every == 0 else None
        curves.add(Step(number, Losses(value, value / 2), 1e-4, scores))
    return curves


def test_few_points_are_drawn_as_they_are_and_terms_that_are_not_there_not_at_all():
    curves = curves_of([3.0, 2.0, 1.0])
    assert curves.loss("total", 10) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert curves.loss("pixel", 10) == [(1, 1.5), (2, 1.0), (3, 0.5)]
    assert curves.loss("extra", 10) == ()
    assert not curves.is_empty


def test_many_points_are_means_of_neighbours():
    assert curves_of(range(1, 9)).loss("total", 4) == [(1.5, 1.5), (3.5, 3.5), (5.5, 5.5), (7.5, 7.5)]
    points = curves_of(np.ones(1000)).loss("total", 33)
    assert len(points) == 33
    assert all(value == 1 for _, value in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_validations_begin_with_that_before_training_unless_the_run_goes_on():
    assert curves_of(range(4), every=2).psnr == [(0, 24.0), (2, 25.0), (4, 25.0)]
    resumed = curves_of(range(4), began=10, every=2)
    assert resumed.psnr == [(12, 25.0), (14, 25.0)]
    assert (resumed.began, resumed.before) == (10, BEFORE)


def test_ticks_are_round():
    assert Axis.around((0, 500), most_ticks=5).ticks == (0, 100, 200, 300, 400, 500)
    axis = Axis.around((24.1, 26.0), most_ticks=4)
    assert [axis.words(tick) for tick in axis.ticks] == ["24.5", "25.0", "25.5", "26.0"]


def test_terms_that_differ_by_decades_have_a_logarithmic_axis():
    assert not Axis.around((0.02, 0.03), most_ticks=5, by_decades=True).logarithmic
    assert not Axis.around((0.0, 3.0), most_ticks=5, by_decades=True).logarithmic  # 0 has no logarithm
    axis = Axis.around((0.003, 2.0), most_ticks=5, by_decades=True)
    assert axis.logarithmic
    assert [axis.words(tick) for tick in axis.ticks] == ["0.01", "0.1", "1"]
    assert axis.share(math.sqrt(0.003 * 2.0)) == pytest.approx(0.5)
    narrow = Axis.around((0.02, 0.5), most_ticks=5, by_decades=True)
    assert [narrow.words(tick) for tick in narrow.ticks] == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    wide = Axis.around((1e-9, 1e3), most_ticks=5, by_decades=True)
    assert len(wide.ticks) <= 5
    assert wide.words(1e-9) == "1e-9"


@example([1.0, 5e-324], 2, True, 0)
@example([0.0, 5e-324], 2, False, 0)
@given(st.lists(st.floats(-1e12, 1e12), max_size=5), st.integers(2, 6), st.booleans(), st.sampled_from([0, 0.1]))
def test_any_values_have_an_axis_that_holds_them(values, most, by_decades, margin):
    axis = Axis.around(values, most_ticks=most, by_decades=by_decades, margin=margin)
    assert axis.low < axis.high
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)
    assert all(-1e-6 <= axis.share(tick) <= 1 + 1e-6 for tick in axis.ticks)
    assert all(axis.words(tick) for tick in axis.ticks)


def test_what_is_not_finite_is_left_out():
    axis = Axis.around((1.0, math.nan, math.inf, 2.0), most_ticks=4)
    assert (axis.low, axis.high) == (1.0, 2.0)
