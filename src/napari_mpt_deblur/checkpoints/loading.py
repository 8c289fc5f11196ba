"""From a name to a network on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.checkpoints.library import DEFAULT_MODEL, find_model
from napari_mpt_deblur.checkpoints.safetensors_file import read_model_file
from napari_mpt_deblur.errors import DeviceError, ModelError, OutOfMemoryError
from napari_mpt_deblur.networks.build import Network, new_network

_PRECISIONS = {
    "cpu": ("float32", "bfloat16"),
    "cuda": ("float32", "float16", "bfloat16"),
    "mps": ("float32", "float16"),
}


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to restore images.

    Attributes
    ----------
    name : str
        Of the library, or the file's without its suffix.
    network : MPT or SpandrelNetwork
        In float32 and evaluation mode, on `device`: (N, C, H, W) to (N, C, H, W), values about 0..1.
    config : ModelConfig
    sha256 : str
        Of the model's file.
    device : torch.device
    precision : {"auto", "float32", "bfloat16", "float16"}
        In which `deblur` and `Deblurrer` compute with it unless they are told another.
    notes : tuple of str
        What the user should know of how it was loaded.
    """

    name: str
    network: Network
    config: ModelConfig
    sha256: str
    device: torch.device
    precision: str = "auto"
    notes: tuple[str, ...] = ()

    def to(self, device: str | torch.device) -> Model:
        """The model on another device. The network itself moves, as torch's modules do.

        Raises
        ------
        DeviceError
            If the device is not present, or does not offer the model's precision.
        """
        found = torch_device(device)
        check_precision(self.precision, found)
        return replace(self, network=_move(self.network, found), device=found, notes=())


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL, device: str | torch.device = "auto", precision: str = "auto"
) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_path : str or Path
        A name that `available_models` lists, or a path to a ``.safetensors`` file.
    device : str or torch.device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` for the best that is present and has room for it.
    precision : {"auto", "float32", "bfloat16", "float16"}
        Of the network's products, for `deblur` and `Deblurrer`; its weights stay in float32. ``"auto"`` is the faster
        one where it makes no visible difference.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If the model is unknown, damaged, unsafe or does not fit its configuration.
    FileError
        If the file cannot be read.
    DeviceError
        If the device is not present or does not offer the precision.
    OutOfMemoryError
        If the model does not fit its memory.
    """
    found = torch_device(device)
    check_precision(precision, found)
    path = find_model(name_or_path)
    file = read_model_file(path)
    weights = {name: torch.from_numpy(values) for name, values in file.weights.items()}
    try:
        network = new_network(file.config.network, weights)
        network.load_state_dict(weights, strict=True)
    except ModelError as error:
        raise ModelError(f"Cannot use the model {path}: {str(error).rstrip('.')}.") from error
    except RuntimeError as error:  # of names and shapes, which of our own networks are checked before
        raise ModelError(f"Cannot use the model {path}: its weights do not fit its network; it is damaged.") from error
    network.requires_grad_(False)
    notes: tuple[str, ...] = ()
    try:
        _move(network.eval(), found)
    except OutOfMemoryError:
        if str(device) != "auto" or found.type == "cpu":
            raise
        notes = (f"out of memory on {found}: the model stays on the CPU",)
        found = torch.device("cpu")
        check_precision(precision, found)
        _move(network, found)  # back, what of it had gone
    return Model(path.stem, network, file.config, file.sha256, found, precision, notes)


def torch_device(device: str | torch.device) -> torch.device:
    """A device that is present.

    Raises
    ------
    DeviceError
        If it is not.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"Unknown device {str(device)[:80]!r}: choose auto, cpu, cuda or mps.") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if found.type not in present:
        raise DeviceError(f"The device {found} cannot be used: choose auto, cpu, cuda or mps.")
    if not present[found.type]:
        raise DeviceError(f"This computer has no {found}, or torch was installed without it: choose auto or cpu.")
    return found


def available_precisions(device: str | torch.device) -> tuple[str, ...]:
    """Precisions offered on a device, the exact one first."""
    return _PRECISIONS[str(device).partition(":")[0]]


def check_precision(precision: str, device: str | torch.device) -> str:
    """The precision itself, if it is ``"auto"`` or offered on the device.

    Raises
    ------
    DeviceError
        If it is not.
    """
    offered = ("auto", *available_precisions(device))
    if precision not in offered:
        raise DeviceError(
            f"The precision {str(precision)[:40]!r} is not offered on {device}: choose {', '.join(offered)}."
        )
    return precision


def _move(network: Network, device: torch.device) -> Network:
    try:
        return network.to(device)
    except RuntimeError as error:  # torch's own out-of-memory error is one
        raise OutOfMemoryError(f"The model does not fit the memory of {device}: choose another device.") from error
