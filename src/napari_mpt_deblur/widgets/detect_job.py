"""Detection and comparison as a generator that any runner can drive: it yields often, never raises and knows no Qt."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.errors import LabelsError
from napari_mpt_deblur.images.sharpness import sharpness
from napari_mpt_deblur.images.view import ImageView
from napari_mpt_deblur.widgets.detect_request import DetectRequest, Picture, TruthKind
from napari_mpt_deblur.widgets.job import Failure, Stage, failure

if TYPE_CHECKING:
    from napari_mpt_deblur.detection import Detected, Detector, DetectorInfo
    from napari_mpt_deblur.detection.comparison import Comparison
    from napari_mpt_deblur.detection.ledger import Probabilities, Side

# of an image alone there is nothing to say about what became of its nuclei
_ALONE = (
    *("index", "plane", "y", "x", "area_px", "area_um2", "probability"),
    *("mean_intensity", "total_intensity", "contrast", "evidence"),
)

detection_failure = partial(
    failure, doing="Detection", less="detect in the current plane only", otherwise="on the CPU or with another model"
)


@dataclass(frozen=True)
class DetectStep:
    """How far a run is.

    Attributes
    ----------
    done : float
        Planes of all images; a tile is a part of one.
    total : int
    text : str
        Where it is, for people.
    """

    done: float
    total: int
    text: str = ""


@dataclass(frozen=True)
class DetectMachinery:
    """What this computer and this installation offer.

    Attributes
    ----------
    devices : tuple of str
    default_device : str
        What "auto" stands for.
    models : tuple of DetectorInfo
        Broken ones are among them and say why.
    """

    devices: tuple[str, ...]
    default_device: str
    models: tuple[DetectorInfo, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """The nuclei of one image.

    Attributes
    ----------
    labels : ndarray
        int32; every nucleus of the image has a number of its own.
    axes : str
        Of the labels: those of the image without colours, and without C where the model takes the channels together.
    features : dict of str to ndarray
        For the features table of a labels layer.
    """

    labels: np.ndarray
    axes: str
    features: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        return len(self.features["index"])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found.

    Attributes
    ----------
    before : Found
    after : Found or None
    comparison : Comparison or None
        None without an image after.
    record : dict
        What reproduces it, for JSON.
    """

    before: Found
    after: Found | None
    comparison: Comparison | None
    record: dict[str, Any]


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
    from napari_mpt_deblur.widgets.detect_result import compile_colouring

    compile_colouring()


def _detect_all(request: DetectRequest, detector: Detector) -> Generator[Stage | DetectStep, None, Outcome]:
    channels = detector.config.n_channel_in
    crop = partial(_crop, index=request.plane_index, channels=channels)
    pictures = {"before": crop(request.before)}
    if request.after is not None:
        pictures["after"] = crop(request.after)
    notes: tuple[str, ...] = ()
    if request.truth_kind is TruthKind.SHARP_IMAGE and request.truth is not None:
        pictures["reference"] = crop(request.truth)
    elif request.truth_kind is TruthKind.SHARPEST_PLANE:
        pictures["pseudo-reference"], note = yield from _sharpest(request.before, request.plane_index)
        notes = (note,)

    total = sum(_plane_count(picture, channels) for picture in pictures.values())
    detected: dict[str, Detected] = {}
    done = 0
    yield DetectStep(0, total)
    for name, picture in pictures.items():
        detected[name] = yield from _detect(name, picture, detector, request, done, total)
        done += _plane_count(picture, channels)

    yield Stage("Comparing...")
    before, raw = detected["before"], _grey(pictures["before"], detected["before"].axes)
    probabilities = {name: number_uniquely(detected[name]) for name in ("before", "after") if name in detected}
    record = _record(request, detector, before)
    if "after" not in detected:
        from napari_mpt_deblur.detection.ledger import ledger

        entries = ledger(
            before.labels,
            before.labels,
            raw,
            probabilities=(probabilities["before"], None),
            pixel_size_um=request.before.pixel_size_um,
        )
        features = entries.features("before")
        return Outcome(Found(before.labels, before.axes, {name: features[name] for name in _ALONE}), None, None, record)

    from napari_mpt_deblur.detection.comparison import compare

    after, truth = detected["after"], None
    if request.truth_kind is TruthKind.LABELS and request.truth is not None:
        truth = np.asarray(crop(request.truth).data)
    elif request.truth_kind is not TruthKind.NONE:
        truth = detected[request.truth_kind.value].labels
    comparison = compare(
        before.labels,
        after.labels,
        raw,
        truth=None if truth is None else _spread(truth, before.labels.shape),
        truth_is="truth" if truth is None else request.truth_kind.value,  # type: ignore[arg-type]
        pooled=request.pooled,
        probabilities=(probabilities["before"], probabilities["after"]),
        pixel_size_um=request.before.pixel_size_um,
    )
    comparison = replace(comparison, notes=(*notes, *comparison.notes))
    sides: dict[Side, Found] = {
        "before": Found(before.labels, before.axes, comparison.ledger.features("before")),
        "after": Found(after.labels, after.axes, comparison.ledger.features("after")),
    }
    return Outcome(sides["before"], sides["after"], comparison, record)


def _detect(
    name: str, picture: Picture, detector: Detector, request: DetectRequest, done: int, total: int
) -> Generator[DetectStep, None, Detected]:
    from napari_mpt_deblur.detection import detection_steps

    view = ImageView.of(picture.data, picture.axes, pixel_size_um=picture.pixel_size_um)
    steps = detection_steps(view, detector, request.settings)
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


def _sharpest(picture: Picture, index: tuple[int, ...] | None) -> Generator[Stage, None, tuple[Picture, str]]:
    """The sharpest plane along Z of every position along the other axes, and which those are in a sentence."""
    leading = picture.axes.leading
    lengths = picture.grid[: len(leading)]
    around = [
        range(1) if letter == "Z" else range(length) if index is None else range(index[axis], index[axis] + 1)
        for axis, (letter, length) in enumerate(zip(leading, lengths, strict=True))
    ]
    z_axis = leading.index("Z")
    chosen, planes = [], []
    for offset in np.ndindex(*map(len, around)):
        position = [steps[i] for steps, i in zip(around, offset, strict=True)]
        values = []
        for z in range(lengths[z_axis]):
            yield Stage(f"Looking for the sharpest plane: {z + 1} of {lengths[z_axis]}...")
            position[z_axis] = z
            pixels = np.asarray(picture.data[tuple(position)])
            values.append(sharpness(pixels[..., :3].mean(axis=-1) if picture.axes.has_samples else pixels))
        position[z_axis] = int(np.argmax(values))
        chosen.append(position[z_axis])
        planes.append(np.asarray(picture.data[tuple(position)]))
    data = np.stack(planes).reshape(*map(len, around), *planes[0].shape)
    which = ", ".join(map(str, sorted(set(chosen))))
    note = (
        f"The pseudo-reference is plane Z = {which} of {picture.name!r}, where the image before agrees with it by "
        "definition."
    )
    return replace(picture, data=data), note


def _grey(picture: Picture, axes: str) -> np.ndarray:
    """The grey levels on the grid of labels: the mean of colours, and of channels that a model takes together."""
    pixels = np.asarray(picture.data)
    if picture.axes.has_samples:
        pixels = pixels[..., :3].mean(axis=-1)
    if "C" in picture.axes.leading and "C" not in axes:
        pixels = pixels.mean(axis=picture.axes.leading.index("C"))
    return pixels


def _spread(truth: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One plane of truth for all planes of a stack; truth of the same shape stays."""
    try:
        return np.broadcast_to(truth, shape)
    except ValueError as error:
        sizes = [" x ".join(map(str, lengths)) for lengths in (truth.shape, shape)]
        raise LabelsError(
            f"The truth ({sizes[0]}) does not fit the labels ({sizes[1]}): give one of the same planes."
        ) from error


def _record(request: DetectRequest, detector: Detector, detected: Detected) -> dict[str, Any]:
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
