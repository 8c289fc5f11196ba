"""From what a request names to what the trainer draws from; everything is read and checked here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from napari_mpt_deblur.checkpoints import Model, ModelConfig
from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.images.statistics import IntensityRule
from napari_mpt_deblur.training.areas import Area, whole_planes
from napari_mpt_deblur.training.config import SimulationConfig, TrainingConfig
from napari_mpt_deblur.training.data import Pairs, Patches, TrainingData
from napari_mpt_deblur.training.fields import Field
from napari_mpt_deblur.training.folders import hold_out
from napari_mpt_deblur.training.layer import Restore, sharp_regions
from napari_mpt_deblur.training.recorded import focus_pairs, recorded_pairs
from napari_mpt_deblur.training.request import (
    FocusStacks,
    ImagePairs,
    ImageSource,
    OpenLayer,
    PairSource,
    SharpImages,
    TrainingRequest,
)
from napari_mpt_deblur.training.sharp_images import hold_out_planes, load_sharp_images
from napari_mpt_deblur.training.simulation import DefocusPairs, SharpImage
from napari_mpt_deblur.training.unlabelled import UnlabelledImages
from napari_mpt_deblur.training.validation import padded

_VALIDATION_SIDE_PX = 256
_VALIDATION_SEED = 1_000_003
_PAIRS, _UNLABELLED, _EXTRA = 11, 12, 13  # streams of random numbers
_EXTRA_SEED = 7_919
_MOST_NAMES = 20
_ITSELF = "regions of the image itself, defocused"


@dataclass(frozen=True, eq=False)
class _Opened:
    """A source of pairs, opened; `areas` are the parts of each image that are trained on."""

    train: Pairs
    validation: Sequence[Patches]
    record: dict[str, Any]
    notes: Sequence[str] = ()
    nucleus_px: tuple[float, float] | None = None
    areas: dict[Hashable, list[Area]] = field(default_factory=dict)


def open_data(request: TrainingRequest, config: TrainingConfig, start: Model | None = None) -> TrainingData:
    """Read and check all images of a request.

    Parameters
    ----------
    request : TrainingRequest
    config : TrainingConfig
    start : Model, optional
        That is trained: it says which grey levels of each image become 0 and 1, and makes the sharp side of a layer in
        which nothing is sharp.

    Raises
    ------
    DeblurError
        If an image cannot be read or trained on; the message names it.
    """
    rule = (start.config if start is not None else ModelConfig(config.network)).intensity_rule
    restore = _restorer(start) if start is not None else None
    pairs = _open_pairs(request.pairs, config, rule, restore)
    record: dict[str, Any] = {"pairs": pairs.record}
    unlabelled = extra = None
    if request.unlabelled:
        unlabelled, record["unlabelled"] = _open_unlabelled(request.unlabelled, config, rule, pairs.areas)
    if request.extra is not None:
        opened = _open_pairs(request.extra, config, rule, restore, extra=True)
        extra, record["extra"] = opened.train, opened.record
    return TrainingData(pairs.train, pairs.validation, unlabelled, extra, pairs.nucleus_px, tuple(pairs.notes), record)


def synthetic_data(train: list[SharpImage], validation: list[SharpImage], config: TrainingConfig) -> TrainingData:
    """Pairs by synthetic defocus of sharp images."""
    if not train or not validation:
        raise TrainingError("Training needs at least two sharp images: one to train on and one to validate on.")
    pairs = DefocusPairs(train, config.simulation, config.seed)
    return TrainingData(pairs, _held_out_defocus(validation, config), nucleus_px=config.simulation.nucleus_px)


def _open_pairs(
    source: PairSource,
    config: TrainingConfig,
    rule: IntensityRule,
    restore: Restore | None,
    *,
    extra: bool = False,
) -> _Opened:
    if isinstance(source, SharpImages):
        return _open_sharp(source, config, extra)

    def fields(images: Sequence[ImageSource]) -> list[Field]:
        if not images:
            raise TrainingError("There is no image to train on: name at least one.")
        return [Field.of(image, config.network.in_channels, rule, colours_together=extra) for image in images]

    if isinstance(source, OpenLayer):
        return _open_layer(
            source, fields([source.image])[0], config, restore if source.restored and not extra else None
        )
    stream = _EXTRA if extra else _PAIRS
    if isinstance(source, FocusStacks):
        first, kind = fields(source.stacks), "focus stacks"
        pairs, held, notes = focus_pairs(first, config, stream)
        areas = _spared([(source.stacks, pairs.areas, held)])
    else:
        assert isinstance(source, ImagePairs)
        if len(source.blurred) != len(source.sharp):
            raise TrainingError(f"There are {len(source.blurred)} blurred images and {len(source.sharp)} sharp ones.")
        first, kind = fields(source.blurred), "pairs"
        pairs, held, notes = recorded_pairs(first, fields(source.sharp), config, stream)
        sharp, sharp_held = ([pairs.on_sharp(area) for area in part] for part in (pairs.areas, held))
        areas = _spared([(source.blurred, pairs.areas, held), (source.sharp, sharp, sharp_held)])
    validation = pairs.held_out(held, config.validation_pairs, _VALIDATION_SIDE_PX)
    return _Opened(pairs, validation, _record(kind, [one.describe() for one in first]), notes, areas=areas)


def _spared(
    sides: Sequence[tuple[Sequence[ImageSource], Sequence[Area], Sequence[Area]]],
) -> dict[Hashable, list[Area]]:
    """Of each image what is trained on, without what is held out of it, on whichever side of whichever pair.

    Parameters
    ----------
    sides : sequence of (images, areas, areas)
        The images of one side, what is trained on of them and what is held out.
    """
    held: dict[tuple[Hashable, int], set[Area]] = {}
    for images, _, areas in sides:
        for area in areas:
            held.setdefault((_key(images[area.field]), area.group), set()).add(area._replace(field=0))
    kept: dict[Hashable, dict[Area, None]] = {_key(image): {} for images, _, _ in sides for image in images}
    for images, areas, _ in sides:
        for area in areas:
            key, part = _key(images[area.field]), area._replace(field=0)  # images may be in several pairs
            for other in held.get((key, area.group), ()):
                part = part.without(other)
            if min(part.height, part.width) > 0:
                kept[key][part] = None
    return {key: list(parts) for key, parts in kept.items()}


def _open_sharp(source: SharpImages, config: TrainingConfig, extra: bool) -> _Opened:
    together = extra or config.network.in_channels > 1
    train, held = list(source.images), list(source.validation)
    record = _record("sharp images, defocused", [{"name": image.name} for image in train])
    if extra:
        images = load_sharp_images(train, colours_together=True)
        if not images:
            raise TrainingError("There is no extra image to train on: name at least one.")
        return _Opened(DefocusPairs(images, config.simulation, config.seed + _EXTRA_SEED), (), record)
    if len(train) == 1 and not held:
        planes = load_sharp_images(train, colours_together=together)
        images, validation = hold_out_planes(planes)
        data = synthetic_data(images, validation, config)
        groups = [group for group, plane in enumerate(planes) if plane in images] or [0]  # a strip, of the only one
        kept = [Area(0, group, 0, 0, *one.pixels.shape[-2:]) for group, one in zip(groups, images, strict=True)]
        areas: dict[Hashable, list[Area]] = {_key(train[0]): kept}
        return _Opened(data.train, data.validation, record, nucleus_px=data.nucleus_px, areas=areas)
    if not held:
        train, held = hold_out(train)
    shared = {_key(image) for image in train} & {_key(image) for image in held}
    for image in train:
        if _key(image) in shared:
            raise TrainingError(f"{image.path or image.name} is both trained and validated on: keep the two apart.")
    if not train or not held:
        raise TrainingError("Training needs at least two sharp images: one to train on and one to validate on.")
    images, validation = (load_sharp_images(side, colours_together=together) for side in (train, held))
    data = synthetic_data(images, validation, config)
    areas = {_key(image): [] for image in held}  # nothing of these is trained on
    return _Opened(data.train, data.validation, record, nucleus_px=data.nucleus_px, areas=areas)


def _open_layer(source: OpenLayer, layer: Field, config: TrainingConfig, restore: Restore | None) -> _Opened:
    regions = sharp_regions(layer, max(config.patch_px), restore)
    pairs = DefocusPairs(regions.train, config.simulation, config.seed, keep_range=True)
    validation = _held_out_defocus(regions.held_out, config, keep_range=True)
    kind = "regions of the image, restored and defocused" if regions.restored else _ITSELF
    record = _record(kind, [layer.describe()])
    return _Opened(pairs, validation, record, [regions.note], areas={_key(source.image): regions.areas})


def _restorer(start: Model) -> Restore:
    """The model, which is on the CPU, as it is before it is trained."""

    @torch.no_grad()
    def restore(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None]
        restored: np.ndarray = padded(start.network, images, start.network.config.size_multiple)[0].numpy()
        return restored

    return restore


def _held_out_defocus(images: list[SharpImage], config: TrainingConfig, *, keep_range: bool = False) -> list[Patches]:
    multiple = config.network.size_multiple
    longest = max(max(image.pixels.shape[-2:]) for image in images) if keep_range else _VALIDATION_SIDE_PX
    side = max(multiple, min(longest, _VALIDATION_SIDE_PX) // multiple * multiple)
    # pairs that are sharp already have no PSNR to speak of
    simulation: SimulationConfig = replace(config.simulation, identity=0.0)
    pairs = DefocusPairs(images, simulation, _VALIDATION_SEED, keep_range=keep_range)
    return [pairs.batch(number, 1, side) for number in range(config.validation_pairs)]


def _open_unlabelled(
    sources: Sequence[ImageSource],
    config: TrainingConfig,
    rule: IntensityRule,
    taken: dict[Hashable, list[Area]],
) -> tuple[UnlabelledImages, dict[str, Any]]:
    """Of images that are validated on, too, only what is trained on."""
    side = max(config.patch_px)
    fields = [Field.of(source, config.network.in_channels, rule) for source in sources]
    areas: list[Area] = []
    for number, (source, one) in enumerate(zip(sources, fields, strict=True)):
        whole = whole_planes(number, one, side)
        known = taken.get(_key(source))
        if known and min(min(area.height, area.width) for area in known) < side:
            raise TrainingError(
                f"{one.name} is too small: what is not held out of it is smaller than a patch of {side} pixels; choose "
                "a smaller patch, or other unlabelled images."
            )
        areas += whole if known is None else [area._replace(field=number) for area in known]
    if not areas:
        raise TrainingError("All unlabelled images are held out for validation: name others.")
    record = _record("unlabelled images", [one.describe() for one in fields])
    return UnlabelledImages(fields, areas, config, _UNLABELLED), record


def _key(source: ImageSource) -> Hashable:
    """The same for all names of one image."""
    return source.path.resolve() if source.path is not None else id(source.view and source.view.data)


def _record(kind: str, images: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, "count": len(images), "images": images[:_MOST_NAMES]}
