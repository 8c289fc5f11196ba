"""What an image is: its axes, planes, intensities and physical size; reading and writing files. No torch."""

from napari_mpt_deblur.images.atomic import atomic_path, check_writable
from napari_mpt_deblur.images.axes import Axes, resolve_axes
from napari_mpt_deblur.images.files import find_images, read_image
from napari_mpt_deblur.images.statistics import Normalization, measure_normalization, undo_to_dtype
from napari_mpt_deblur.images.view import ImageView, PlaneIndex
from napari_mpt_deblur.images.writing import TiffSink, create_image, write_image

__all__ = [
    "Axes",
    "ImageView",
    "Normalization",
    "PlaneIndex",
    "TiffSink",
    "atomic_path",
    "check_writable",
    "create_image",
    "find_images",
    "measure_normalization",
    "read_image",
    "resolve_axes",
    "undo_to_dtype",
    "write_image",
]
