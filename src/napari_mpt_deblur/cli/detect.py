"""``mpt-deblur detect``: label images of the nuclei of image files."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.batch import for_each_image
from napari_mpt_deblur.cli.console import axes, follow, size, subparser
from napari_mpt_deblur.cli.detection import (
    add_detection_options,
    check_detector,
    detection_record,
    detection_settings,
    make_detector,
)
from napari_mpt_deblur.cli.outputs import Job
from napari_mpt_deblur.images import ImageView, create_image

if TYPE_CHECKING:
    from napari_mpt_deblur.detection import AnyDetector


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "detect", "find the nuclei of images with StarDist and write label images", run)
    parser.add_argument("inputs", nargs="+", metavar="IMAGE", help='files, folders or patterns such as "data/*.tif"')
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="LABELS",
        help="a .tif for one input; for several a folder, in which each label image has its input's name",
    )
    add_detection_options(parser)
    parser.add_argument(
        "--pixel-size", type=size, metavar="UM", help="width of a pixel in micrometres, to the same end"
    )
    parser.add_argument("--axes", type=axes, help="such as ZYX, TYX, CYX or YXS (default: what the file says)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")


def run(arguments: argparse.Namespace) -> int:
    """Detect in every input; one that fails is reported and does not end the run.

    Returns
    -------
    int
        0, or 1 if an input failed.

    Raises
    ------
    ParameterError
        If the arguments make no sense together, or there is no such model.
    """
    arguments.settings = detection_settings(arguments, arguments.pixel_size)
    check_detector(arguments)
    return for_each_image(arguments, _load, _detect)


def _load(arguments: argparse.Namespace) -> AnyDetector:
    detector = make_detector(arguments)
    arguments.settings.scale(detector)
    return detector


def _detect(job: Job, view: ImageView, detector: AnyDetector, arguments: argparse.Namespace) -> str:
    """Detect in one file; what was found in a line."""
    from napari_mpt_deblur.detection import detection_steps

    detected = follow(detection_steps(view, detector, arguments.settings), job.source.name)
    target = create_image(
        job.target,
        detected.labels.shape,
        detected.labels.dtype,
        detected.axes,
        pixel_size_um=view.pixel_size_um,
        overwrite=arguments.overwrite,
        metadata=view.metadata,
    )
    with target as sink:
        for index, plane in detected.planes.items():
            sink[(*index, slice(None), slice(None))] = plane.labels
        sink.description = json.dumps(detection_record(detected, detector, arguments.settings))
    facts = [view.axes.describe(), f"{detected.count} nuclei", f"on {detector.device}", *view.notes]
    if detected.scale != 1:
        facts.append(f"seen at {detected.scale:.2g} of its size")
    return f"{job.source} -> {job.target} ({'; '.join(facts)})"
