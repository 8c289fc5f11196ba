"""Work through the images of a command, one by one; one that fails is reported and does not end the run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from napari_mpt_deblur.cli.console import DONE, FAILED, complain, complain_of_unexpected
from napari_mpt_deblur.cli.outputs import Job, plan_jobs
from napari_mpt_deblur.errors import DeblurError
from napari_mpt_deblur.images import ImageView, atomic, check_writable, read_image

Engine = TypeVar("Engine")


def for_each_image(
    arguments: argparse.Namespace,
    make_engine: Callable[[argparse.Namespace], Engine],
    work: Callable[[Job, ImageView, Engine, argparse.Namespace], str],
) -> int:
    """Read each input, and do the work on it.

    Parameters
    ----------
    arguments : argparse.Namespace
        With `inputs`, `output`, `axes`, `overwrite` and `traceback`, and `pixel_size` where the command has it.
    make_engine : callable
        Loads what the work needs, once and only when there is something to do. What it raises ends the run: the
        arguments are at fault.
    work : callable
        Writes the job's target, and returns in a line what was done.

    Returns
    -------
    int
        0, or 1 if an input failed.

    Raises
    ------
    ParameterError
        If the arguments make no sense together.
    """
    plan = plan_jobs(arguments.inputs, arguments.output)
    for problem in plan.problems:
        complain(problem)
    failures = len(plan.problems)
    engine: Engine | None = None
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
        engine = make_engine(arguments) if engine is None else engine
        try:
            with atomic.new_folder(job.target.parent) if plan.folder is not None else nullcontext():
                done = work(job, view, engine, arguments)
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
        return read_image(job.source, arguments.axes, pixel_size_um=getattr(arguments, "pixel_size", None))
    except DeblurError as error:
        raise type(error)(_about(job, error)) from error


def _about(job: Job, error: BaseException) -> str:
    """The message, naming the file if it does not."""
    text = str(error) or "not enough memory: give a smaller image"
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"
