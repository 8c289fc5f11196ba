"""``mpt-deblur models import``: a checkpoint that others published becomes a model of the library."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_mpt_deblur.cli.console import DONE, size, subparser
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.networks.config import stage_scales

_RANGES = ("full", "minmax", "percentiles")


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "import", "import a checkpoint that others published", run)
    parser.add_argument("file", type=Path, metavar="FILE", help="a PyTorch (.pth, .pt, .ckpt) or .safetensors file")
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument(
        "--range",
        choices=_RANGES,
        help="grey levels that are 0 and 1 for the network: full, the ends of the image type's range (255 for 8 bits); "
        "minmax, its darkest and brightest pixel; percentiles, the 1st and the 99.8th "
        "(default: full for colours, minmax for grey, as the authors of MPT do)",
    )
    parser.add_argument("--no-clip", action="store_true", help="do not clip what the network makes of them to 0 and 1")
    parser.add_argument(
        "--scales",
        nargs=4,
        type=_scales,
        metavar="S,S,...",
        help="local scales of the four stages, such as 1/8,1/8,1/4,1/4,1,1 (default: the paper's; no file tells)",
    )
    parser.add_argument(
        "--nucleus-diameter", nargs=2, type=size, metavar="PIXELS", help="smallest and largest that the model knows"
    )
    parser.add_argument("--description", default="", help="in a line")
    parser.add_argument("--licence", default="", help="of the weights")
    parser.add_argument("--overwrite", action="store_true", help="replace one of your models of that name")


def run(arguments: argparse.Namespace) -> int:
    """Import and say what it is.

    Returns
    -------
    int
        0.

    Raises
    ------
    DeblurError
        If the file is not to be used, or the name not to be had.
    """
    from napari_mpt_deblur.checkpoints import import_checkpoint, read_header

    path = import_checkpoint(
        arguments.file,
        arguments.name,
        intensities=arguments.range,
        clip=not arguments.no_clip,
        scales=arguments.scales,
        nucleus_diameter_px=tuple(arguments.nucleus_diameter) if arguments.nucleus_diameter else None,
        description=arguments.description,
        licence=arguments.licence,
        overwrite=arguments.overwrite,
    )
    header = read_header(path)
    source = header.config.training["imported"]
    print(f"{arguments.name}: {header.config.network.describe()}; {header.parameter_count / 1e6:.2f} M parameters")
    print(f"grey levels: {header.config.describe_intensities()}")
    print(f"{source['file']} (SHA-256 {source['sha256']}) -> {path}")
    return DONE


def _scales(text: str) -> tuple[float, ...]:
    try:
        return stage_scales(text)
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error
