"""``mpt-deblur detect``: label images of the nuclei of image files."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.batch import for_each_image
from napari_mpt_deblur.cli.console import axes, follow, fraction, size, subparser
from napari_mpt_deblur.cli.outputs import Job
from napari_mpt_deblur.errors import DeblurError, ModelError, ParameterError
from napari_mpt_deblur.images import ImageView, create_image

if TYPE_CHECKING:
    from napari_mpt_deblur.detection import Detected, Detector


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
    parser.add_argument(
        "--model",
        help="a name that `mpt-deblur models` lists, a StarDist model folder or a .safetensors file; one of StarDist's "
        "published models is fetched when it is first named",
    )
    parser.add_argument("--prob", type=fraction, help="least probability of a nucleus (default: the model's own)")
    parser.add_argument("--nms", type=fraction, help="overlap from which one of two is dropped (default: the model's)")
    parser.add_argument(
        "--percentiles",
        nargs=2,
        type=float,
        default=(1.0, 99.8),
        metavar=("LOW", "HIGH"),
        help="of each plane, the grey levels that become 0 and 1 (default: 1 99.8)",
    )
    parser.add_argument(
        "--nucleus-diameter",
        type=size,
        metavar="PIXELS",
        help="diameter of typical nuclei, to bring the image to the model's scale (default: by the pixel size, where "
        "the file states one that is far from the model's)",
    )
    parser.add_argument(
        "--pixel-size", type=size, metavar="UM", help="width of a pixel in micrometres, to the same end"
    )
    parser.add_argument("--axes", type=axes, help="such as ZYX, TYX, CYX or YXS (default: what the file says)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
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
    from napari_mpt_deblur.detection import DEFAULT_DETECTOR, DetectionSettings, find_detector

    arguments.settings = DetectionSettings(
        arguments.prob,
        arguments.nms,
        arguments.percentiles,
        nucleus_diameter_px=arguments.nucleus_diameter,
        pixel_size_um=arguments.pixel_size,
    )
    arguments.model = arguments.model or DEFAULT_DETECTOR
    try:
        find_detector(arguments.model)
    except (ModelError, OSError) as error:
        raise ParameterError(str(error)) from error
    return for_each_image(arguments, _load, _detect)


def _load(arguments: argparse.Namespace) -> Detector:
    from napari_mpt_deblur.detection import load_detector

    try:
        detector = load_detector(arguments.model, device=arguments.device)
        arguments.settings.scale(detector)
    except DeblurError as error:
        raise ParameterError(str(error)) from error
    return detector


def _detect(job: Job, view: ImageView, detector: Detector, arguments: argparse.Namespace) -> str:
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
        sink.description = json.dumps(_record(detected, detector, arguments))
    number = sum(len(plane.prob) for plane in detected.planes.values())
    facts = [view.axes.describe(), f"{number} nuclei", f"on {detector.device}", *view.notes]
    if detected.scale != 1:
        facts.append(f"seen at {detected.scale:.2g} of its size")
    return f"{job.source} -> {job.target} ({'; '.join(facts)})"


def _record(detected: Detected, detector: Detector, arguments: argparse.Namespace) -> dict[str, Any]:
    """What reproduces the labels."""
    return {
        "model": detector.name,
        "model_sha256": detector.sha256,
        "thresholds": detected.thresholds.to_dict(),
        "percentiles": list(arguments.settings.percentiles),
        "scale": detected.scale,
    }
