"""``mpt-deblur compare``: nuclei before and after, against the truth where there is one."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.cli.console import DONE, axes, size, subparser
from napari_mpt_deblur.errors import DeblurError, LabelsError, ModelError, ParameterError
from napari_mpt_deblur.images import ImageView, atomic_path, check_writable, read_image

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison

_SIDES = ("before", "after")
_DETECTION_OPTIONS = ("model", "prob", "nms", "nucleus_diameter_px")


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "compare", "compare the nuclei before and after deblurring", run)
    for name in _SIDES:
        parser.add_argument(
            f"--{name}",
            required=True,
            metavar="FILE",
            help="an image, in which nuclei are detected, or a label image: whole numbers, 0 for background, "
            "equal throughout each nucleus",
        )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--labels", dest="kind", action="store_const", const="labels", help="both are label images")
    kind.add_argument("--images", dest="kind", action="store_const", const="images", help="neither is a label image")
    held_to = parser.add_mutually_exclusive_group()
    held_to.add_argument("--truth", metavar="LABELS", help="label image of the true nuclei")
    held_to.add_argument("--reference", metavar="IMAGE", help="sharp image, in which nuclei are detected as well")
    parser.add_argument(
        "--raw", metavar="IMAGE", help="image to measure intensities and evidence on (default: BEFORE, if an image)"
    )
    parser.add_argument("--json", required=True, metavar="OUT.json", help="file for the figures")
    parser.add_argument("--csv", metavar="OUT.csv", help="file for the ledger, a row a nucleus")
    parser.add_argument(
        "--per-image", action="store_true", help="mean of the planes' average precisions (default: objects pooled)"
    )
    parser.add_argument("--model", help="detection model (default: the one in the box)")
    parser.add_argument("--prob", type=_fraction, help="least probability of a nucleus (default: the model's)")
    parser.add_argument("--nms", type=_fraction, help="overlap from which one of two is dropped (default: the model's)")
    parser.add_argument(
        "--nucleus-diameter",
        dest="nucleus_diameter_px",
        type=size,
        metavar="PIXELS",
        help="diameter of typical nuclei, to bring the images to the model's scale",
    )
    parser.add_argument("--axes", type=axes, help="of all files, such as ZYX (default: what each file says)")
    parser.add_argument("--pixel-size", type=size, metavar="UM", help="width of a pixel (default: what the file says)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")


def run(arguments: argparse.Namespace) -> int:
    """Compare, write the figures and print them.

    Returns
    -------
    int
        0

    Raises
    ------
    DeblurError
        If a file cannot be read or written, or the files do not belong together.
    """
    outputs = _outputs(arguments)
    before, after = (_read(path, arguments) for path in (arguments.before, arguments.after))
    are_labels = [_is_labels(view, arguments.kind) for view in (before, after)]
    if (
        all(are_labels)
        and not arguments.reference
        and any(getattr(arguments, name) is not None for name in _DETECTION_OPTIONS)
    ):
        raise ParameterError(
            "There is nothing to detect, BEFORE and AFTER are label images: leave the model's options out, or say "
            "--images."
        )
    raw = _read(arguments.raw, arguments) if arguments.raw else None if are_labels[0] else before
    labels = [
        _labels(path, view) if is_labels else _detect(path, view, arguments)
        for path, view, is_labels in zip((arguments.before, arguments.after), (before, after), are_labels, strict=True)
    ]
    truth = None
    if arguments.truth:
        truth = _labels(arguments.truth, _read(arguments.truth, arguments))
    elif arguments.reference:
        truth = _detect(arguments.reference, _read(arguments.reference, arguments), arguments)

    from napari_mpt_deblur.detection.comparison import compare

    sizes = (view.pixel_size_um for view in (raw, before, after) if view is not None)
    comparison = compare(
        labels[0],
        labels[1],
        None if raw is None else _grey(raw),
        truth=truth,
        truth_is="reference" if arguments.reference else "truth",
        pooled=not arguments.per_image,
        pixel_size_um=next((size_um for size_um in sizes if size_um), None),
    )
    taken = {side: "labels" if known else "image" for side, known in zip(_SIDES, are_labels, strict=True)}
    _write(comparison, taken, outputs, arguments.overwrite)
    for side in _SIDES:
        print(f"{side}: {getattr(arguments, side)}, taken as {taken[side]}")
    print("\n".join(describe(comparison)))
    return DONE


def describe(comparison: Comparison) -> list[str]:
    """A comparison in words, a line each."""
    lines = []
    if comparison.curve:
        how = "pooled over all planes" if comparison.pooled else "the mean of the planes"
        lines += [f"Average precision against the {comparison.truth}, {how}:", "IoU      before    after      gain"]
        rows = [(f"{score.threshold:g}", score.before, score.after, score.gain_percent) for score in comparison.scores]
        rows.append(("mean", *comparison.means))
        for name, before, after, gain in rows:
            lines.append(f"{name:6} {before:8.3f} {after:8.3f}" + ("" if gain is None else f" {gain:+7.1f} %"))
    for side, totals in comparison.ledger.totals().items():
        count, *fates = (f"{number} {name}" for name, number in totals.items() if number is not None)
        lines.append(f"{side}: {count}: {', '.join(fates)}")
    return [*lines, *comparison.notes]


def _outputs(arguments: argparse.Namespace) -> list[Path]:
    """The files to write, checked before the work."""
    outputs = [Path(name) for name in (arguments.json, arguments.csv) if name]
    for output in outputs:
        check_writable(output, overwrite=arguments.overwrite)
    inputs = (arguments.before, arguments.after, arguments.truth, arguments.reference, arguments.raw)
    read = {Path(name).resolve() for name in inputs if name}
    for output in outputs:
        if output.resolve() in read:
            raise ParameterError(f"The output {output} is an input: choose another name, inputs are never changed.")
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise ParameterError("The figures and the ledger would be written to one file: give --csv another name.")
    return outputs


def _read(path: str, arguments: argparse.Namespace) -> ImageView:
    try:
        return read_image(path, arguments.axes, pixel_size_um=arguments.pixel_size)
    except DeblurError as error:
        raise _about(path, error) from error


def _is_labels(view: ImageView, kind: str | None) -> bool:
    from napari_mpt_deblur.detection.labels import looks_like_labels

    if kind is not None:
        return kind == "labels"
    return not view.axes.has_samples and looks_like_labels(_pixels(view))


def _labels(path: str, view: ImageView) -> np.ndarray:
    from napari_mpt_deblur.detection.labels import as_labels

    if view.axes.has_samples:
        raise LabelsError(f"{path} is a colour image, not labels: save the labels as whole numbers in a TIFF.")
    try:
        return as_labels(_pixels(view))
    except LabelsError as error:
        raise _about(path, error) from error


def _detect(path: str, view: ImageView, arguments: argparse.Namespace) -> np.ndarray:
    from napari_mpt_deblur.detection.detect import detect

    told = {name: getattr(arguments, name) for name in _DETECTION_OPTIONS}
    try:
        labels = detect(view, **{name: value for name, value in told.items() if value is not None})
    except ModelError as error:  # the arguments are at fault
        raise ParameterError(str(error)) from error
    except DeblurError as error:
        raise _about(path, error) from error
    return labels


def _pixels(view: ImageView) -> np.ndarray:
    leading = view.shape[: len(view.axes.leading)]
    planes = [np.asarray(view.data[index]) for index in np.ndindex(*leading)]
    return np.stack(planes).reshape(view.shape)


def _grey(view: ImageView) -> np.ndarray:
    """Of a colour image the mean of its colours."""
    pixels = _pixels(view)
    return pixels[..., : view.sample_count].mean(axis=-1) if view.sample_count else pixels


def _write(comparison: Comparison, taken: dict[str, str], outputs: list[Path], overwrite: bool) -> None:
    figures = json.dumps({"taken_as": taken} | comparison.to_dict(), indent=2, allow_nan=False) + "\n"
    with ExitStack() as stack:  # both or none
        files = [stack.enter_context(atomic_path(output, overwrite=overwrite)) for output in outputs]
        for file, text in zip(files, (figures, comparison.ledger.to_csv())[: len(files)], strict=True):
            file.write_text(text, encoding="utf-8", newline="")


def _about(path: str, error: DeblurError) -> DeblurError:
    message = str(error)
    return type(error)(message if path in message else f"{path}: {message}")


def _fraction(text: str) -> float:
    """A number between 0 and 1, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return number
