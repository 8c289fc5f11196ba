"""Defocus point-spread functions by scalar diffraction, and what they do to a sharp image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import fft, ndimage
from scipy.signal import fftconvolve

from napari_mpt_deblur.errors import ParameterError

# Zernike polynomials on the unit disc, normalised to unit root mean square (Noll 1976); arguments are radius and angle
_ZERNIKE = {
    "astigmatism": lambda r, t: math.sqrt(6) * r**2 * np.cos(2 * t),
    "oblique_astigmatism": lambda r, t: math.sqrt(6) * r**2 * np.sin(2 * t),
    "coma": lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(t),
    "vertical_coma": lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(t),
    "trefoil": lambda r, t: math.sqrt(8) * r**3 * np.cos(3 * t),
    "spherical": lambda r, t: math.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
}
ABERRATIONS = tuple(_ZERNIKE)


@dataclass(frozen=True)
class Microscope:
    """A widefield fluorescence microscope, as far as defocus is concerned.

    Parameters
    ----------
    numerical_aperture : float
    pixel_size_um : float
        In the sample's plane.
    wavelength_um : float
        Emission wavelength in vacuum.
    refractive_index : float
        Of the immersion medium.
    aberrations : dict of str to float
        Zernike coefficients in waves (root mean square), by the names in `ABERRATIONS`.

    Raises
    ------
    ParameterError
        If a value is not physical.
    """

    numerical_aperture: float = 0.5
    pixel_size_um: float = 0.65
    wavelength_um: float = 0.461
    refractive_index: float = 1.0
    aberrations: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("numerical_aperture", "pixel_size_um", "wavelength_um", "refractive_index"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ParameterError(f"{name} must be a positive number; got {value!r}.")
        if self.numerical_aperture >= self.refractive_index:
            raise ParameterError(
                f"The numerical aperture ({self.numerical_aperture}) must be below the refractive index "
                f"({self.refractive_index}) of the immersion medium: 1.0 for air, 1.33 for water, 1.515 for oil."
            )
        unknown = sorted(set(self.aberrations) - set(ABERRATIONS))
        if unknown:
            raise ParameterError(f"Unknown aberration {unknown[0]!r}; known are {', '.join(ABERRATIONS)}.")

    @property
    def blur_per_um(self) -> float:
        """Radius of the geometric defocus disc, in pixels, for one micrometre of defocus."""
        angle = math.asin(self.numerical_aperture / self.refractive_index)
        return math.tan(angle) / self.pixel_size_um

    @property
    def resolution_px(self) -> float:
        """Abbe's resolution limit in pixels."""
        return self.wavelength_um / (2 * self.numerical_aperture) / self.pixel_size_um


def defocus_psf(
    microscope: Microscope, defocus_um: float, *, size_px: int | None = None, centred: bool = False
) -> np.ndarray:
    """Point-spread function of a plane out of focus.

    The intensity of the Fourier transform of a circular pupil whose phase is the exact (not paraxial) defocus
    ``2 pi z sqrt((n / wavelength)^2 - k^2)`` plus Zernike aberrations; computed on a grid fine enough for the optics
    and integrated over the camera's pixels. Goodman, *Introduction to Fourier Optics*, sections 4.2 and 6.4; Hanser
    et al. 2004, J. Microsc. 216, 32-48.

    Parameters
    ----------
    microscope : Microscope
    defocus_um : float
        Distance of the plane from focus; the sign matters only with aberrations.
    size_px : int, optional
        Side of the result, odd. By default wide enough for the defocus disc and its rings.
    centred : bool
        Bring the centroid, which coma moves, to the middle pixel.

    Returns
    -------
    ndarray
        (size_px, size_px) float32, sum 1; its middle is the optical axis, or its centroid.

    Raises
    ------
    ParameterError
        If the defocus is not finite or the size is not odd.
    """
    if not math.isfinite(defocus_um):
        raise ParameterError(f"defocus_um must be a finite number; got {defocus_um!r}.")
    size_px = _default_size(microscope, defocus_um) if size_px is None else size_px
    if size_px < 1 or size_px % 2 == 0:
        raise ParameterError(f"size_px must be odd and positive; got {size_px}.")
    oversampling = _oversampling(microscope)
    # a kernel smaller than the defocus disc shows the middle of a wider field: the disc must not wrap into it
    side = fft.next_fast_len(max(size_px, _default_size(microscope, defocus_um)) * oversampling)
    intensity = np.abs(fft.fftshift(fft.fft2(_pupil(microscope, defocus_um, side, oversampling)))) ** 2
    low = side // 2 - (size_px * oversampling) // 2
    window = np.s_[low : low + size_px * oversampling, low : low + size_px * oversampling]
    if centred:  # before pixels are formed: the intensity is band-limited on this grid, and so moves without ringing
        for _ in range(2):  # what of the tails lies within the window depends on the shift
            moved = size_px * oversampling // 2 - np.array(ndimage.center_of_mass(intensity[window]))
            intensity = np.maximum(fft.ifft2(ndimage.fourier_shift(fft.fft2(intensity), moved)).real, 0)
    intensity = intensity[window]
    pixels = intensity.reshape(size_px, oversampling, size_px, oversampling).sum(axis=(1, 3))
    return (pixels / pixels.sum()).astype(np.float32)


def blur(image: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """A sharp image seen through a point-spread function; the image is continued by reflection.

    Parameters
    ----------
    image : ndarray
        (Y, X), any real dtype.
    psf : ndarray
        (side, side), odd, sum 1.

    Returns
    -------
    ndarray
        (Y, X) float32.
    """
    pad = psf.shape[0] // 2
    padded = np.pad(np.asarray(image, np.float32), pad, mode="symmetric")
    return fftconvolve(padded, psf.astype(np.float32), mode="valid").astype(np.float32)


def _pupil(microscope: Microscope, defocus_um: float, side: int, oversampling: int) -> np.ndarray:
    frequency = fft.fftfreq(side, microscope.pixel_size_um / oversampling)  # cycles / um
    fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
    radius = np.hypot(fx, fy)
    cutoff = microscope.numerical_aperture / microscope.wavelength_um
    step = frequency[1] - frequency[0] if side > 1 else cutoff
    aperture = np.clip((cutoff - radius) / step + 0.5, 0, 1)  # the rim covers its samples in part
    medium = microscope.refractive_index / microscope.wavelength_um
    axial = np.sqrt(np.maximum(medium**2 - radius**2, 0))
    phase = defocus_um * (axial - medium)  # waves
    angle = np.arctan2(fy, fx)
    for name, waves in microscope.aberrations.items():
        phase = phase + waves * _ZERNIKE[name](radius / cutoff, angle)
    return aperture * np.exp(2j * np.pi * phase)


def _oversampling(microscope: Microscope) -> int:
    finest = microscope.wavelength_um / (4 * microscope.numerical_aperture)  # Nyquist of the intensity
    factor = max(3, math.ceil(microscope.pixel_size_um / finest))  # at least 3: a pixel has an area
    return factor + 1 - factor % 2  # odd: the centre of a pixel is a sample


def _default_size(microscope: Microscope, defocus_um: float) -> int:
    radius = 1.15 * abs(defocus_um) * microscope.blur_per_um + 4 * microscope.resolution_px + 4
    return 2 * math.ceil(radius) + 1
