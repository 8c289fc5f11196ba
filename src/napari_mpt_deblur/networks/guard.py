"""What torch and the system raise, as errors of ours; and which of it says that memory ran out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from napari_mpt_deblur.errors import DeblurError, OutOfMemoryError
from napari_mpt_deblur.networks.windows import forget_places

_SIGNS = (
    "out of memory",  # CUDA, ROCm, MPS
    "invalid buffer size",  # MPS, of one tensor that is larger than it allows
    "can't allocate memory",  # torch's allocator for processors
    "not enough memory",  # the same on Windows
    "alloc_failed",  # cuBLAS, cuDNN
    "bad_alloc",  # C++
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of whichever device, did not suffice."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM  # of a file that is mapped into memory
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def free_memory(device: str) -> None:
    """Give memory that is kept for later, by torch and by the network's windows, back to the device."""
    if device != "cpu":
        forget_places()
    with suppress(RuntimeError):  # of a device that is in no state to answer; whatever comes next will tell
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif device.startswith("mps"):
            torch.mps.empty_cache()


@contextmanager
def no_runtime_errors(no_memory: str, failed: str) -> Iterator[None]:
    """Let only errors of ours out in place of RuntimeErrors, which superqt's worker swallows, and lack of memory.

    Parameters
    ----------
    no_memory : str
        What to say where memory did not suffice.
    failed : str
        What to say of everything else; ``{reason}`` stands for the error's text.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, DeblurError):
            raise
        if is_out_of_memory(error):
            raise OutOfMemoryError(no_memory) from error
        if not isinstance(error, RuntimeError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DeblurError(failed.format(reason=reason)) from error
