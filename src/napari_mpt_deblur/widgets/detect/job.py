"""Detection and comparison as a generator that any runner can drive: it yields often, never raises and knows no Qt."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.detection.evidence import grey_levels
from napari_mpt_deblur.detection.labels import check_no_mask
from napari_mpt_deblur.images.sharpness import sharpness
from napari_mpt_deblur.widgets.detect.outcome import DetectMachinery, DetectStep, Found, Outcome
from napari_mpt_deblur.widgets.detect.request import DetectRequest, Picture, TruthKind
from napari_mpt_deblur.widgets.stages import Failure, Stage, failure

if TYPE_CHECKING:
    from napari_mpt_deblur.detection import AnyDetector, Detected
    from napari_mpt_deblur.detection.ledger import Probabilities, Side

# of an image alone there is nothing to say about what became of its nuclei
_ALONE = (
    *("index", "plane", "y", "x", "area_px", "area_um2", "probability"),
    *("mean_intensity", "total_intensity", "contrast", "evidence"),
)

detection_failure = partial(
    failure, doing="Detection", less="detect in the current plane only", otherwise="on the CPU or with another model"
)


def detect_steps(request: DetectRequest) -> Generator[Stage | DetectStep, None, Outcome | Failure]:
    """Detect and compare what a request asks for.

    Parameters
    ----------
    request : DetectRequest

    Yields
    ------
    Stage or DetectStep
        After every step and every tile: the places where the work can be cancelled.

    Returns
    -------
    Outcome or Failure
        No exception leaves it.
    """
    try:
        began = time.monotonic()
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.detection import available_detectors, load_detector

        absent = {info.name for info in available_detectors() if info.path is None}
        doing = "Fetching" if request.model in absent else "Reading"
        yield Stage(f"{doing} the model {str(request.model)!r}...")
        detector = load_detector(request.model, device=request.device)
        outcome = yield from _detect_all(request, detector)
        outcome.record["seconds"] = round(time.monotonic() - began, 3)
        return outcome
    except Exception as error:
        return detection_failure(error)


def survey_steps() -> Generator[Stage, None, DetectMachinery | Failure]:
    """Find out which devices and detection models there are; imports torch, which takes seconds the first time.

    Yields
    ------
    Stage

    Returns
    -------
    DetectMachinery or Failure
    """
    try:
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.detection import available_detectors

        models = tuple(available_detectors())
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.restoration import available_devices, pick_device

        devices, default = tuple(available_devices()), pick_device("auto")
        yield Stage("Starting the engine...")
        yield from _warm_up()
        return DetectMachinery(devices, default, models)
    except Exception as error:
        return detection_failure(error)


def _warm_up() -> Generator[Stage, None, None]:
    """Do what the first run would wait for while the user still looks around: much is imported and compiled then."""
    import napari_mpt_deblur.detection.run  # noqa: F401  brings torch

    yield Stage("Starting the engine...")
    from napari_mpt_deblur.detection.comparison import compare

    plane = np.pad(np.ones((2, 2), np.int32), 2)
    compare(plane, plane, plane, truth=plane)
    yield Stage("Starting the engine...")
    from napari_mpt_deblur.widgets.detect.result import warm_up

    warm_up()


def _detect_all(request: DetectRequest, detector: AnyDetector) -> Generator[Stage | DetectStep, None, Outcome]:
    channels = detector.n_channel_in
    crop = partial(_crop, index=request.plane_index, channels=channels)
    pictures = {"before": crop(request.before)}
    if request.after is not None:
        pictures["after"] = crop(request.after)
    notes: tuple[str, ...] = ()
    if request.truth_kind is TruthKind.SHARP_IMAGE and request.truth is not None:
        pictures["reference"] = crop(request.truth)
    elif request.truth_kind is TruthKind.SHARPEST_PLANE:
        pictures["pseudo-reference"], note = yield from _sharpest(request.before, request.plane_index, channels)
        notes = (note,)

    total = sum(_plane_count(picture, channels) for picture in pictures.values())
    detected: dict[str, Detected] = {}
    done = 0
    yield DetectStep(0, total)
    for name, picture in pictures.items():
        detected[name] = yield from _detect(name, picture, detector, request, done, total)
        done += _plane_count(picture, channels)

    yield Stage("Comparing...")
    before = detected["before"]
    raw = grey_levels(pictures["before"].view(), before.axes)
    probabilities = {name: number_uniquely(detected[name]) for name in ("before", "after") if name in detected}
    record = _record(request, detector, before)
    if "after" not in detected:
        from napari_mpt_deblur.detection.ledger import ledger

        entries = ledger(
            before.labels,
            before.labels,
            raw,
            probabilities=(probabilities["before"], None),
            pixel_size_um=request.pixel_size_um,
        )
        features = entries.features("before")
        return Outcome(Found(before.labels, before.axes, {name: features[name] for name in _ALONE}), None, None, record)

    from napari_mpt_deblur.detection.comparison import compare

    after, truth = detected["after"], None
    if request.truth_kind is TruthKind.LABELS and request.truth is not None:
        truth = np.asarray(crop(request.truth).data)
        check_no_mask(truth, "truth")
    elif request.truth_kind is not TruthKind.NONE:
        truth = detected[request.truth_kind.value].labels
    comparison = compare(
        before.labels,
        after.labels,
        raw,
        truth=truth,
        truth_is="truth" if truth is None else request.truth_kind.value,  # type: ignore[arg-type]
        pooled=request.pooled,
        probabilities=(probabilities["before"], probabilities["after"]),
        pixel_size_um=request.pixel_size_um,
    )
    comparison = replace(comparison, notes=(*notes, *comparison.notes))
    sides: dict[Side, Found] = {
        "before": Found(before.labels, before.axes, comparison.ledger.features("before")),
        "after": Found(after.labels, after.axes, comparison.ledger.features("after")),
    }
    return Outcome(sides["before"], sides["after"], comparison, record)


def _detect(
    name: str, picture: Picture, detector: AnyDetector, request: DetectRequest, done: int, total: int
) -> Generator[DetectStep, None, Detected]:
    from napari_mpt_deblur.detection import detection_steps

    steps = detection_steps(picture.view(request.pixel_size_um), detector, request.settings)
    while True:
        try:
            at = next(steps)
        except StopIteration as end:
            detected: Detected = end.value
            return detected
        text = f"{name.capitalize()}: plane {at.plane} of {at.planes}"
        if at.tiles > 1:
            text += f", tile {at.tile} of {at.tiles}"
        yield DetectStep(done + at.plane - 1 + at.tile / at.tiles, total, text)


def number_uniquely(detected: Detected) -> Probabilities:
    """Number the nuclei on from plane to plane, in place: in a labels layer each needs a label of its own.

    Parameters
    ----------
    detected : Detected

    Returns
    -------
    mapping of (plane, label) to float
        Their probabilities, as the ledger takes them.
    """
    probabilities: dict[tuple[int, int], float] = {}
    count = 0
    for number, (index, instances) in enumerate(detected.planes.items()):
        plane = detected.labels[index]
        plane[plane > 0] += count
        for i, probability in enumerate(instances.prob, start=count + 1):
            probabilities[number, i] = float(probability)
        count += len(instances.prob)
    return probabilities


def _crop(picture: Picture, *, index: tuple[int, ...] | None, channels: int) -> Picture:
    """The current plane, with all its channels where the model takes several; one plane for all stays as it is."""
    if index is None or len(picture.axes.leading) != len(index):
        return picture
    return picture.plane(index, whole="C" if channels > 1 else "")


def _plane_count(picture: Picture, channels: int) -> int:
    together = "C" if channels > 1 and not picture.axes.has_samples else ""
    lengths = zip(picture.axes.leading, picture.grid, strict=False)
    return math.prod(length for letter, length in lengths if letter not in together)


def _sharpest(
    picture: Picture, index: tuple[int, ...] | None, channels: int
) -> Generator[Stage, None, tuple[Picture, str]]:
    """The sharpest plane along Z of every position along the other axes, and which those are in a sentence.

    Channels that the model takes together have one sharpest plane.
    """
    leading, grid = picture.axes.leading, picture.grid
    whole = "C" if channels > 1 else ""
    first = index or (0,) * len(leading)
    lengths = [
        1 if letter == "Z" or (index is not None and letter not in whole) else length
        for letter, length in zip(leading, grid, strict=False)
    ]
    data = np.empty((*lengths, *picture.data.shape[len(leading) :]), picture.data.dtype)
    z_axis, chosen = leading.index("Z"), set()
    for offset in np.ndindex(*(1 if letter in whole else n for letter, n in zip(leading, lengths, strict=True))):
        position = [start + step for start, step in zip(first, offset, strict=True)]
        best, best_sharpness = None, -math.inf
        for z in range(grid[z_axis]):
            yield Stage(f"Looking for the sharpest plane: {z + 1} of {grid[z_axis]}...")
            position[z_axis] = z
            part = picture.plane(tuple(position), whole=whole)
            value = sharpness(grey_levels(part.view(), "YX" if whole else leading).reshape(grid[-2:]))
            if best is None or value > best_sharpness:
                best, best_sharpness, best_z = part, value, z
        assert best is not None  # no axis is empty
        chosen.add(best_z)
        key = tuple(
            slice(None) if letter in whole else slice(i, i + 1) for letter, i in zip(leading, offset, strict=True)
        )
        data[key] = np.asarray(best.data)
    which = ", ".join(map(str, sorted(chosen)))
    note = (
        f"The pseudo-reference is plane Z = {which} of {picture.name!r}, where the image before agrees with it by "
        "definition."
    )
    return replace(picture, data=data), note


def _record(request: DetectRequest, detector: AnyDetector, detected: Detected) -> dict[str, Any]:
    names: Mapping[str, Picture | None] = {
        "before": request.before,
        "after": request.after,
        "truth": request.truth,
    }
    return {
        "sources": {name: picture.name for name, picture in names.items() if picture is not None},
        "truth": request.truth_kind.value,
        "plane": None if request.plane_index is None else list(request.plane_index),
        "model": {"name": detector.name, "sha256": detector.sha256},
        "thresholds": detected.thresholds.to_dict(),
        "percentiles": list(request.settings.percentiles),
        "nucleus_diameter_px": request.settings.nucleus_diameter_px,
        "scale": detected.scale,
        "device": str(detector.device),
    }
