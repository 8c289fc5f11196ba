"""The result is a layer like its source, at its source's place, with a record."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mpt_deblur.widgets.deblur.request import DeblurRequest, Scope, Settings, make_request
from napari_mpt_deblur.widgets.result import result_layer

from .conftest import Restored

RECORD = {"model": "nuclei", "device": "cpu", "seconds": 1.0}


def restore(viewer, layer, array=None, **settings):
    request = make_request(viewer, Settings(layer=layer, model="nuclei", **settings), 1, preview=False)
    array = np.zeros(request.shape, request.data.dtype) if array is None else array
    return request, result_layer(layer, Restored(array, dict(RECORD)), request, "result")


def test_everything_that_is_seen_is_kept():
    viewer = ViewerModel()
    kept = {
        "scale": (2, 0.5, 0.25),
        "translate": (1, 2, 3),
        "rotate": (0, 0, 20),
        "shear": (0, 0, 0.1),
        "affine": np.diag([1, 2, 2, 1.0]),
        "units": ("um", "um", "um"),
        "axis_labels": ("z", "y", "x"),
        "colormap": "magma",
        "blending": "additive",
        "opacity": 0.6,
        "gamma": 0.7,
        "interpolation2d": "cubic",
        "rendering": "minip",
        "contrast_limits": (10, 900),
    }
    data = np.random.default_rng(0).integers(0, 4000, (3, 20, 30)).astype(np.uint16)
    layer = viewer.add_image(data, **kept)
    layer.contrast_limits_range = (0, 5000)
    _, result = restore(viewer, layer)
    _, before, _ = layer.as_layer_data_tuple()
    _, after, _ = result.as_layer_data_tuple()
    for key in set(before) - {"name", "metadata", "locked_data_level"}:
        np.testing.assert_equal(after[key], before[key], err_msg=key)
    assert tuple(result.contrast_limits_range) == (0, 5000)
    np.testing.assert_allclose(result.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3)))
    assert result.metadata == {"mpt_deblur": {"source": layer.name, **RECORD}}


def test_contrast_stays_that_of_the_source_even_where_napari_would_set_it_anew():
    viewer = ViewerModel()
    layer = viewer.add_image(np.linspace(0, 1, 600).reshape(20, 30), contrast_limits=(0.25, 0.75))
    layer.auto_contrast = True
    limits = list(layer.contrast_limits)
    _, result = restore(viewer, layer, np.full((20, 30), 5.0))
    assert list(result.contrast_limits) == limits
    assert not result.auto_contrast


def test_rgb_stays_rgb():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((4, 20, 30, 4), np.uint8), rgb=True, scale=(1, 2, 3))
    viewer.dims.set_current_step(0, 1)
    request, result = restore(viewer, layer, scope=Scope.PLANE)
    assert request.shape == (1, 20, 30, 4)
    assert result.rgb
    np.testing.assert_allclose(result.translate, (1, 0, 0))


def test_an_image_read_as_rgb_that_napari_shows_as_a_stack_keeps_its_shape():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((20, 30, 3), np.uint16), rgb=False)
    request, result = restore(viewer, layer, axes="YXS")
    assert request.axes.text == "YXS"
    assert result.data.shape == (20, 30, 3)
    assert not result.rgb


def test_a_pyramid_gives_a_plain_layer_of_its_finest_level():
    viewer = ViewerModel()
    levels = [np.zeros((64, 80), np.float32), np.zeros((32, 40), np.float32)]
    layer = viewer.add_image(levels, multiscale=True, scale=(0.5, 0.5))
    request, result = restore(viewer, layer)
    assert request.data is levels[0]
    assert not result.multiscale
    assert result.data.shape == (64, 80)


def test_a_result_without_its_promised_size_is_refused():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((64, 80)))
    with pytest.raises(ValueError, match="reshape"):
        restore(viewer, layer, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("axes", "plane", "region", "offset", "shape"),
    [
        ("TZYX", None, None, (0, 0, 0, 0), (2, 3, 20, 30)),
        ("TZYX", (1, 2), None, (1, 2, 0, 0), (1, 1, 20, 30)),
        ("TZYX", None, (4, 5, 10, 20), (0, 0, 4, 5), (2, 3, 6, 15)),
        ("TZYX", (1, 2), (4, 5, 10, 20), (1, 2, 4, 5), (1, 1, 6, 15)),
        ("ZYXS", (1,), (1, 2, 3, 4), (1, 1, 2, 0), (1, 2, 2, 30)),
        ("YX", (), None, (0, 0), (2, 3)),
    ],
)
def test_offset_and_shape(axes, plane, region, offset, shape):
    from napari_mpt_deblur.images.axes import Axes

    data = np.zeros((2, 3, 20, 30)[: len(axes)], np.uint8)
    request = DeblurRequest(1, "cells", data, Axes(axes), None, None, "m", "auto", "auto", None, plane, region)
    assert request.offset_px == offset
    assert request.shape == shape
