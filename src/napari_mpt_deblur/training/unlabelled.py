"""Unlabelled images: patches of what has no sharp side, for Lext'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_mpt_deblur.training.areas import Area, Draw
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.fields import Field


class UnlabelledImages:
    """Patches of images, drawn by seed and number alone.

    Parameters
    ----------
    fields : sequence of Field
    areas : sequence of Area
        To draw from.
    config : TrainingConfig
    stream : int
        Tells sources apart that are drawn from with one seed.
    """

    def __init__(self, fields: Sequence[Field], areas: Sequence[Area], config: TrainingConfig, stream: int) -> None:
        self.fields = fields
        self._draw, self._seed = Draw(areas, config), (config.seed, stream)

    def batch(self, number: int, size: int, side: int) -> Tensor:
        """(size, C, side, side) float32, values about 0 to 1; `number` is that of the first."""
        return torch.stack([torch.from_numpy(self._image(number + i, side)) for i in range(size)])

    def _image(self, number: int, side: int) -> np.ndarray:
        crop = self._draw.crop(np.random.default_rng([*self._seed, number]), side)
        return crop.finish(self.fields[crop.area.field].read(crop.area.group, crop.y, crop.x, crop.size, crop.size))
