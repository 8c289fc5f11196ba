"""What synthetic defocus draws from. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.checks import number, sequence, share, whole


@dataclass(frozen=True)
class SimulationConfig:
    """Range of microscopes, samples and cameras that synthetic defocus draws from.

    Parameters
    ----------
    nucleus_px : tuple of float
        Smallest and largest diameter of nuclei, in pixels, that zooming brings the images to.
    native_scale : float
        Share, of the pairs that are not `drawn`, that keep the image's own scale, untouched by interpolation.
    disc_radius_px : tuple of float
        Smallest and largest radius of the geometric defocus disc.
    in_focus : float
        Share, of the pairs that are not `identity`, that are in focus, seen through a microscope.
    identity : float
        Share of pairs that are sharp already: nothing but the camera, or not even that, lies between the two.
    thick : float
        Share, of the pairs that are not `identity`, of which a part, in depth or across the field, is at another
        defocus.
    broadened : float
        Share of point-spread functions that are the mean over a range of depths: of a sample that has some thickness,
        or of light of many colours. They have no rings.
    numerical_aperture : tuple of float
    photons : tuple of float
        Fewest and most photo-electrons at the brightest; drawn log-uniformly.
    read_noise : tuple of float
        In photo-electrons.
    inverted : float
        Share of pairs that are dark on bright, as in brightfield.
    textured : float
        Share of pairs to which random texture is added, so that detail which the input holds is kept; at least half
        of the images that are enlarged, since enlarging makes nuclei smooth.
    crisp : float
        Share of the enlarged images whose soft edges are made sharp.
    drawn : float
        Share of pairs whose scenes are drawn, not photographed: shapes of all sizes with sharp edges.
    grain : float
        Share of pairs with faint, fine structure all over the field, as smears and tissue have: it is not noise.
    empty : float
        Share of pairs that hold nothing but noise.
    psf_count : int
        Point-spread functions drawn once and shared by all pairs.
    """

    nucleus_px: tuple[float, float] = (8.0, 150.0)
    native_scale: float = 0.55
    disc_radius_px: tuple[float, float] = (0.7, 25.0)
    in_focus: float = 0.12
    identity: float = 0.05
    thick: float = 0.12
    broadened: float = 0.3
    numerical_aperture: tuple[float, float] = (0.25, 1.4)
    photons: tuple[float, float] = (40.0, 20000.0)
    read_noise: tuple[float, float] = (0.5, 6.0)
    inverted: float = 0.08
    textured: float = 0.08
    crisp: float = 0.4
    drawn: float = 0.1
    grain: float = 0.15
    empty: float = 0.03
    psf_count: int = 3000

    def __post_init__(self) -> None:
        for name in ("nucleus_px", "disc_radius_px", "numerical_aperture", "photons", "read_noise"):
            pair = tuple(number(value, name) for value in sequence(getattr(self, name)))
            if len(pair) != 2:
                raise TrainingError(f"{name} must be a low and a high number; got {list(pair)}.")
            low, high = pair
            object.__setattr__(self, name, pair)
            if not 0 < low <= high < math.inf:
                raise TrainingError(f"{name} must be a low and a high number above 0; got {list(pair)}.")
        for name in (item.name for item in fields(self) if item.type == "float"):  # every single number is a share
            share(getattr(self, name), name)
        whole(self.psf_count, "psf_count", 1)

    @classmethod
    def for_one_image(cls) -> SimulationConfig:
        """For one image, or a few of one microscope: its own scale and shapes, hardly any others."""
        return cls(native_scale=0.9, drawn=0.0, empty=0.0, inverted=0.0, textured=0.0, photons=(300.0, 20000.0))
