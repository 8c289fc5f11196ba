"""What the work of every panel tells on its way: the stage that it is in, and why it failed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from napari_mpt_deblur.errors import DeblurError

log = logging.getLogger("napari_mpt_deblur")


@dataclass(frozen=True)
class Stage:
    """What is being done before the first tile."""

    text: str


@dataclass(frozen=True)
class Failure:
    """Why there is no result, in one line that says what to do."""

    message: str


def failure(
    error: Exception,
    doing: str = "Deblurring",
    less: str = "restore the current plane or a drawn box only",
    otherwise: str = "with a smaller tile or on the CPU",
) -> Failure:
    """Turn an exception into what the user is told; unexpected ones go into the log with their traceback.

    Parameters
    ----------
    error : Exception
    doing : str
        What stopped.
    less : str
        What to do where the memory is full.
    otherwise : str
        How to try again.

    Returns
    -------
    Failure
    """
    if isinstance(error, DeblurError):
        return Failure(str(error))
    log.error("%s stopped unexpectedly.", doing, exc_info=error)
    if isinstance(error, MemoryError):
        return Failure(f"The memory is full: {less}, or remove other layers.")
    reason = " ".join(str(error).split())[:200]
    return Failure(
        f"{doing} stopped unexpectedly ({type(error).__name__}: {reason}). Try again {otherwise}; if it comes back, "
        "report it with the traceback from the log (napari's terminal)."
    )
