"""A microscope that a model does not know: images kept from its training, out of focus and without their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from skimage.io import imread

from napari_mpt_deblur.checkpoints import read_header
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training import ImageSource, SharpImages, TrainingConfig, TrainingRequest
from napari_mpt_deblur.training.request import PairSource
from proof.arms import SIMULATION
from proof.fields import OTHER, TARGET, Seen, listed, median_areas, seen, shuffled, sources
from proof.runs import Run, finish

LARGE_PX = 700.0  # median area of the nuclei that pretraining does not see
SIDE_PX = 360  # of the images of that group that come from one instrument
GAIN = 16.0  # brings their 8 bits to a camera's range
CASES = {"through focus": (0.0, 4.0, 8.0, 12.0, 16.0), "out of focus": (4.0, 7.0, 10.0, 13.0, 16.0)}


@dataclass(frozen=True, eq=False)
class Group:
    """Who sees what.

    Attributes
    ----------
    known, known_held_out : list of Path
        What pretraining sees: everything but the group, of both data sets.
    stack, others : list of Path
        Of the group: what the stack is made of, and what only measures.
    """

    known: list[Path]
    known_held_out: list[Path]
    stack: list[Path]
    others: list[Path]

    @classmethod
    def of(cls, lists: Path, stack: int, others: int) -> Group:
        areas = median_areas(OTHER)

        def is_large(path: Path) -> bool:
            return path.parent.parent.name == OTHER and areas[path.stem] > LARGE_PX

        every = {
            split: [path for name in (TARGET, OTHER) for path in listed(lists, split, name)]
            for split in ("train", "validation")
        }
        known = [[path for path in shuffled(paths) if not is_large(path)] for paths in every.values()]
        large = shuffled([path for paths in every.values() for path in paths if is_large(path)])
        group = [path for path in large if imread(path).shape == (SIDE_PX, SIDE_PX)]
        return cls(*known, group[:stack], group[stack : stack + others])


def views(paths: Sequence[Path], depths_um: Sequence[float], first: int) -> list[Seen]:
    """Fields as this microscope's camera sees them; `first` numbers the first one's noise."""
    return [seen(path, first + number, depths_um, gain=GAIN) for number, path in enumerate(paths)]


def pretrain(group: Group, iterations: int, folder: Path) -> Run:
    """A model that knows everything but the group."""
    config = TrainingConfig(
        network=MPTConfig.tiny(),
        simulation=SIMULATION,
        iterations=iterations,
        patch_px=(64,),
        batch=(4,),
        learning_rate=2e-3,
        warmup=min(100, iterations // 4),
        ema=0.998,
        precision="float32",
        validate_every=max(1, iterations // 10),
        validation_pairs=16,
    )
    pairs = SharpImages(sources(group.known), sources(group.known_held_out))
    return finish(TrainingRequest(config, pairs, folder, device="cpu"), f"{len(group.known)} images, none of the group")


def fine_tuning(base: Path, seed: int, iterations: int | None, method: str) -> TrainingConfig:
    """As the widget and the command line do it; `iterations` for a trial."""
    config = replace(TrainingConfig.fine_tuning(read_header(base).config.network, method), seed=seed)
    if iterations is not None:
        config = replace(config, iterations=iterations, warmup=min(config.warmup, iterations // 4))
    return config


def as_source(name: str, fields: Sequence[np.ndarray]) -> ImageSource:
    """Fields, each (Z, Y, X), as one open layer."""
    return ImageSource.of_layer(name, ImageView.of(np.stack(fields), "TZYX"))


def fine_tune(
    base: Path, stack: ImageSource, pairs: PairSource, config: TrainingConfig, folder: Path, about: str
) -> Run:
    """On the stack and what was made of it: its truth is not given."""
    unlabelled = (stack,) if config.contrast.needs_unlabelled else ()
    return finish(TrainingRequest(config, pairs, folder, unlabelled=unlabelled, base=base, device="cpu"), about)


def train_more(base: Path, group: Group, config: TrainingConfig, folder: Path) -> Run:
    """The same steps on what the model knows already: what the stack itself gives is the rest of the gain."""
    pairs = SharpImages(sources(group.known), sources(group.known_held_out))
    config = replace(config, simulation=SIMULATION)
    return finish(TrainingRequest(config, pairs, folder, base=base, device="cpu"), "more of the known images")
