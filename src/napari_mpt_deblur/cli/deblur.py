"""``mpt-deblur deblur``: restore image files."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.console import (
    DONE,
    FAILED,
    add_engine_options,
    axes,
    check_model,
    complain,
    complain_of_unexpected,
    follow,
    make_deblurrer,
    size,
    subparser,
)
from napari_mpt_deblur.cli.outputs import Job, plan_jobs
from napari_mpt_deblur.errors import DeblurError
from napari_mpt_deblur.images import ImageView, atomic, check_writable, create_image, read_image

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
    plan = plan_jobs(arguments.inputs, arguments.output)
    for problem in plan.problems:
        complain(problem)
    failures = len(plan.problems)
    deblurrer: Deblurrer | None = None
    for job in plan.jobs:
        try:
            view = _open(job, arguments, make_folder=plan.folder is not None)
        except DeblurError as error:
            complain(str(error))
            failures += 1
            continue
        except Exception as error:
            complain_of_unexpected(error, where=f"{job.source}: ", with_traceback=arguments.traceback)
            failures += 1
            continue
        # what the arguments are to blame for ends the run; torch is loaded only now that there is something to do
        deblurrer = deblurrer or make_deblurrer(arguments)
        try:
            done = _restore(job, view, deblurrer, arguments, make_folder=plan.folder is not None)
        except (DeblurError, MemoryError) as error:
            complain(_about(job, error))
            failures += 1
        except Exception as error:
            complain_of_unexpected(error, where=f"{job.source}: ", with_traceback=arguments.traceback)
            failures += 1
        else:
            print(done)
    total = len(plan.jobs) + len(plan.problems)
    if failures and total > 1:
        complain(f"{failures} of {total} inputs failed.")
    return FAILED if failures else DONE


def _open(job: Job, arguments: argparse.Namespace, *, make_folder: bool) -> ImageView:
    if make_folder and not job.target.parent.exists():
        atomic.check_creatable(job.target.parent)
    else:
        check_writable(job.target, overwrite=arguments.overwrite)
    try:
        view = read_image(job.source, arguments.axes, pixel_size_um=arguments.pixel_size)
    except DeblurError as error:
        raise type(error)(_about(job, error)) from error
    return replace(view, nucleus_diameter_px=arguments.nucleus_diameter)


def _restore(
    job: Job, view: ImageView, deblurrer: Deblurrer, arguments: argparse.Namespace, *, make_folder: bool
) -> str:
    """Restore one file; what was done in a line."""
    dtype = None if arguments.dtype == "input" else arguments.dtype
    folder = atomic.new_folder(job.target.parent) if make_folder else nullcontext()
    target = create_image(
        job.target,
        view.shape,
        dtype or view.dtype,
        view.axes,
        pixel_size_um=view.pixel_size_um,
        overwrite=arguments.overwrite,
        metadata=view.metadata,
    )
    with folder, target as sink:
        restored = follow(deblurrer.run(view, dtype=dtype, out=sink), job.source.name)
        sink.description = json.dumps(restored.record, default=str)
    return f"{job.source} -> {job.target} ({'; '.join(_facts(view, restored.record))})"


def _facts(view: ImageView, record: dict[str, Any]) -> list[str]:
    """What the user should know of a result."""
    where = f"on {record.get('device', 'cpu')} in {record.get('seconds', 0):.1f} s"
    return [view.axes.describe(), where, *view.notes, *record.get("notes", ())]


def _about(job: Job, error: BaseException) -> str:
    """The message, naming the file if it does not."""
    text = str(error) or "not enough memory: give a smaller image"
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"
