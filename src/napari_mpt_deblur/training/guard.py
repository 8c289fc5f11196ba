"""What torch raises while training, as errors of ours."""

from __future__ import annotations

from contextlib import AbstractContextManager

from napari_mpt_deblur.networks import guard


def no_runtime_errors() -> AbstractContextManager[None]:
    """Let only errors of ours out in place of RuntimeErrors and lack of memory."""
    return guard.no_runtime_errors(
        no_memory="The memory does not suffice for this training: choose a smaller patch or batch, or a method that "
        "passes fewer images through the network.",
        failed="The training failed ({reason}): go on with device cpu and precision float32.",
    )
