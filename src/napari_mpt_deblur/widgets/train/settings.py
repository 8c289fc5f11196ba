"""What the Train panel says, and what it suggests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mpt_deblur.checkpoints import ModelInfo
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.contrast_config import Method

if TYPE_CHECKING:
    from napari.layers import Image


class PairKind(StrEnum):
    """Where pairs of blurred and sharp images come from."""

    IMAGE = "image"  # the open image alone
    PAIRS = "pairs"
    SHARP = "sharp"
    STACK = "stack"


@dataclass(frozen=True)
class PairsChoice:
    """What the panel says of pairs.

    Attributes
    ----------
    kind : PairKind
    images : tuple of Image layer, Path of a folder, or None
        Two for `PairKind.PAIRS` (blurred, sharp), one for sharp images and focus stacks; None where nothing is chosen.
    """

    kind: PairKind = PairKind.IMAGE
    images: tuple[Image | Path | None, ...] = ()


@dataclass(frozen=True)
class TrainSettings:
    """What the panel says at one moment; None leaves the choice to the program.

    Attributes
    ----------
    layer : Image or None
        The image that the model is trained for.
    base : ModelInfo or None
        None: from scratch.
    axes : str or None
    method : str
        One of `METHODS`.
    pairs : PairsChoice
    unlabelled : Image, Path or None
        For "efcrex"; None: the image.
    extra : PairsChoice or None
        For the methods that need them.
    iterations : int
    minutes : float or None
        Instead of iterations.
    learning_rate, beta : float
    patch_px, batch : int
    device : str
    go_on : bool
        With the run of the same settings that was stopped, if there is one.
    """

    layer: Image | None
    base: ModelInfo | None
    axes: str | None = None
    method: Method = "efcrex"
    pairs: PairsChoice = PairsChoice()
    unlabelled: Image | Path | None = None
    extra: PairsChoice | None = None
    iterations: int = 500
    minutes: float | None = None
    learning_rate: float = 1e-4
    beta: float = 1e-5
    patch_px: int = 128
    batch: int = 2
    device: str = "auto"
    go_on: bool = True


def recipe(base: ModelInfo | None, method: Method) -> TrainingConfig:
    """What the panel suggests to train with.

    Parameters
    ----------
    base : ModelInfo or None
        A model that can be used; None: from scratch.
    method : str

    Returns
    -------
    TrainingConfig
    """
    if base is not None and base.config is not None:
        return TrainingConfig.fine_tuning(base.config.network, method)
    config = TrainingConfig.fine_tuning(MPTConfig.compact(), method)
    return replace(config, iterations=5000, learning_rate=6e-4, warmup=100)
