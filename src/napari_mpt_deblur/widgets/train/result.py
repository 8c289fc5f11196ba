"""What a training run shows in the viewer: its preview, the plane before and after, and its figures in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.training.events import Estimate, Finished, Preview, Started
from napari_mpt_deblur.widgets.result import result_layer
from napari_mpt_deblur.widgets.train.folder import EarlierRun
from napari_mpt_deblur.widgets.train.request import TrainRequest
from napari_mpt_deblur.words import describe_seconds

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_mpt_deblur.restoration import Restored
    from napari_mpt_deblur.widgets.train.job import Outlook
    from napari_mpt_deblur.widgets.train.view import TrainView

PREVIEW = "Training preview"


@dataclass(frozen=True, eq=False)
class _Pixels:
    """An array and its record, as a restoration has them."""

    array: np.ndarray
    record: dict[str, Any]


def preview_pixels(preview: Preview, request: TrainRequest) -> np.ndarray:
    """A preview in its source's dtype and shape.

    Parameters
    ----------
    preview : Preview
    request : TrainRequest

    Returns
    -------
    ndarray
        Of ``request.preview_plane.shape``; alpha, which is not restored, is full.
    """
    shape, dtype = request.preview_plane.shape, np.dtype(request.preview_plane.data.dtype)
    pixels = np.asarray(preview.array)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    if request.preview_plane.axes.has_samples and pixels.shape[-1] < shape[-1]:
        full = np.full((*pixels.shape[:-1], 1), np.iinfo(dtype).max if dtype.kind in "iu" else 1.0)
        pixels = np.concatenate((pixels, full), axis=-1)
    return pixels.astype(dtype).reshape(shape)


def preview_layer(source: Image, preview: Preview, request: TrainRequest) -> Image:
    """A layer for the previews of a run, where its source is."""
    record = {"preview_of_training": True, "model": {"name": request.base}}
    pixels = _Pixels(preview_pixels(preview, request), record)
    return result_layer(source, pixels, request.preview_plane, PREVIEW)


def compared_layer(source: Image, restored: Restored, request: TrainRequest, when: str) -> Image:
    """The plane before or after training, where its source is."""
    return result_layer(source, restored, request.whole_plane, f"{request.whole_plane.source_name} {when} training")


def describe_outlook(estimate: Estimate, request: TrainRequest, earlier: EarlierRun | None = None) -> str:
    """What a run will take, for people; of one that is gone on with, what is left of it."""
    memory = _describe_bytes(estimate.memory_bytes)
    each_s = estimate.seconds / request.config.iterations
    fitting = None if request.minutes is None else max(1, round(60 * request.minutes / each_s))  # as the engine
    if earlier is not None and request.go_on:
        iterations = request.config.iterations if fitting is None else earlier.iterations
        left = max(0, iterations - earlier.iteration)
        if fitting is None or fitting >= left:
            what = f"The {left} iterations that are left take {describe_seconds(left * each_s)}"
            return f"{what} and {memory} of memory." if left else "Nothing is left to train; its figures are shown."
    if fitting is not None:
        return f"In {request.minutes:g} min there is time for about {fitting} iterations; they take {memory} of memory."
    each = f"{estimate.seconds_per_step:.2g} s an iteration"
    return f"Takes {describe_seconds(estimate.seconds)} ({each}) and {memory} of memory."


def describe_earlier(earlier: EarlierRun | None, iterations: int | None) -> str:
    """What can be gone on with; nothing where there is nothing.

    Parameters
    ----------
    earlier : EarlierRun or None
    iterations : int or None
        That the run is to have; None: as many as the earlier one was to have.
    """
    if earlier is None:
        return ""
    if earlier.iteration >= (earlier.iterations if iterations is None else iterations):
        return f"Keep the finished run ({earlier.iteration} iterations)"
    return f"Go on from iteration {earlier.iteration}, where it stopped"


def describe_start(started: Started) -> str:
    """How a run began: device and notes."""
    first = f"Training on {started.device} ({started.precision})"
    if started.iteration:
        first += f", going on from iteration {started.iteration}"
    return " ".join([f"{first}.", *started.notes])


def describe_end(finished: Finished) -> str:
    """Why a run ended, and what to do now, in a line."""
    how = {
        "done": "Done",
        "time": "The time is up",
        "stopped": "Stopped",
        "diverged": "Training diverged and went back to the weights",
    }[finished.reason]
    then = "Validation got worse." if finished.got_worse else "Save the model to use it."
    return f"{how} after {finished.iteration} iterations. {then}"


def describe_finish(finished: Finished) -> tuple[str, str]:
    """The figures before and after, and a warning where there is reason for one.

    Parameters
    ----------
    finished : Finished

    Returns
    -------
    tuple of str
        The second is empty where all is well.
    """
    before, after = finished.before, finished.after
    text = " ".join(
        [
            f"Held-out patches: PSNR {before.psnr:.2f} dB before, {after.psnr:.2f} dB after training "
            f"({after.psnr - before.psnr:+.2f} dB); SSIM {before.ssim:.3f} before, {after.ssim:.3f} after.",
            *finished.notes,
        ]
    )
    warnings = []
    if finished.reason == "diverged":
        warnings.append(
            f"The loss was no number any more: training ended, and went back to iteration {finished.iteration}. Save "
            "that model if it serves, and train from it or anew with a lower learning rate."
        )
    if finished.got_worse:
        warnings.append(
            f"Validation got worse by {before.psnr - after.psnr:.2f} dB: the model that training began with is the "
            "better one. Use that, or train on more images or with a lower learning rate."
        )
    return text, " ".join(warnings)


def _describe_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e8 else f"{max(1, round(count / 1e6))} MB"


@dataclass(frozen=True)
class Estimates:
    """What the panel shows of estimates: time, memory, and which run can be gone on with (None: not known)."""

    view: TrainView
    ask: Callable[[], TrainRequest]

    def show_waiting(self, text: str) -> None:
        self.view.show_outlook(text, None)

    def show_estimate(self, request: TrainRequest, outlook: Outlook) -> None:
        earlier = describe_earlier(outlook.earlier, request.config.iterations if request.minutes is None else None)
        self.view.show_outlook(describe_outlook(outlook.estimate, request, outlook.earlier), earlier)

    def describe_error(self, error: Exception) -> str:
        from napari_mpt_deblur.widgets.train.job import training_failure

        return training_failure(error).message
