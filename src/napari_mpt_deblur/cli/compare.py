"""``mpt-deblur compare``: nuclei before and after, against the truth where there is one."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.console import DONE, axes, size, subparser
from napari_mpt_deblur.cli.detection import add_detection_options
from napari_mpt_deblur.cli.sides import Side, SideReader
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images import atomic_path, check_writable

if TYPE_CHECKING:
    from napari_mpt_deblur.detection.comparison import Comparison

_SIDES = ("before", "after")
_DETECTION_OPTIONS = ("model", "prob", "nms", "nucleus_diameter")


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
    held_to.add_argument(
        "--truth", metavar="LABELS", help="label image of the true nuclei; one plane serves all of a stack"
    )
    held_to.add_argument(
        "--reference", metavar="IMAGE", help="sharp image, in which nuclei are detected as well; one plane serves all"
    )
    parser.add_argument(
        "--raw", metavar="IMAGE", help="image to measure intensities and evidence on (default: BEFORE, if an image)"
    )
    parser.add_argument("--json", required=True, metavar="OUT.json", help="file for the figures")
    parser.add_argument("--csv", metavar="OUT.csv", help="file for the ledger, a row a nucleus")
    parser.add_argument(
        "--per-image", action="store_true", help="mean of the planes' average precisions (default: objects pooled)"
    )
    add_detection_options(parser)
    parser.add_argument("--axes", type=axes, help="of all files, such as ZYX (default: what each file says)")
    parser.add_argument("--pixel-size", type=size, metavar="UM", help="width of a pixel (default: what a file says)")
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
    reader = SideReader(arguments)
    sides = [reader.open(getattr(arguments, name), kind=arguments.kind) for name in _SIDES]
    before, after = sides
    told = any(getattr(arguments, name) is not None for name in _DETECTION_OPTIONS)
    if told and before.are_labels and after.are_labels and not arguments.reference:
        raise ParameterError(
            "There is nothing to detect, BEFORE and AFTER are label images: leave the model's options out, or say "
            "--images."
        )
    raw = reader.open(arguments.raw, kind="images") if arguments.raw else None if before.are_labels else before
    held_to = None
    if arguments.truth or arguments.reference:
        kind = "labels" if arguments.truth else "images"
        held_to = reader.open(arguments.truth or arguments.reference, kind=kind)
    _check_sizes({"labels": before, "labels after": after, "truth": held_to, "raw image": raw})
    found = {side: reader.nuclei(side) for side in sorted((*sides, *filter(None, [held_to])), key=_takes_time)}
    nuclei = [found[side] for side in sides]

    from napari_mpt_deblur.detection.comparison import compare
    from napari_mpt_deblur.detection.evidence import grey_levels

    comparison = compare(
        nuclei[0].labels,
        nuclei[1].labels,
        # channels are averaged where they were detected in together
        None if raw is None else grey_levels(raw.view, raw.view.axes.text if before.are_labels else nuclei[0].axes),
        truth=None if held_to is None else found[held_to].labels,
        truth_is="reference" if arguments.reference else "truth",
        pooled=not arguments.per_image,
        probabilities=(nuclei[0].probabilities, nuclei[1].probabilities),
        pixel_size_um=reader.pixel_size_um,
    )
    given = {name: getattr(arguments, name) for name in ("before", "after", "truth", "reference", "raw")}
    taken = {name: "labels" if side.are_labels else "image" for name, side in zip(_SIDES, sides, strict=True)}
    _write(comparison, {"files": given, "taken_as": taken, "detection": reader.record}, outputs, arguments.overwrite)
    for name in _SIDES:
        print(f"{name}: {given[name]}, taken as {taken[name]}")
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


def _takes_time(side: Side) -> bool:
    return not side.are_labels


def _check_sizes(sides: dict[str, Side | None]) -> None:
    """What cannot belong together is said before nuclei are detected."""
    from napari_mpt_deblur.detection.labels import check_same_shape

    (first_name, first), *others = ((name, side.view) for name, side in sides.items() if side is not None)
    for name, view in others:
        if (view.height, view.width) != (first.height, first.width):
            check_same_shape(view.data, first.data, (name, first_name))


def _write(comparison: Comparison, origin: dict[str, Any], outputs: list[Path], overwrite: bool) -> None:
    figures = json.dumps(origin | comparison.to_dict(), indent=2, allow_nan=False) + "\n"
    with ExitStack() as stack:  # both or none
        files = [stack.enter_context(atomic_path(output, overwrite=overwrite)) for output in outputs]
        for file, text in zip(files, (figures, comparison.ledger.to_csv())[: len(files)], strict=True):
            file.write_text(text, encoding="utf-8", newline="")
