"""Tables in Markdown, and the document that holds them, one part a script."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from napari_mpt_deblur.evaluation.paired import PairedDifference

STANDARD_ERRORS = (
    "Differences are paired by image and by seed. Their standard error is given over the seeds (of the means over the "
    "images: another training), over image x seed (as if all were independent, which they are not) and both ways, the "
    "root of the squares' sum of that over the seeds and that over the images (of the means over the seeds), which is "
    "never less than either. *Works* is decided by the last: the mean is over two of these standard errors above 0; "
    "*harms*: below. Three seeds have two degrees of freedom, so this is no 95 % test."
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def difference_cells(found: PairedDifference, digits: int) -> list[str]:
    """Mean, standard errors (seeds, image x seed, both ways), and what they decide."""
    errors = [f"{value:.{digits}f}" for value in (found.se_seeds, found.se_all, found.se)]
    verdict = "one seed" if found.works is None else "**works**" if found.works else "harms" if found.harms else "no"
    return [f"{found.mean:+.{digits}f}", *errors, verdict]


DIFFERENCE_HEAD = ("difference", "SE seeds", "SE image x seed", "SE both ways", "verdict")


def provenance(minutes: float) -> list[str]:
    """Lines that say how the figures came about."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    script = Path(sys.argv[0])
    command = " ".join(["python", f"scripts/{script.name}", *sys.argv[1:]])
    return [
        f"    {command}",
        "",
        f"Commit {commit.stdout.strip()}; {_processor()}, {os.cpu_count()} cores, torch {torch.__version__} with "
        f"{torch.get_num_threads()} thread(s); {minutes:.0f} minutes of processor time for the training.",
    ]


def write_part(document: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines between the marks of a part; a document without them has the part added at its end."""
    begin, end = f"<!-- {name}: written by its script -->", f"<!-- {name}: end -->"
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    part = "\n".join([begin, "", *lines, "", end])
    if begin in text:
        before, _, rest = text.partition(begin)
        text = before + part + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n{part}\n".lstrip()
    document.write_text(text, encoding="utf-8")
    print("\n".join(lines))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
