"""Labels layers lie where their sources do."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mpt_deblur.detection.ledger import ledger
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets.detect.outcome import Found
from napari_mpt_deblur.widgets.detect.request import Picture
from napari_mpt_deblur.widgets.detect.result import labels_layer, shown_fate


def found(labels, axes):
    return Found(labels, axes, ledger(labels, labels).features("before"))


def test_all_transforms_are_the_source_s():
    viewer = ViewerModel()
    kept = {
        "scale": (2, 0.5, 0.25),
        "translate": (1, 2, 3),
        "rotate": (0, 0, 20),
        "shear": (0, 0, 0.1),
        "affine": np.diag([1, 2, 2, 1.0]),
        "units": ("um", "um", "um"),
        "axis_labels": ("z", "y", "x"),
    }
    source = viewer.add_image(np.zeros((3, 20, 30)), **kept)
    labels = np.zeros((3, 20, 30), np.int32)
    labels[1, 4:9, 5:9] = 1
    layer = labels_layer(source, Picture("a", source.data, Axes("ZYX")), found(labels, "ZYX"), None, {"x": 1}).layer
    _, wanted, _ = source.as_layer_data_tuple()
    _, got, _ = layer.as_layer_data_tuple()
    for key in kept:
        np.testing.assert_equal(got[key], wanted[key], err_msg=key)
    assert layer.metadata == {"mpt_deblur": {"x": 1}}
    assert layer.name == "a nuclei"
    assert list(layer.features["area_px"]) == [20]


@pytest.mark.parametrize("plane_index", [None, (1, 0)])
def test_labels_of_channels_together_lie_at_every_channel(plane_index):
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((2, 3, 20, 30)), scale=(5, 1, 1, 1), axis_labels=("t", "c", "y", "x"))
    labels = np.zeros((2, 20, 30) if plane_index is None else (1, 20, 30), np.int32)
    labels[-1, 4:9, 5:9] = 1
    picture = Picture("a", source.data, Axes("TCYX"))
    result = labels_layer(source, picture, found(labels, "TYX"), plane_index, {})
    assert result.layer.data.shape == (len(labels), 3, 20, 30)
    for channel in range(3):
        world = source.data_to_world((1, channel, 5, 6))
        assert result.layer.data[tuple(np.round(result.layer.world_to_data(world)).astype(int))] == 1
    viewer.add_layer(result.layer)
    viewer.dims.set_current_step(1, 2)
    (nucleus,) = ledger(labels, labels).before
    result.go_to(viewer, nucleus)
    assert viewer.dims.current_step[:2] == (1, 2)


def test_rgb_gives_labels_without_colours():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((4, 20, 30, 3), np.uint8), rgb=True, scale=(1, 2, 3))
    labels = np.zeros((1, 20, 30), np.int32)
    labels[0, 4:9, 5:9] = 1
    layer = labels_layer(source, Picture("a", source.data, Axes("ZYXS")), found(labels, "ZYX"), (2,), {}).layer
    assert layer.data.shape == (1, 20, 30)
    np.testing.assert_allclose(layer.translate, (2, 0, 0))


def test_a_gained_nucleus_without_evidence_is_called_unsupported():
    rng = np.random.default_rng(0)
    before = np.zeros((80, 80), int)
    after = before.copy()
    after[10:20, 10:20] = 1
    after[50:60, 50:60] = 2
    raw = rng.normal(100, 5, (80, 80))
    raw[50:60, 50:60] += 40
    assert [shown_fate(nucleus) for nucleus in ledger(before, after, raw).after] == ["unsupported", "gained"]
