"""The arms of the paper's Table 5 in small: one network, one start, one budget, one order of the data for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training import (
    ContrastConfig,
    ImageSource,
    SharpImages,
    SimulationConfig,
    TrainingConfig,
    TrainingRequest,
)
from proof.fields import OTHER, TARGET, listed, seen, shuffled, sources
from proof.runs import Run, finish

UNLABELLED_UM = (4.0, 16.0)
# the target's own scale and optics' range; all arms have the same, extra data as well
SIMULATION = SimulationConfig(
    native_scale=1.0,
    disc_radius_px=(0.7, 16.0),
    photons=(200.0, 20000.0),
    inverted=0.0,
    textured=0.0,
    grain=0.0,
    drawn=0.0,
    empty=0.0,
    psf_count=100,
)


@dataclass(frozen=True)
class Arm:
    """A way to train; `pretrained`: half of the iterations go to the other domain first."""

    name: str
    title: str
    contrast: ContrastConfig
    pretrained: bool = False


def arms(chosen: ContrastConfig) -> dict[str, Arm]:
    """By name; `chosen` says beta, reduction and weight of the contrastive arms."""
    every = (
        Arm("pixel", "L1", ContrastConfig("pixel")),
        Arm("paper", "L1 + EFCR, beta 1e-5, means", ContrastConfig("efcr")),
        Arm("efcr", "L1 + EFCR", replace(chosen, method="efcr")),
        Arm("efcrex", f"L1 + EFCRex, unlabelled {TARGET}", replace(chosen, method="efcrex")),
        Arm("efcrex_labelled", f"L1 + EFCRex, labelled {OTHER}", replace(chosen, method="efcrex_labelled")),
        Arm("pretrain", f"L1, pretrained on {OTHER}", ContrastConfig("pixel"), pretrained=True),
    )
    return {arm.name: arm for arm in every}


@dataclass(frozen=True, eq=False)
class Images:
    """Who sees what; nothing of the validation split is among it, and no image has two parts.

    Attributes
    ----------
    pairs, held_out, unlabelled, spare : list of Path
        Of the target: to train on; for the trainer's own validation; seen out of focus, without their truth; to
        choose settings on.
    extra, extra_held_out : list of Path
        Of the other domain.
    """

    pairs: list[Path]
    held_out: list[Path]
    unlabelled: list[Path]
    spare: list[Path]
    extra: list[Path]
    extra_held_out: list[Path]

    @classmethod
    def of(cls, lists: Path) -> Images:
        target, other = (shuffled(listed(lists, "train", name)) for name in (TARGET, OTHER))
        return cls(target[:40], target[40:42], target[42:58], target[58:66], other[:100], other[100:102])

    def unlabelled_stack(self) -> ImageSource:
        """Fields out of focus, each at its own distance, as one image."""
        depths = np.linspace(*UNLABELLED_UM, len(self.unlabelled))
        pairs = enumerate(zip(self.unlabelled, depths, strict=True))
        planes = [seen(path, number, (depth,)).planes for number, (path, depth) in pairs]
        return ImageSource.of_layer("unlabelled", ImageView.of(np.concatenate(planes), "TYX"))


def configuration(seed: int, iterations: int, contrast: ContrastConfig) -> TrainingConfig:
    """The same for all arms but for the method."""
    return TrainingConfig(
        network=MPTConfig.tiny(),
        simulation=SIMULATION,
        contrast=contrast,
        iterations=iterations,
        patch_px=(64,),
        batch=(4,),
        learning_rate=2e-3,
        warmup=min(50, iterations // 4),
        ema=0.99,
        precision="float32",
        seed=seed,
        validate_every=max(1, iterations // 2),
        validation_pairs=4,
    )


def train_arm(arm: Arm, seed: int, iterations: int, images: Images, output: Path) -> list[Run]:
    """The stages of an arm, one or two; the weights are the last ones of the last stage."""
    folder = output / f"{arm.name}-{seed}"
    target = SharpImages(sources(images.pairs), sources(images.held_out))
    other = SharpImages(sources(images.extra), sources(images.extra_held_out))
    if arm.pretrained:
        half = configuration(seed, iterations // 2, arm.contrast)
        first = TrainingRequest(half, other, folder / "first", device="cpu")
        runs = [finish(first, f"{OTHER}, {iterations // 2} iterations")]
        rest = replace(half, iterations=iterations - iterations // 2)
        second = TrainingRequest(rest, target, folder / "second", base=runs[0].last, device="cpu")
        return [*runs, finish(second, f"{TARGET}, {rest.iterations} iterations")]
    contrast = arm.contrast
    request = TrainingRequest(
        configuration(seed, iterations, contrast),
        target,
        folder,
        unlabelled=(images.unlabelled_stack(),) if contrast.needs_unlabelled else (),
        extra=SharpImages(other.images) if contrast.needs_extra_pairs else None,
        device="cpu",
    )
    return [finish(request, f"{arm.title}, {iterations} iterations")]


def total_seconds(runs: Sequence[Run]) -> float:
    """Of processor time."""
    return sum(run.cpu_seconds for run in runs)
