"""The work itself, as a generator that any runner can drive: it yields often, never raises and knows no Qt."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.errors import DeblurError
from napari_mpt_deblur.images.view import ImageView
from napari_mpt_deblur.widgets.deblur.request import DeblurRequest, ImportRequest
from napari_mpt_deblur.widgets.estimator import quiet_steps
from napari_mpt_deblur.widgets.stages import Failure, Stage, failure

if TYPE_CHECKING:
    from napari_mpt_deblur.checkpoints import Model, ModelInfo
    from napari_mpt_deblur.restoration import Deblurrer, Progress, Restored


@dataclass(frozen=True)
class Machinery:
    """What this computer and this installation offer.

    Attributes
    ----------
    precisions : dict
        By device, "auto" among them.
    default_device : str
        What "auto" stands for.
    models : tuple of ModelInfo
        Broken ones are among them and say why.
    """

    precisions: dict[str, tuple[str, ...]]
    default_device: str
    models: tuple[ModelInfo, ...]


@dataclass(frozen=True)
class Outlook:
    """What a run will take, in words."""

    text: str


def deblur_steps(request: DeblurRequest) -> Generator[Stage | Progress, None, Restored | Failure]:
    """Restore what a request asks for.

    Parameters
    ----------
    request : DeblurRequest

    Yields
    ------
    Stage or Progress
        After every step and every batch of tiles: the places where the work can be cancelled.

    Returns
    -------
    Restored or Failure
        No exception leaves it: Qt workers swallow some kinds and report others twice.
    """
    try:
        deblurrer, view, parts = yield from _prepare(request)
        return (yield from deblurrer.run(view, **parts))
    except Exception as error:
        return failure(error)


def estimate_steps(request: DeblurRequest) -> Generator[Stage, None, Outlook | Failure]:
    """Estimate what a run will take, unless the settings change again within a moment.

    Parameters
    ----------
    request : DeblurRequest

    Yields
    ------
    Stage
        Where it can be cancelled.

    Returns
    -------
    Outlook or Failure
    """
    try:
        yield from quiet_steps()
        deblurrer, view, parts = yield from _prepare(request)
        estimate = deblurrer.estimate(view, **parts)
        yield Stage("Estimating...")
        return Outlook(estimate.describe(deblurrer.pace()))
    except Exception as error:
        return failure(error)


def import_steps(request: ImportRequest) -> Generator[Stage, None, Path | Failure]:
    """Put weights of others into the library.

    Parameters
    ----------
    request : ImportRequest

    Yields
    ------
    Stage

    Returns
    -------
    Path or Failure
        Of the model.
    """
    try:
        yield Stage(f"Importing {request.path.name}...")
        from napari_mpt_deblur.checkpoints import import_checkpoint
        from napari_mpt_deblur.networks.config import stage_scales

        scales = tuple(map(stage_scales, request.scales)) or None
        return import_checkpoint(
            request.path, request.name, intensities=request.intensities, clip=request.clip, scales=scales
        )
    except Exception as error:
        return failure(error, "Importing", "close other programs", "with another file")


def _prepare(request: DeblurRequest) -> Generator[Stage, None, tuple[Deblurrer, ImageView, dict[str, Any]]]:
    """The engine with the request's model, the image, and which parts of it."""
    yield Stage("Starting the engine...")
    from napari_mpt_deblur.restoration import Deblurrer

    yield Stage(f"Reading the model {request.model!r}...")
    model = _load(request.model, request.device)
    deblurrer = Deblurrer(model, device=request.device, precision=request.precision, tile_px=request.tile_px)
    view = ImageView.of(
        request.data,
        request.axes,
        pixel_size_um=request.pixel_size_um,
        nucleus_diameter_px=request.nucleus_diameter_px,
    )
    planes = None
    if request.plane_index is not None:
        planes = tuple(plane for plane in view.planes if plane.index == request.plane_index)
    return deblurrer, view, {"planes": planes, "region": request.region_px}


_newest: dict[tuple[Any, ...], Model] = {}  # one at most


def _load(name: str, device: str) -> Model:
    """A model; the newest is kept, since an estimate follows every change of the panel, until its file is another."""
    from napari_mpt_deblur.checkpoints import find_model, load_model

    path = find_model(name)
    state = path.stat()
    key = (path, device, state.st_ino, state.st_size, state.st_mtime_ns)
    model = _newest.get(key)
    if model is None:
        _newest.clear()  # before the next takes memory
        model = load_model(name, device=device)
        if not model.notes:  # of a device that was full
            _newest[key] = model
    return model


def _warm_up(models: tuple[ModelInfo, ...]) -> None:
    """Do what the first run would wait for while the user still looks around: torch imports much on first use."""
    from napari_mpt_deblur.checkpoints import load_model
    from napari_mpt_deblur.restoration import Deblurrer

    for model in models:
        if not model.problem:
            with suppress(DeblurError):  # told when it is used
                Deblurrer(load_model(model.name))
            return


def survey_steps() -> Generator[Stage, None, Machinery | Failure]:
    """Find out which devices and models there are; imports torch, which takes seconds the first time.

    Yields
    ------
    Stage

    Returns
    -------
    Machinery or Failure
    """
    try:
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.checkpoints import available_models

        models = tuple(available_models())
        yield Stage("Starting the engine...")
        from napari_mpt_deblur.restoration import available_devices, available_precisions, pick_device

        default = pick_device("auto")
        precisions = {device: available_precisions(device) for device in available_devices()}
        yield Stage("Starting the engine...")
        _warm_up(models)
        return Machinery({"auto": available_precisions(default), **precisions}, default, models)
    except Exception as error:
        return failure(error)
