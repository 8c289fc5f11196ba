"""``mpt-deblur models export``: a model becomes a package in the bioimage.io format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_mpt_deblur.cli.console import DONE, check_model, subparser


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "export", "export a model for other tools, in the bioimage.io format", run)
    parser.add_argument("model", metavar="NAME", help="that `mpt-deblur models` lists, or a .safetensors file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a .zip file")
    parser.add_argument(
        "--author", action="append", default=[], metavar="NAME", help="of the model; may be given several times"
    )
    parser.add_argument("--licence", default="", help="an SPDX identifier (default: what the model's file says)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def run(arguments: argparse.Namespace) -> int:
    """Export and say what it is.

    Returns
    -------
    int
        0.

    Raises
    ------
    DeblurError
        If the model cannot be exported, or the file not be written.
    """
    config = check_model(arguments)
    from napari_mpt_deblur.checkpoints import export_bioimageio

    path = export_bioimageio(
        arguments.model,
        arguments.output,
        authors=arguments.author,
        licence=arguments.licence,
        overwrite=arguments.overwrite,
    )
    print(
        f"{arguments.model}: {config.network.describe()}; sides are multiples of {config.network.size_multiple} pixels"
    )
    print(f"grey levels: {config.describe_intensities()}")
    if not (arguments.licence or config.licence):
        print("no licence is stated: name it with --licence before you share the file")
    print(f"TorchScript and its description -> {path}")
    return DONE
