"""Current plane, part in view, drawn boxes and the place of a result, against napari's own transforms."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.axes import Axes
from napari_mpt_deblur.widgets import geometry

ZYX = Axes("ZYX")
TRANSFORMS = [
    {"scale": (2.0, 0.5, 0.5), "translate": (5.0, -7.0, 3.0)},
    {"scale": (2.0, 0.5, 0.25), "rotate": (0, 0, 30)},
    {"scale": (1.0, -0.5, 0.5), "translate": (0, 4, 5)},
    {"scale": (3.0, 1.0, 2.0), "shear": (0.1, 0.2, 0.3)},
    {"scale": (3.0, 1.0, 2.0), "rotate": (10, 20, 30), "shear": (0.1, 0.2, 0.3), "translate": (1, 2, 3)},
    {
        "scale": (2.0, 1.0, 1.0),
        "translate": (1, 2, 3),
        "rotate": (0, 0, 15),
        "affine": np.array([[1, 0, 0, 9], [0, 0, 2, -4], [0, -1, 0.5, 6], [0, 0, 0, 1.0]]),
    },
]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_cropped_copy_lies_where_its_pixels_were(transform):
    data = np.random.default_rng(0).random((4, 20, 30))
    source = Image(data, **transform)
    offset = (2, 5, 11)
    _, state, _ = source.as_layer_data_tuple()
    state["translate"] = geometry.place(source, offset)
    crop = Image(data[2:3, 5:15, 11:26], **state)
    for pixel in ((0, 0, 0), (0, 9, 14), (0, 3.25, 7.5)):
        np.testing.assert_allclose(crop.data_to_world(pixel), source.data_to_world(np.add(pixel, offset)), atol=1e-9)


def test_placing_ignores_the_samples_of_an_rgb_layer():
    source = Image(np.zeros((8, 9, 3), np.uint8), rgb=True, scale=(2, 3))
    np.testing.assert_allclose(geometry.place(source, (1, 2, 0)), (2, 6))


@pytest.mark.parametrize("step", [0, 2, 3])
def test_current_index_follows_the_slider(step):
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((4, 8, 9)), scale=(2.5, 1, 1), translate=(100, 0, 0))
    viewer.dims.set_current_step(0, step)
    assert geometry.current_index(viewer, layer, ZYX) == (step,)


def test_current_index_of_a_layer_with_fewer_axes_than_the_viewer_and_beyond_its_end():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((2, 9, 8, 9)))
    layer = viewer.add_image(np.zeros((4, 8, 9)))
    viewer.dims.set_current_step((0, 1), (1, 3))
    assert geometry.current_index(viewer, layer, ZYX) == (3,)
    viewer.dims.set_current_step(1, 8)
    assert geometry.current_index(viewer, layer, ZYX) == (3,)  # its last plane
    flat = viewer.add_image(np.zeros((8, 9)))
    assert geometry.current_index(viewer, flat, Axes("YX")) == ()


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_current_index_is_the_plane_that_napari_shows(transform):
    viewer = ViewerModel()
    data = np.broadcast_to(np.arange(8.0)[:, None, None], (8, 20, 30))
    layer = viewer.add_image(data, **transform)
    shown = []
    for step in range(int(viewer.dims.nsteps[0])):
        viewer.dims.set_current_step(0, step)
        seen = np.unique(layer._slice.image.raw)
        if seen.size == 1 and seen[0] > 0:  # one plane of the layer, and none beyond its ends
            assert geometry.current_index(viewer, layer, ZYX) == (int(seen[0]),)
            shown.append(int(seen[0]))
    assert len(set(shown)) > 2


def test_current_index_where_layers_have_different_units():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((5, 8, 9)), scale=(2, 0.5, 0.5), units="um")
    viewer.add_image(np.zeros((5, 8, 9)), scale=(2000, 500, 500), units="nm")
    viewer.dims.set_current_step(0, 3)
    assert geometry.current_index(viewer, layer, ZYX) == (3,)


def look_at(viewer, center, zoom):
    viewer.canvas.size = (200, 400)  # height, width
    viewer.scene.camera.center = center
    viewer.scene.camera.zoom = zoom


def test_box_in_view_is_what_the_camera_shows():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 100, 300)), scale=(1, 0.5, 0.5))
    look_at(viewer, (0, 25, 75), zoom=10)  # 20 x 40 world units = 40 x 80 pixels around pixel (50, 150)
    assert geometry.box_in_view(viewer, layer, ZYX) == (30, 110, 71, 191)
    look_at(viewer, (0, 0, 0), zoom=10)  # the corner: cut off at the image's edge
    assert geometry.box_in_view(viewer, layer, ZYX) == (0, 0, 21, 41)


def test_box_in_view_of_a_rotated_layer_covers_the_view():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((400, 400)), rotate=90)
    center = np.asarray(layer.data_to_world((100, 200)))
    look_at(viewer, (0, *center), zoom=10)  # 20 x 40 world units, turned by 90 degrees: 40 x 20 pixels
    assert geometry.box_in_view(viewer, layer, Axes("YX")) == (80, 190, 121, 211)


def test_whole_planes_where_no_box_can_be_seen():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 100, 300)))
    look_at(viewer, (0, -900, 0), zoom=10)  # nothing of it in view
    assert geometry.box_in_view(viewer, layer, ZYX) is None
    look_at(viewer, (0, 50, 50), zoom=10)
    assert geometry.box_in_view(viewer, layer, ZYX) is not None
    viewer.dims.order = (1, 0, 2)  # Z and X on the canvas
    assert geometry.box_in_view(viewer, layer, ZYX) is None
    viewer.dims.order = (0, 2, 1)  # transposed: still Y and X
    assert geometry.box_in_view(viewer, layer, ZYX) is not None
    viewer.dims.ndisplay = 3
    assert geometry.box_in_view(viewer, layer, ZYX) is None


def test_box_of_the_shape_drawn_last_or_of_the_selected_ones():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 100, 300)), scale=(1, 0.5, 0.5))
    shapes = viewer.add_shapes(ndim=2)
    with pytest.raises(ParameterError, match="No shape is drawn"):
        geometry.box_of_shape(viewer, layer, ZYX)
    shapes.add_rectangles([[5, 10], [20, 30]])
    shapes.add_ellipses([[25, 40], [25, 60], [30, 60], [30, 40]])
    shapes.selected_data = set()
    assert geometry.box_of_shape(viewer, layer, ZYX) == (50, 80, 61, 121)  # the ellipse, in pixels of half a unit
    shapes.selected_data = {0}
    assert geometry.box_of_shape(viewer, layer, ZYX) == (10, 20, 41, 61)
    shapes.selected_data = {0, 1}
    assert geometry.box_of_shape(viewer, layer, ZYX) == (10, 20, 61, 121)


def test_a_shape_outside_the_image_is_refused_and_one_across_its_edge_cut():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((100, 300)), name="cells")
    shapes = viewer.add_shapes([[-20, -30], [10, 40]], shape_type="rectangle")
    assert geometry.box_of_shape(viewer, layer, Axes("YX")) == (0, 0, 11, 41)
    shapes.data = [np.array([[200, 10], [200, 40], [240, 40], [240, 10]])]
    with pytest.raises(ParameterError, match="outside 'cells'"):
        geometry.box_of_shape(viewer, layer, Axes("YX"))


def test_box_of_a_shape_in_other_units():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((100, 300)), scale=(0.5, 0.5), units="um")
    viewer.add_shapes([[5000, 10000], [20000, 30000]], shape_type="rectangle", units="nm")
    assert geometry.box_of_shape(viewer, layer, Axes("YX")) == (10, 20, 41, 61)


@pytest.mark.parametrize("transform", TRANSFORMS[:3])
def test_look_at_goes_to_the_plane_and_the_place(transform):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((2, 4, 20, 30)))
    layer = viewer.add_image(np.zeros((4, 20, 30)), **transform)
    viewer.dims.set_point(0, 1)
    geometry.look_at(viewer, layer, (2, 7, 12))
    world = layer.data_to_world((2, 7, 12))
    assert viewer.dims.point[1] == pytest.approx(world[0], abs=0.51)  # the sliders of two layers share their steps
    assert viewer.dims.point[0] == 1
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], world[1:])


def test_look_at_leaves_an_axis_where_it_stands_and_speaks_the_viewer_s_units():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((4, 20, 30)), scale=(2, 0.5, 0.5), units="um")
    layer = viewer.add_image(np.zeros((4, 20, 30)), scale=(2000, 500, 500), units="nm")
    viewer.dims.set_current_step(0, 3)
    point = viewer.dims.point
    geometry.look_at(viewer, layer, (None, 10, 20))
    assert viewer.dims.point == point
    unit = viewer.dims.units[-1]
    center = [float((value * unit).to("um").magnitude) for value in viewer.scene.camera.center[-2:]]
    assert center == pytest.approx([5, 10])


def test_look_at_zooms_in_on_what_is_small_and_never_out():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((200, 300)), scale=(0.5, 0.5))
    viewer.scene.camera.zoom = 1
    geometry.look_at(viewer, layer, (50, 60), size_px=10)
    assert viewer.scene.camera.zoom == pytest.approx(8)  # 5 world units on 40 canvas pixels
    viewer.scene.camera.zoom = 30
    geometry.look_at(viewer, layer, (50, 60), size_px=10)
    assert viewer.scene.camera.zoom == 30


@pytest.mark.parametrize("units", [("um", "um"), ("nm", "nm")])
def test_layers_with_fewer_axes_than_the_viewer_are_fitted_as_napari_fits_them(units):
    scale = (0.5, 0.25) if units[0] == "um" else (500, 250)
    alone, beside = ViewerModel(), ViewerModel()
    for viewer in (alone, beside):
        viewer.add_image(np.zeros((20, 30)), scale=scale, translate=np.multiply(scale, 10), units=units, name="image")
        viewer.canvas.size = (300, 400)
    beside.add_image(np.zeros((4, 999, 999)), scale=(1, 3, 3), units=("um", "um", "um"))
    geometry.fit(alone, [alone.layers["image"]])  # by napari itself
    geometry.fit(beside, [beside.layers["image"]])
    factor = float((1 * alone.dims.units[-1]).to(beside.dims.units[-1]).magnitude)
    np.testing.assert_allclose(beside.scene.camera.center[-2:], np.multiply(alone.scene.camera.center[-2:], factor))
    assert beside.scene.camera.zoom == pytest.approx(alone.scene.camera.zoom / factor)
