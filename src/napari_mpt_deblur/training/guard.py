"""What torch raises, as errors of ours: superqt's worker swallows RuntimeErrors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from napari_mpt_deblur.errors import DeblurError, OutOfMemoryError
from napari_mpt_deblur.restoration.runner import is_out_of_memory


@contextmanager
def no_runtime_errors() -> Iterator[None]:
    """Let only DeblurErrors out in place of RuntimeErrors and MemoryErrors."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, DeblurError):
            raise
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                "The memory does not suffice for this training: choose a smaller patch or batch, or a method that "
                "passes fewer images through the network."
            ) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DeblurError(f"The training failed ({reason}): go on with device cpu and precision float32.") from error
