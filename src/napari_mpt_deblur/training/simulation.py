"""Training pairs from sharp images: random zoom, defocus, camera and intensity range, drawn by seed and number.

What a pair is to end at: where pixels are fine, the scene as the same microscope shows it in focus, since detail beyond
that would have to be invented; where they are coarse, the image itself, which is a microscope's already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import fft, ndimage
from torch.nn import functional as F

from napari_mpt_deblur.images.diameter import estimate_nucleus_diameter
from napari_mpt_deblur.optics.psf import ABERRATIONS, Microscope, defocus_psf
from napari_mpt_deblur.training.data import stack_pairs
from napari_mpt_deblur.training.scenes import crisp, dead_leaves, grain, log_uniform, texture
from napari_mpt_deblur.training.simulation_config import SimulationConfig

DEFAULT_DIAMETER_PX = 20.0
_ZOOMS = (0.25, 6.0)
_ENLARGED = 1.5  # zoom from which an image has lost the fine detail of its new scale
_GRAIN = (0.003, 0.04)  # standard deviation, in units of the range of intensities
_DRAWN_SCENES, _DRAWN_SIDE_PX = 48, 768
_DRAWN_NUCLEUS_PX = 80.0  # they have shapes of all sizes; their pixels are mostly fine
_PIXEL_SIZES = (0.5, 4.0)  # in units of the optics' Nyquist sampling
_FINE_PIXELS = 1.6  # below, the image in focus shows the optics' own blur
_LARGE_NUCLEUS_PX = 40.0  # nuclei are of one size in life: where they are large, pixels are fine


@dataclass(frozen=True, eq=False)
class SharpImage:
    """A sharp image, its 1st and 99.8th percentiles brought to 0 and 1, and the diameter of its nuclei in pixels."""

    pixels: np.ndarray  # (Y, X) or (C, Y, X) float32
    nucleus_px: float

    @classmethod
    def of(cls, image: np.ndarray) -> SharpImage:
        image = np.asarray(image, np.float32)
        low, high = np.percentile(image, (1, 99.8), axis=(-2, -1), keepdims=True)
        pixels = (image - low) / np.maximum(high - low, 1e-6)
        diameter = estimate_nucleus_diameter(image if image.ndim == 2 else image.mean(0))
        if diameter is None or diameter > min(image.shape[-2:]) / 2:  # a whole colony, or its gradient
            diameter = DEFAULT_DIAMETER_PX
        return cls(pixels.astype(np.float32), diameter)


class Optics(NamedTuple):
    """Point-spread functions of one random microscope."""

    defocused: np.ndarray  # (side, side) float32, sum 1
    in_focus: np.ndarray | None  # the same; None where pixels are too coarse to show it


_PERFECT = Optics(np.ones((1, 1), np.float32), None)


class OpticsBank:
    """Point-spread functions of random microscopes at random defocus, shared by all pairs; a seventh is in focus.

    The n-th is the same for the same seed, whatever the number of them; it is computed when it is first drawn.
    """

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._numbers: dict[tuple[bool, bool], list[int]] = {}  # by fine pixels, in focus
        self._known: dict[int, Optics] = {}
        for number in range(config.psf_count):
            self._numbers.setdefault(_kind(number), []).append(number)

    def draw(self, rng: np.random.Generator, fine: bool, focused: bool) -> Optics:
        kinds = ((fine, focused), (not fine, focused), (fine, not focused))
        few = next(self._numbers[kind] for kind in kinds if kind in self._numbers)
        return self._optics(few[rng.integers(len(few))])

    def _optics(self, number: int) -> Optics:
        if number not in self._known:
            rng = np.random.default_rng([self._seed, 1, number])
            fine, focused = _kind(number)
            low, high = self._config.disc_radius_px
            radius = rng.uniform(0, low) if focused else rng.uniform(low, high)
            self._known[number] = _draw_optics(rng, self._config, fine, radius)
        return self._known[number]


def _kind(number: int) -> tuple[bool, bool]:
    """Whether the n-th has fine pixels, and whether it is in focus."""
    return number % 2 == 0, number // 2 % 7 == 0


class DefocusPairs:
    """Pairs of a synthetically defocused and a sharp patch.

    Every pair depends on the seed and its number alone, so that a run that is stopped and resumed sees the same data.

    Parameters
    ----------
    images : list of SharpImage
    config : SimulationConfig
    seed : int
    keep_range : bool
        Leave the values as they are: they were normalised as the network will see them. By default each pair has a
        range of its own, as if its image had been normalised alone or as a part of a stack.
    """

    def __init__(
        self, images: list[SharpImage], config: SimulationConfig, seed: int, *, keep_range: bool = False
    ) -> None:
        self.images, self.config, self.seed, self.keep_range = images, config, seed, keep_range
        # by area: every pixel of the data is as likely as any other
        self._share = np.cumsum([image.pixels.size for image in images], dtype=np.float64)
        self.channels = max(1 if image.pixels.ndim == 2 else len(image.pixels) for image in images)
        self.bank = OpticsBank(config, seed)
        self._drawn: dict[int, SharpImage] = {}

    def pair(self, number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Blurred and sharp patch, each (side, side) or (C, side, side) float32, values about 0..1."""
        rng = np.random.default_rng([self.seed, 2, number])
        config = self.config
        image, zoom = self._draw_scale(rng)
        optics = self._draw_optics(rng, image.nucleus_px * zoom)
        pad = max(one.defocused.shape[0] for one in optics) // 2
        scene = _spectrum(self._scene(rng, image, zoom, side + 2 * pad))
        blurred = _mix([_filter(scene, one.defocused, pad, side) for one in optics], rng)
        focus = optics[0].in_focus
        sharp = _filter(scene, _PERFECT.defocused if focus is None else focus, pad, side)
        if rng.random() < config.inverted:  # before the camera: the bright background is the noisy part
            light = max(1.0, float(sharp.max()))
            blurred, sharp = light - blurred, light - sharp
        noisy = blurred if optics[0] is _PERFECT and rng.random() < 0.5 else _record(blurred, rng, config)
        if self.keep_range:
            return noisy, sharp
        ranges = [_intensity_range(channel, rng) for channel in noisy.reshape(-1, side, side)]
        low, high = (np.array(ends).reshape(*noisy.shape[:-2], 1, 1) for ends in zip(*ranges, strict=True))
        return (noisy - low) / (high - low), (sharp - low) / (high - low)

    def batch(self, number: int, size: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Blurred and sharp batch, each (size, C, side, side) float32; `number` is that of the first pair."""
        pairs = (self.pair(number + i, side) for i in range(size))
        return stack_pairs([(self._channels(blurred, side), self._channels(sharp, side)) for blurred, sharp in pairs])

    def _channels(self, patch: np.ndarray, side: int) -> np.ndarray:
        """(C, side, side); drawn scenes among colour images are grey."""
        patch = np.ascontiguousarray(patch.reshape(-1, side, side), np.float32)
        return patch if len(patch) == self.channels else np.repeat(patch, self.channels, 0)

    def _draw_scale(self, rng: np.random.Generator) -> tuple[SharpImage, float]:
        """A random image and its zoom."""
        if rng.random() < self.config.drawn:
            return self._drawn_scene(int(rng.integers(_DRAWN_SCENES))), math.exp(min(0.0, rng.uniform(-1, 0.7)))
        if rng.random() < self.config.native_scale:
            return self._draw_image(rng), 1.0
        return self._image_for(log_uniform(rng, *self.config.nucleus_px), rng)

    def _draw_optics(self, rng: np.random.Generator, nucleus_px: float) -> list[Optics]:
        """One microscope at one defocus; for a thick or tilted sample a second, on pixels alike in size."""
        config = self.config
        if rng.random() < config.identity:
            return [_PERFECT]
        fine = bool(rng.random() < (0.8 if nucleus_px > _LARGE_NUCLEUS_PX else 0.1))
        optics = [self.bank.draw(rng, fine, bool(rng.random() < config.in_focus))]
        if rng.random() < config.thick:
            optics.append(self.bank.draw(rng, fine, False))
        return optics

    def _scene(self, rng: np.random.Generator, image: SharpImage, zoom: float, side: int) -> np.ndarray:
        """A sharp patch at a random orientation, (side, side), values about 0..1."""
        config = self.config
        if rng.random() < config.empty:
            return np.full((side, side), rng.uniform(0, 0.3), np.float32)
        patch = _turn(_zoomed_patch(image.pixels, side, zoom, rng), rng)
        if zoom > _ENLARGED and rng.random() < config.crisp:
            patch = crisp(patch, rng)
        if rng.random() < (max(0.5, config.textured) if zoom > _ENLARGED else config.textured):
            patch = np.maximum(patch, 0) * np.maximum(1 + rng.uniform(0.1, 0.7) * texture(side, rng), 0)
        if rng.random() < config.grain:
            patch = patch + log_uniform(rng, *_GRAIN) * grain(side, rng)
        return np.ascontiguousarray(np.maximum(patch, 0) if rng.random() < 0.5 else patch, np.float32)

    def _drawn_scene(self, number: int) -> SharpImage:
        if number not in self._drawn:
            pixels = dead_leaves(_DRAWN_SIDE_PX, np.random.default_rng([self.seed, 3, number]))
            self._drawn[number] = SharpImage(pixels, _DRAWN_NUCLEUS_PX)
        return self._drawn[number]

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


def _draw_optics(rng: np.random.Generator, config: SimulationConfig, fine: bool, radius_px: float) -> Optics:
    aperture = rng.uniform(*config.numerical_aperture)
    index = 1.0 if aperture < 0.92 else 1.515 if aperture > 1.25 else float(rng.choice([1.33, 1.515]))
    wavelength = rng.uniform(0.43, 0.70)
    low, high = _PIXEL_SIZES
    nyquist = wavelength / (4 * aperture)
    pixel = nyquist * (log_uniform(rng, low, _FINE_PIXELS) if fine else log_uniform(rng, _FINE_PIXELS, high))
    aberrations = {name: float(rng.normal(0, 0.04)) for name in ABERRATIONS}
    microscope = Microscope(aperture, pixel, wavelength, index, aberrations)
    defocus = float(radius_px / microscope.blur_per_um * rng.choice([-1, 1]))
    depths = [defocus]
    if rng.random() < config.broadened:
        depths = list(defocus * (1 + rng.uniform(0.1, 0.7) * np.linspace(-1, 1, 5)))
    # coma moves the image, and the truth does not move along
    in_focus = defocus_psf(microscope, 0.0, centred=True) if fine else None
    return Optics(_mean([defocus_psf(microscope, depth, centred=True) for depth in depths]), in_focus)


def _mean(psfs: list[np.ndarray]) -> np.ndarray:
    side = max(psf.shape[0] for psf in psfs)
    return np.mean([np.pad(psf, (side - psf.shape[0]) // 2) for psf in psfs], axis=0)


def _zoomed_patch(pixels: np.ndarray, side: int, zoom: float, rng: np.random.Generator) -> np.ndarray:
    needed = max(2, math.ceil(side / zoom))
    height, width = pixels.shape[-2:]
    if needed > min(height, width):  # continue small images by reflection
        missing = [(0, max(0, needed - size)) for size in (height, width)]
        pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + missing, mode="symmetric")
        height, width = pixels.shape[-2:]
    y, x = rng.integers(height - needed + 1), rng.integers(width - needed + 1)
    patch = pixels[..., y : y + needed, x : x + needed]
    if zoom == 1.0:
        return patch
    tensor = torch.from_numpy(np.ascontiguousarray(patch)).reshape(1, -1, needed, needed)
    tensor = F.interpolate(tensor, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return tensor.reshape(*patch.shape[:-2], side, side).numpy()


def _turn(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    patch = np.rot90(patch, int(rng.integers(4)), axes=(-2, -1))
    return patch[..., ::-1, :] if rng.random() < 0.5 else patch


def _mix(planes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One depth as it is; two depths as those of a thick or a tilted sample."""
    if len(planes) == 1:
        return planes[0]
    if rng.random() < 0.5:  # thick: part of the light comes from another depth
        weight: np.ndarray | float = rng.uniform(0.1, 0.5)
    else:  # tilted: the depth changes over the field
        y, x = np.mgrid[-1 : 1 : planes[0].shape[-2] * 1j, -1 : 1 : planes[0].shape[-1] * 1j]
        angle = rng.uniform(0, 2 * math.pi)
        ramp = (math.cos(angle) * x + math.sin(angle) * y) * rng.uniform(1, 4) + rng.uniform(-1, 1)
        weight = 1 / (1 + np.exp(-ramp))
    return ((1 - weight) * planes[0] + weight * planes[1]).astype(np.float32)


def _spectrum(scene: np.ndarray) -> np.ndarray:
    side = fft.next_fast_len(scene.shape[-1], real=True)
    padded = np.zeros((*scene.shape[:-2], side, side), np.float32)
    padded[..., : scene.shape[-2], : scene.shape[-1]] = scene
    return fft.rfft2(padded)


def _filter(spectrum: np.ndarray, psf: np.ndarray, pad: int, side: int) -> np.ndarray:
    """The scene of this spectrum through a point-spread function, cut by `pad` to (side, side)."""
    full_side = spectrum.shape[-2]
    full = fft.irfft2(spectrum * fft.rfft2(psf, (full_side, full_side)), (full_side, full_side))
    # the wrap of the circular convolution falls into the margin that is cut off
    low = pad + psf.shape[0] // 2
    return full[..., low : low + side, low : low + side].astype(np.float32)


def _record(blurred: np.ndarray, rng: np.random.Generator, config: SimulationConfig) -> np.ndarray:
    photons = log_uniform(rng, *config.photons)
    background = log_uniform(rng, 0.01, 0.6)
    expected = np.maximum(blurred + background, 0) * photons
    noise = np.sqrt(expected + rng.uniform(*config.read_noise) ** 2)  # Poisson's, by its normal approximation
    sampled = rng.standard_normal(blurred.shape, dtype=np.float32) * noise
    if rng.random() < 0.08:  # interpolated or filtered by the microscope's software
        sampled = ndimage.gaussian_filter(sampled, rng.uniform(0.4, 1.0), axes=(-2, -1))
    levels = log_uniform(rng, 60, 4000)
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
    brightest = low + (float(noisy.max()) - low) / log_uniform(rng, 1.3, 6)
    return low, max(high, brightest, low + 1e-3)
