"""What the commands that detect share: their options, the model, and what reproduces a result."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.console import fraction, size
from napari_mpt_deblur.errors import DeblurError, ModelError, ParameterError

if TYPE_CHECKING:
    from napari_mpt_deblur.detection import AnyDetector, Detected, DetectionSettings

PERCENTILES = (1.0, 99.8)


def add_detection_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that detects."""
    parser.add_argument(
        "--model",
        help="a name that `mpt-deblur models` lists, a StarDist model folder or a .safetensors file; one of StarDist's "
        "published models is fetched when it is first named (default: the one in the box)",
    )
    parser.add_argument("--prob", type=fraction, help="least probability of a nucleus (default: the model's own)")
    parser.add_argument("--nms", type=fraction, help="overlap from which one of two is dropped (default: the model's)")
    parser.add_argument(
        "--percentiles",
        nargs=2,
        type=float,
        default=PERCENTILES,
        metavar=("LOW", "HIGH"),
        help="of each plane, the grey levels that become 0 and 1 (default: 1 99.8)",
    )
    parser.add_argument(
        "--nucleus-diameter",
        type=size,
        metavar="PIXELS",
        help="diameter of typical nuclei, to bring the images to the model's scale (default: by the pixel size, where "
        "the file states one that is far from the model's)",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")


def detection_settings(arguments: argparse.Namespace, pixel_size_um: float | None) -> DetectionSettings:
    """What the options say.

    Raises
    ------
    ParameterError
        If a value is not accepted.
    """
    from napari_mpt_deblur.detection import DetectionSettings

    return DetectionSettings(
        arguments.prob,
        arguments.nms,
        tuple(arguments.percentiles),
        nucleus_diameter_px=arguments.nucleus_diameter,
        pixel_size_um=pixel_size_um,
    )


def check_detector(arguments: argparse.Namespace) -> None:
    """Find out whether there is such a model, before anything is read; a published one is fetched.

    Raises
    ------
    ParameterError
        If there is none.
    """
    from napari_mpt_deblur.detection import DEFAULT_DETECTOR, find_detector

    arguments.model = arguments.model or DEFAULT_DETECTOR
    try:
        find_detector(arguments.model)
    except (ModelError, OSError) as error:
        raise ParameterError(str(error)) from error


def make_detector(arguments: argparse.Namespace) -> AnyDetector:
    """Load the model onto the device.

    Raises
    ------
    ParameterError
        If the model or the device cannot be used: the arguments are at fault.
    """
    from napari_mpt_deblur.detection import load_detector

    try:
        return load_detector(arguments.model, device=arguments.device)
    except DeblurError as error:
        raise ParameterError(str(error)) from error


def detection_record(detected: Detected, detector: AnyDetector, settings: DetectionSettings) -> dict[str, Any]:
    """What reproduces labels, for JSON."""
    return {
        "model": detector.name,
        "model_sha256": detector.sha256,
        "thresholds": detected.thresholds.to_dict(),
        "percentiles": list(settings.percentiles),
        "scale": detected.scale,
    }
