"""``mpt-deblur deblur``: restore image files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.batch import for_each_image
from napari_mpt_deblur.cli.console import (
    add_engine_options,
    axes,
    check_model,
    follow,
    make_deblurrer,
    size,
    subparser,
)
from napari_mpt_deblur.cli.outputs import Job
from napari_mpt_deblur.images import ImageView, create_image

if TYPE_CHECKING:
    from napari_mpt_deblur.restoration import Deblurrer


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "deblur", "restore TIFF, OME-TIFF and PNG files, folders and patterns", run)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help='files, folders or patterns such as "data/*.tif"')
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="a .tif for one input; for several a folder, in which each result has its input's name",
    )
    parser.add_argument("--axes", type=axes, help="such as ZYX, TYX, CYX or YXS (default: what the file says)")
    parser.add_argument("--dtype", default="input", choices=("input", "float32"), help="of the result (default: input)")
    parser.add_argument(
        "--pixel-size",
        type=size,
        metavar="UM",
        help="width of a pixel in micrometres, written into the result (default: what the file says)",
    )
    parser.add_argument(
        "--nucleus-diameter",
        type=size,
        metavar="PIXELS",
        help="diameter of typical nuclei, if they are unusually large",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restore every input; one that fails is reported and does not end the run.

    Returns
    -------
    int
        0, or 1 if an input failed.

    Raises
    ------
    ParameterError
        If the arguments make no sense together.
    """
    check_model(arguments)
    return for_each_image(arguments, make_deblurrer, _restore)


def _restore(job: Job, view: ImageView, deblurrer: Deblurrer, arguments: argparse.Namespace) -> str:
    """Restore one file; what was done in a line."""
    view = replace(view, nucleus_diameter_px=arguments.nucleus_diameter)
    dtype = None if arguments.dtype == "input" else arguments.dtype
    target = create_image(
        job.target,
        view.shape,
        dtype or view.dtype,
        view.axes,
        pixel_size_um=view.pixel_size_um,
        overwrite=arguments.overwrite,
        metadata=view.metadata,
    )
    if sys.stderr.isatty():  # where the progress bar is
        print(f"{job.source}: {deblurrer.estimate(view).describe(deblurrer.pace())}", file=sys.stderr, flush=True)
    with target as sink:
        restored = follow(deblurrer.run(view, dtype=dtype, out=sink), job.source.name)
        sink.description = json.dumps(restored.record, default=str)
    return f"{job.source} -> {job.target} ({'; '.join(_facts(view, restored.record))})"


def _facts(view: ImageView, record: dict[str, Any]) -> list[str]:
    """What the user should know of a result."""
    where = f"on {record.get('device', 'cpu')} in {record.get('seconds', 0):.1f} s"
    return [view.axes.describe(), where, *view.notes, *record.get("notes", ())]
