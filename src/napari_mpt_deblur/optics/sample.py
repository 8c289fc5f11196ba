"""The sample that the viewer, the demo and the tests share: real nuclei, in focus and out of it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from skimage.restoration import denoise_nl_means, estimate_sigma
from tifffile import imread

from napari_mpt_deblur.errors import FileError
from napari_mpt_deblur.optics.camera import Camera
from napari_mpt_deblur.optics.psf import Microscope
from napari_mpt_deblur.optics.stack import FocusStack, focus_stack

_OFFSET = 100.0
_GREY_LEVELS = 8.0  # of the camera for one of the 8-bit image: about 1500 photo-electrons at the brightest


@cache
def sample_focus_stack() -> FocusStack:
    """A focus stack made from the real nuclei image that the stardist package ships.

    Seven planes from -12 to 12 um at NA 0.5 and 0.65 um a pixel (a nominal size: the image's own is not recorded),
    with photon and read-out noise. The noise that the image itself holds is removed first (non-local means): it is
    not part of the scene that a microscope would defocus. The image is part of the Data Science Bowl 2018 (Caicedo et
    al. 2019); the bundled model was not trained on it.

    Returns
    -------
    FocusStack
        `stack` is (7, 512, 512) uint16.

    Raises
    ------
    FileError
        If the stardist package, or its image, is not there.
    """
    spec = find_spec("stardist")  # found without importing it, which would load numba
    path = Path(spec.origin).parent / "data" / "images" / "img2d.tif" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise FileError("The sample image comes with the stardist package: pip install stardist.")
    image = imread(path).astype(np.float32)
    noise = estimate_sigma(image)
    scene = denoise_nl_means(image, h=0.8 * noise, sigma=noise, patch_size=5, patch_distance=6)
    sharp = np.rint(scene * _GREY_LEVELS + _OFFSET).astype(np.uint16)
    camera = Camera(gain=1.0, read_noise=4.0, offset=_OFFSET)
    defocus_um = tuple(float(z) for z in np.linspace(-12, 12, 7))
    return focus_stack(sharp, defocus_um, Microscope(pixel_size_um=0.65), camera)
