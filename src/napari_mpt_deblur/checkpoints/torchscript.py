"""A network recorded as TorchScript, which torch runs without this package."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor

from napari_mpt_deblur.errors import DeblurError, ModelError
from napari_mpt_deblur.networks.build import Network
from napari_mpt_deblur.networks.guard import is_out_of_memory

TOLERANCE = 1e-5  # of values of about 0 to 1
_RECORDED = (2, 1, 1)  # images, and sides in units of the size multiple
_CHECKED = ((1, 2, 1), (1, 1, 3))


def record(network: Network) -> bytes:
    """Record a network, for every number and size of images that it accepts.

    Parameters
    ----------
    network : MPT or SpandrelNetwork
        On the CPU, in evaluation mode.

    Returns
    -------
    bytes
        A TorchScript file: (N, C, H, W) float32 to the same, H and W multiples of the network's ``size_multiple``.

    Raises
    ------
    ModelError
        If the network cannot be recorded, or the record computes anything else at sizes other than the recorded one.
        What says that memory ran out leaves as it is.
    """
    what = network.config.describe()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that become constants: whether any matters is checked
            content = _recorded(network, _noise(network, *_RECORDED))
            recorded = torch.jit.load(io.BytesIO(content))  # what others will run
            agree = all(_agree(network, recorded, _noise(network, *size)) for size in _CHECKED)
    except Exception as error:  # whatever a network of others' does that TorchScript does not know
        if isinstance(error, DeblurError) or is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"Cannot export this model: TorchScript cannot hold {what} ({reason.rstrip('.')}).") from error
    if not agree:
        raise ModelError(f"Cannot export this model: recorded as TorchScript, {what} serves one size of image only.")
    return content


def _recorded(network: Network, image: Tensor) -> bytes:
    network(image)  # tables that it keeps are made before: what makes them would be recorded, for this device alone
    content = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, image, check_trace=False), content)
    return content.getvalue()


def _noise(network: Network, number: int, rows: int, columns: int) -> Tensor:
    multiple = network.config.size_multiple
    shape = (number, network.config.in_channels, rows * multiple, columns * multiple)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _agree(network: Network, recorded: torch.nn.Module, image: Tensor) -> bool:
    return torch.allclose(recorded(image), network(image), rtol=TOLERANCE, atol=TOLERANCE)
