"""How layers are read: axes from labels, shapes and the user's word; pixel sizes through all transforms."""

import numpy as np
import pytest
from napari.layers import Image

from napari_mpt_deblur.errors import AxesError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets.reading import full_resolution, layer_axes, pixel_size_um, readings


@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((8, 9), None, "YX"),
        ((3, 8, 9), None, "ZYX"),
        ((3, 8, 9), ("t", "y", "x"), "TYX"),
        ((3, 8, 9), ("Channel", "Y", "X"), "CYX"),
        ((2, 3, 8, 9), ("z", "c", "y", "x"), "ZCYX"),
        ((3, 8, 9), ("z", "x", "y"), "ZYX"),  # labels that are no reading we know: the shape decides
        ((3, 8, 9), ("rows", "", "x"), "ZYX"),
        ((2, 2, 3, 8, 9), None, "TCZYX"),
    ],
)
def test_axes_come_from_labels_where_they_tell(shape, labels, expected):
    assert layer_axes(Image(np.zeros(shape), axis_labels=labels)).text == expected


def test_rgb_layers_keep_their_samples_last():
    layer = Image(np.zeros((5, 8, 9, 3), np.uint8), rgb=True, axis_labels=("t", "y", "x"))
    assert layer_axes(layer).text == "TYXS"
    assert [axes.text for axes in readings(layer)] == ["ZYXS", "TYXS", "CYXS"]


def test_the_users_word_wins_and_is_checked():
    layer = Image(np.zeros((3, 8, 9)), axis_labels=("z", "y", "x"))
    assert layer_axes(layer, "TYX").text == "TYX"
    with pytest.raises(AxesError):
        layer_axes(layer, "TZYX")


def test_offered_readings_fit_the_layer():
    grey = Image(np.zeros((2, 8, 9, 4), np.uint16), rgb=False)
    assert [axes.text for axes in readings(grey)] == ["TZYX", "CZYX", "ZCYX", "TCYX", "ZYXS", "TYXS", "CYXS"]
    for axes in readings(grey):
        assert layer_axes(grey, axes.text) == axes
    assert readings(Image(np.zeros((1, 1, 1, 1, 8, 9)))) == ()


def test_the_finest_level_of_a_pyramid_is_read():
    levels = [np.zeros((3, 16, 16)), np.zeros((3, 8, 8))]
    assert full_resolution(Image(levels, multiscale=True)).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"scale": (2, 0.5, 0.5), "units": "um"}, 0.5),
        ({"scale": (2000, 650, 650), "units": "nm"}, 0.65),
        ({"scale": (1, 0.4, 0.9), "units": "um"}, 0.6),
        ({"scale": (2, -0.5, 0.5), "units": "um", "rotate": (10, 20, 30)}, 0.5),
        ({"units": "um", "affine": np.diag([1, 0.2, 0.2, 1])}, 0.2),
        ({"scale": (2, 0.5, 0.5)}, None),  # pixels are no length
        ({"scale": (2, 0.5, 0.5), "units": ("s", "um", "um")}, 0.5),
    ],
)
def test_pixel_size(kwargs, expected):
    assert pixel_size_um(Image(np.zeros((3, 8, 9)), **kwargs), Axes("ZYX")) == pytest.approx(expected)
