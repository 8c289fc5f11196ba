"""Writing a model: weights and configuration in one safetensors file, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.checkpoints.safetensors_file import SUFFIX
from napari_mpt_deblur.checkpoints.safetensors_layout import CONFIG_KEY
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.images import atomic_path
from napari_mpt_deblur.networks.build import Network


def save_model(
    path: str | Path, network: Network, config: ModelConfig, *, half: bool = False, overwrite: bool = True
) -> Path:
    """Save a network with its configuration; whole or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``; its folder must exist.
    network : MPT or SpandrelNetwork
    config : ModelConfig
        Its ``network`` is the network's own.
    half : bool
        Store float16: half the size, for sharing. The weights are computed with as float32 all the same.

    overwrite : bool
        False refuses to replace a file.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If the configuration is another network's, or weights are not finite (or do not fit float16).
    FileError
        If the file cannot be written; what was there before stays.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ModelError(f"A model's file name must end in {SUFFIX}; got {path.name!r}.")
    if network.config != config.network:
        raise ModelError("The configuration describes another network than the one to be saved.")
    dtype = torch.float16 if half else torch.float32
    weights = {
        name: values.detach().to("cpu", dtype if values.is_floating_point() else values.dtype, copy=True).contiguous()
        for name, values in network.state_dict().items()
    }
    for name, values in weights.items():
        if not torch.isfinite(values).all():
            raise ModelError(f"The weights {name!r} are not finite{' as float16' if half else ''}: nothing was saved.")
    content = save(weights, metadata={CONFIG_KEY: config.to_json()})
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)
    return path
