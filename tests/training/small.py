"""The smallest network there is, patches of 16 pixels, and images for them: a step takes hundredths of a second."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training.config import ContrastConfig, SimulationConfig, TrainingConfig
from napari_mpt_deblur.training.data import TrainingData
from napari_mpt_deblur.training.request import ImageSource

SIDE = 16
FEW = SimulationConfig(psf_count=4, disc_radius_px=(0.7, 1.5), drawn=0.0)


def small_network(**changes: Any) -> MPTConfig:
    values = {"in_channels": 1, "dims": (4,) * 4, "heads": (1,) * 4, "scales": ((1.0, 1.0),) * 4, "window": 2}
    return MPTConfig(**values | {"expansion": 1.0, "stem": 1} | changes)


def small_config(**changes: Any) -> TrainingConfig:
    values = {
        "network": small_network(),
        "simulation": FEW,
        "iterations": 4,
        "patch_px": (SIDE,),
        "batch": (2,),
        "warmup": 1,
        "precision": "float32",
        "validate_every": 2,
        "validation_pairs": 1,
    }
    if isinstance(changes.get("contrast"), str):
        changes["contrast"] = ContrastConfig(changes["contrast"], beta=0.1)
    return TrainingConfig(**values | changes)


def spots(shape: tuple[int, ...], seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """Soft spots in grey levels of 100 to about 4000."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter((rng.random(shape) > 0.985).astype(np.float32), (0,) * (len(shape) - 2) + (sigma, sigma))
    return (100 + 3900 * field / field.max()).astype(np.float32)


def source(name: str, array: Any, axes: str | None = None) -> ImageSource:
    return ImageSource.of_layer(name, ImageView.of(array, axes))


class UnlabelledOf:
    """The blurred sides of a source of pairs, as unlabelled images."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def batch(self, number: int, size: int, side: int) -> Any:
        return self.data.train.batch(number + 50, size, side)[0]
