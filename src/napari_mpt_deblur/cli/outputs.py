"""Which file becomes which: inputs, and the outputs named after them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_mpt_deblur.errors import FileError, ParameterError
from napari_mpt_deblur.images import find_images
from napari_mpt_deblur.images.files import SUFFIXES, TIFF_SUFFIXES, is_pattern


@dataclass(frozen=True)
class Job:
    """One image and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Jobs:
    """What a list of inputs comes to.

    Attributes
    ----------
    jobs : tuple of Job
    folder : Path or None
        The folder to write to, where OUTPUT is one.
    problems : tuple of str
        Inputs that came to nothing.
    """

    jobs: tuple[Job, ...]
    folder: Path | None
    problems: tuple[str, ...]


def plan_jobs(inputs: Sequence[str], output: str) -> Jobs:
    """Resolve inputs and OUTPUT.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders and patterns.
    output : str
        A TIFF file for a single input file; a folder, made if it is missing, for anything else.

    Raises
    ------
    ParameterError
        If OUTPUT does not fit the inputs, two outputs would have one name, or an output is one of the inputs.
    """
    files: list[Path] = []
    problems = []
    for item in inputs:
        try:
            files += [file for file in find_images([item]) if _real(file) not in set(map(_real, files))]
        except FileError as error:
            problems.append(str(error))
    target = Path(output)
    if _means_folder(inputs, files, output):
        if os.path.exists(target) and not os.path.isdir(target):
            raise ParameterError(f"With several inputs OUTPUT is a folder, but {target} is a file: name a folder.")
        if not os.path.exists(target) and target.suffix.lower() in SUFFIXES:
            raise ParameterError(
                f"With several inputs OUTPUT is a folder, but {target} looks like a file: name a folder."
            )
        jobs = tuple(Job(file, target / output_name(file)) for file in files)
        _check_distinct(jobs)
        _check_inputs_safe(jobs)
        return Jobs(jobs, target, tuple(problems))
    if target.suffix.lower() not in TIFF_SUFFIXES:
        raise ParameterError(f"OUTPUT must end in .tif or .tiff, or be a folder that exists; got {output!r}.")
    jobs = tuple(Job(file, target) for file in files)
    _check_inputs_safe(jobs)
    return Jobs(jobs, None, tuple(problems))


def output_name(source: Path) -> str:
    """The name of a source's result: its own, with ``.tif`` in place of what is no TIFF's suffix."""
    return source.name if source.suffix.lower() in TIFF_SUFFIXES else f"{source.stem}.tif"


def _means_folder(inputs: Sequence[str], files: Sequence[Path], output: str) -> bool:
    several = len(inputs) > 1 or len(files) > 1
    gathered = any(os.path.isdir(item) or is_pattern(item) for item in inputs)
    return several or gathered or os.path.isdir(output) or output.endswith(("/", "\\"))


def _check_distinct(jobs: Sequence[Job]) -> None:
    taken: dict[str, Path] = {}
    for job in jobs:
        other = taken.setdefault(job.target.name.casefold(), job.source)
        if other is not job.source:
            raise ParameterError(
                f"{other} and {job.source} would both be written to {job.target}: rename one, or give them apart."
            )


def _check_inputs_safe(jobs: Sequence[Job]) -> None:
    sources = {_real(job.source) for job in jobs}
    for job in jobs:
        if _real(job.target) in sources:
            raise ParameterError(
                f"The output {job.target} is an input: choose another OUTPUT, inputs are never changed."
            )


def _real(path: Path) -> Path | tuple[int, int]:
    """The same for all names of a file."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except (OSError, ValueError):
        return path.absolute()
