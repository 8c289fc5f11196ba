"""Training pairs from sharp images: random zoom, defocus, camera and intensity range, drawn by seed and number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft, ndimage
from torch.nn import functional as F

from napari_mpt_deblur.images.diameter import estimate_nucleus_diameter
from napari_mpt_deblur.optics.psf import ABERRATIONS, Microscope, defocus_psf
from napari_mpt_deblur.training.config import SimulationConfig

_DEFAULT_DIAMETER_PX = 20.0
_ZOOMS = (0.25, 4.0)  # beyond, an image is no longer sharp at the scale it is brought to


@dataclass(frozen=True, eq=False)
class SharpImage:
    """A sharp image, its 1st and 99.8th percentiles brought to 0 and 1, and the diameter of its nuclei in pixels."""

    pixels: np.ndarray  # (Y, X) float32
    nucleus_px: float

    @classmethod
    def of(cls, image: np.ndarray) -> SharpImage:
        image = np.asarray(image, np.float32)
        low, high = np.percentile(image, (1, 99.8))
        pixels = (image - low) / max(float(high - low), 1e-6)
        return cls(pixels.astype(np.float32), estimate_nucleus_diameter(image) or _DEFAULT_DIAMETER_PX)


class PsfBank:
    """Random defocus point-spread functions of random microscopes, drawn once.

    The n-th is the same for the same seed, whatever the number of them.
    """

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        self.in_focus: list[np.ndarray] = []
        self.defocused: list[np.ndarray] = []
        for number in range(config.psf_count):
            rng = np.random.default_rng([seed, 1, number])
            if rng.random() < 0.15:
                self.in_focus.append(_draw_psf(rng, config, rng.uniform(0, config.disc_radius_px[0])))
            else:
                low, high = config.disc_radius_px
                self.defocused.append(_draw_psf(rng, config, low + (high - low) * rng.random() ** 1.5))

    def draw(self, rng: np.random.Generator, in_focus: float) -> np.ndarray:
        few = self.in_focus if rng.random() < in_focus and self.in_focus else self.defocused or self.in_focus
        return few[rng.integers(len(few))]


class DefocusPairs:
    """Pairs of a synthetically defocused and a sharp patch.

    Every pair depends on the seed and its number alone, so that a run that is stopped and resumed sees the same data.

    Parameters
    ----------
    images : list of SharpImage
    config : SimulationConfig
    seed : int
    """

    def __init__(self, images: list[SharpImage], config: SimulationConfig, seed: int) -> None:
        self.images, self.config, self.seed = images, config, seed
        # by area: every pixel of the data is as likely as any other
        self._share = np.cumsum([image.pixels.size for image in images], dtype=np.float64)
        self.bank = PsfBank(config, seed)

    def pair(self, number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Blurred and sharp patch, each (side, side) float32, values about 0..1."""
        rng = np.random.default_rng([self.seed, 2, number])
        config = self.config
        psfs = [self.bank.draw(rng, config.in_focus)]
        if rng.random() < config.thick:
            psfs.append(self.bank.draw(rng, 0))
        pad = max(psf.shape[0] for psf in psfs) // 2
        sharp = self._scene(rng, side + 2 * pad)
        blurred = _defocus(sharp, psfs, pad, rng)
        sharp = sharp[pad : pad + side, pad : pad + side]
        if rng.random() < config.inverted:  # before the camera: the bright background is the noisy part
            light = max(1.0, float(sharp.max()))
            blurred, sharp = light - blurred, light - sharp
        noisy = _record(blurred, rng, config)
        low, high = _intensity_range(noisy, rng)
        return (noisy - low) / (high - low), (sharp - low) / (high - low)

    def batch(self, number: int, size: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Blurred and sharp batch, each (size, 1, side, side) float32; `number` is that of the first pair."""
        pairs = [self.pair(number + i, side) for i in range(size)]
        blurred, sharp = (np.stack(planes)[:, None].astype(np.float32) for planes in zip(*pairs, strict=True))
        return torch.from_numpy(blurred), torch.from_numpy(sharp)

    def _scene(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """A sharp patch at a random scale and orientation, (side, side), values about 0..1."""
        config = self.config
        if rng.random() < config.empty:
            return np.full((side, side), rng.uniform(0, 0.3), np.float32)
        image, zoom = self._draw_image(rng), 1.0
        if rng.random() >= config.native_scale:
            image, zoom = self._image_for(_log_uniform(rng, *config.nucleus_px), rng)
        patch = _turn(_zoomed_patch(image.pixels, side, zoom, rng), rng)
        if rng.random() < config.textured:
            patch = patch * (1 + rng.uniform(0.1, 0.7) * _texture(side, rng)) + rng.uniform(0, 0.1)
        return np.ascontiguousarray(np.maximum(patch, 0) if rng.random() < 0.5 else patch, np.float32)

    def _draw_image(self, rng: np.random.Generator) -> SharpImage:
        return self.images[int(np.searchsorted(self._share, rng.random() * self._share[-1], side="right"))]

    def _image_for(self, nucleus_px: float, rng: np.random.Generator) -> tuple[SharpImage, float]:
        """A random image that can be brought to this scale, and the zoom that does it."""
        for _ in range(8):
            image = self._draw_image(rng)
            zoom = nucleus_px / image.nucleus_px
            if _ZOOMS[0] <= zoom <= _ZOOMS[1]:
                break
        return image, float(np.clip(zoom, *_ZOOMS))


def _draw_psf(rng: np.random.Generator, config: SimulationConfig, radius_px: float) -> np.ndarray:
    aperture = rng.uniform(*config.numerical_aperture)
    index = 1.0 if aperture < 0.92 else 1.515 if aperture > 1.25 else float(rng.choice([1.33, 1.515]))
    wavelength = rng.uniform(0.43, 0.70)
    pixel = wavelength / (4 * aperture) * _log_uniform(rng, 0.5, 4.0)  # in units of the optics' Nyquist sampling
    aberrations = {name: float(rng.normal(0, 0.04)) for name in ABERRATIONS}
    microscope = Microscope(aperture, pixel, wavelength, index, aberrations)
    defocus = radius_px / microscope.blur_per_um * rng.choice([-1, 1])
    return _centred(defocus_psf(microscope, float(defocus)))


def _centred(psf: np.ndarray) -> np.ndarray:
    """The function with its centroid in the middle: coma moves it, and the truth does not move along."""
    shift = psf.shape[0] // 2 - np.array(ndimage.center_of_mass(psf))
    moved = np.maximum(fft.ifft2(ndimage.fourier_shift(fft.fft2(psf), shift)).real, 0)
    return (moved / moved.sum()).astype(np.float32)


def _zoomed_patch(pixels: np.ndarray, side: int, zoom: float, rng: np.random.Generator) -> np.ndarray:
    needed = max(2, math.ceil(side / zoom))
    height, width = pixels.shape
    if needed > min(height, width):  # continue small images by reflection
        missing = [(0, max(0, needed - size)) for size in pixels.shape]
        pixels = np.pad(pixels, missing, mode="symmetric")
        height, width = pixels.shape
    y, x = rng.integers(height - needed + 1), rng.integers(width - needed + 1)
    patch = pixels[y : y + needed, x : x + needed]
    if zoom == 1.0:
        return patch
    tensor = torch.from_numpy(np.ascontiguousarray(patch))[None, None]
    tensor = F.interpolate(tensor, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return tensor[0, 0].numpy()


def _turn(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    patch = np.rot90(patch, int(rng.integers(4)))
    return patch[::-1] if rng.random() < 0.5 else patch


def _texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Band-limited noise of unit variance."""
    noise = ndimage.gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), _log_uniform(rng, 0.7, 8))
    return noise / max(float(noise.std()), 1e-6)


def _defocus(sharp: np.ndarray, psfs: list[np.ndarray], pad: int, rng: np.random.Generator) -> np.ndarray:
    """The scene through one point-spread function, or a tilted or thick sample through two; cut by `pad` a side."""
    spectrum_side = fft.next_fast_len(sharp.shape[0], real=True)
    spectrum = fft.rfft2(sharp, (spectrum_side, spectrum_side))
    planes = [_filter(spectrum, spectrum_side, psf, pad, sharp.shape[0]) for psf in psfs]
    if len(planes) == 1:
        return planes[0]
    if rng.random() < 0.5:  # thick: part of the light comes from another depth
        weight: np.ndarray | float = rng.uniform(0.1, 0.5)
    else:  # tilted: the depth changes over the field
        y, x = np.mgrid[-1 : 1 : planes[0].shape[0] * 1j, -1 : 1 : planes[0].shape[1] * 1j]
        angle = rng.uniform(0, 2 * math.pi)
        ramp = (math.cos(angle) * x + math.sin(angle) * y) * rng.uniform(1, 4) + rng.uniform(-1, 1)
        weight = 1 / (1 + np.exp(-ramp))
    return ((1 - weight) * planes[0] + weight * planes[1]).astype(np.float32)


def _filter(spectrum: np.ndarray, spectrum_side: int, psf: np.ndarray, pad: int, side: int) -> np.ndarray:
    product = spectrum * fft.rfft2(psf, (spectrum_side, spectrum_side))
    centre = psf.shape[0] // 2
    full = fft.irfft2(product, (spectrum_side, spectrum_side))
    # the wrap of the circular convolution falls into the margin that is cut off
    low = pad + centre
    return full[low : low + side - 2 * pad, low : low + side - 2 * pad].astype(np.float32)


def _record(blurred: np.ndarray, rng: np.random.Generator, config: SimulationConfig) -> np.ndarray:
    photons = _log_uniform(rng, *config.photons)
    background = _log_uniform(rng, 0.01, 0.6)
    expected = np.maximum(blurred + background, 0) * photons
    noise = np.sqrt(expected + rng.uniform(*config.read_noise) ** 2)  # Poisson's, by its normal approximation
    sampled = rng.standard_normal(blurred.shape, dtype=np.float32) * noise
    if rng.random() < 0.08:  # interpolated or filtered by the microscope's software
        sampled = ndimage.gaussian_filter(sampled, rng.uniform(0.4, 1.0))
    levels = _log_uniform(rng, 60, 4000)
    noisy = (expected + sampled) / photons - background
    return np.rint(noisy * levels) / levels if rng.random() < 0.3 else noisy


def _intensity_range(noisy: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Grey levels that become 0 and 1: those of a stack with sharp planes, or of this image alone."""
    low, high = np.percentile(noisy, (1, 99.8))
    if rng.random() < 0.6:
        high = max(float(high) * 0.7, float(rng.uniform(0.7, 1.2)))
    else:
        high = max(float(high), float(low) + 1e-3) * float(rng.uniform(0.9, 1.1))
    low = float(low) - rng.uniform(-0.02, 0.05) * (high - low)
    # few bright pixels lie beyond the percentiles; without a bound such a pair would outweigh all others
    brightest = low + (float(noisy.max()) - low) / _log_uniform(rng, 1.3, 6)
    return low, max(high, brightest, low + 1e-3)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
