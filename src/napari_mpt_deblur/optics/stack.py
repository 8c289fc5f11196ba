"""Synthetic focus stacks: what a microscope would record of a flat sample while its focus moves through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.optics.camera import Camera
from napari_mpt_deblur.optics.psf import Microscope, blur, defocus_psf


@dataclass(frozen=True, eq=False)
class FocusStack:
    """A focus stack with its truth.

    Attributes
    ----------
    sharp : ndarray
        (Y, X) float32, the image that was defocused.
    stack : ndarray
        (Z, Y, X), what the camera recorded.
    defocus_um : tuple of float
        Distance of each plane from focus.
    microscope : Microscope
    """

    sharp: np.ndarray
    stack: np.ndarray
    defocus_um: tuple[float, ...]
    microscope: Microscope

    @property
    def pixel_size_um(self) -> float:
        return self.microscope.pixel_size_um

    @property
    def z_step_um(self) -> float:
        return abs(self.defocus_um[1] - self.defocus_um[0]) if len(self.defocus_um) > 1 else 1.0


def focus_stack(
    sharp: np.ndarray,
    defocus_um: Sequence[float],
    microscope: Microscope,
    camera: Camera | None = None,
    *,
    seed: int = 0,
) -> FocusStack:
    """Defocus a sharp image to a stack.

    Parameters
    ----------
    sharp : ndarray
        (Y, X), any real dtype, grey levels.
    defocus_um : sequence of float
        Distance of each plane from focus.
    microscope : Microscope
    camera : Camera, optional
        Adds noise; without one the stack is free of it.
    seed : int
        Of the noise.

    Returns
    -------
    FocusStack
        Its stack has the dtype of `sharp`: rounded and clipped for whole numbers.

    Raises
    ------
    ParameterError
        If the image is not two-dimensional or there is no plane.
    """
    sharp = np.asarray(sharp)
    if sharp.ndim != 2 or not len(defocus_um):
        raise ParameterError("A focus stack needs one two-dimensional image and at least one defocus.")
    rng = np.random.default_rng(seed)
    planes = []
    for z in defocus_um:
        plane = blur(sharp, defocus_psf(microscope, z))
        planes.append(plane if camera is None else camera.record(plane, rng))
    stack = np.stack(planes)
    if np.issubdtype(sharp.dtype, np.integer):
        limits = np.iinfo(sharp.dtype)
        stack = np.clip(np.rint(stack), limits.min, limits.max)
    return FocusStack(sharp.astype(np.float32), stack.astype(sharp.dtype), tuple(map(float, defocus_um)), microscope)
