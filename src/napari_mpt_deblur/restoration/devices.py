"""Which devices there are, what each can compute with, and how much memory a run may take of it."""

from __future__ import annotations

import torch

from napari_mpt_deblur.checkpoints.loading import available_precisions as available_precisions
from napari_mpt_deblur.checkpoints.loading import check_precision, torch_device
from napari_mpt_deblur.networks.build import NetworkConfig
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.guard import is_out_of_memory

_CPU_BUDGET_BYTES = 620e6  # as estimated; with torch and the rest of the process, a run then stays under 1 GB
_ACCELERATOR_SHARE = 0.5  # of its free memory
_LARGEST_TILE_PX = {"cpu": 1152**2, "cuda": 2**22, "mps": 2**21}
# A pass holds so many maps of its widest stage at once, within windows' attention: counted. Of hidden channels, which
# come after it, there are four; they are whole only where maps are not worked on in strips.
_MAPS, _MAPS_BESIDE_HIDDEN, _HIDDEN_MAPS = 17, 7, 4
_ALLOCATOR_SHARE = 1.4  # what the process grows by for each byte of them: 1.2 to 1.7, for freed memory lies in pieces
_HALF_SHARE = 0.6  # half the bytes, and copies of what autocast converts
_BATCH_PX = 2**18  # on the CPU larger batches leave the cache and gain nothing


def available_devices() -> tuple[str, ...]:
    """Names of the devices that are present, the fastest first: ``"cuda"``, ``"cuda:1"``, ..., ``"mps"``, ``"cpu"``."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
        found += [f"cuda:{index}" for index in range(1, torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def pick_device(name: str | torch.device = "auto") -> str:
    """The device that a name stands for; ``"auto"`` is the fastest that is present.

    Raises
    ------
    DeviceError
        If it is not present.
    """
    return str(torch_device(name))


def pick_precision(name: str, device: str, network: NetworkConfig | None = None) -> str:
    """The precision that a name stands for on a device.

    ``"auto"`` is the faster one where it changes results by less than 50 dB PSNR shows: bfloat16 on CPUs that compute
    with it natively and on CUDA devices that do, float16 on older ones, float32 elsewhere and for networks of others',
    of which it is not known what half precision changes.

    Raises
    ------
    DeviceError
        If the device does not offer it.
    """
    if name == "auto":
        if network is not None and not isinstance(network, MPTConfig):
            return "float32"
        return _fast_precision(device)
    return check_precision(name, device)


def bytes_per_pixel(config: NetworkConfig, precision: str, device: str = "cpu") -> float:
    """Peak memory of a forward pass without gradients for each pixel of its input; see benchmarks/README.md."""
    if not isinstance(config, MPTConfig):
        return config.bytes_per_px
    maps: float = _MAPS
    if device != "cpu":
        maps = max(maps, _MAPS_BESIDE_HIDDEN + _HIDDEN_MAPS * config.expansion)
    share = 1.0 if precision == "float32" else _HALF_SHARE
    return bytes_of_a_map(config) * maps * _ALLOCATOR_SHARE * share


def bytes_of_a_map(config: MPTConfig) -> float:
    """Of the stage whose maps are largest, in float32, for each pixel of the network's input."""
    return 4 * max(dim / 4**stage for stage, dim in enumerate(config.dims)) / config.stem**2


def tile_budget_px(config: NetworkConfig, device: str, precision: str) -> int:
    """Most pixels of one automatic tile."""
    kind = device.partition(":")[0]
    budget = _CPU_BUDGET_BYTES
    if kind == "cuda":
        budget = _free_bytes(device) * _ACCELERATOR_SHARE
    return max(1, min(_LARGEST_TILE_PX[kind], int(budget / bytes_per_pixel(config, precision, device))))


def batch_budget_px(device: str, tile_budget: int) -> int:
    """Most pixels of one automatic batch."""
    return _BATCH_PX if device == "cpu" else tile_budget


def _free_bytes(device: str) -> int:
    """Of a CUDA device; none where it is too full to be asked, which takes some memory, too."""
    try:
        return torch.cuda.mem_get_info(device)[0]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0


def _fast_precision(device: str) -> str:
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"  # 8: Ampere
    if device == "cpu" and _cpu_has_bfloat16():
        return "bfloat16"
    return "float32"


def _cpu_has_bfloat16() -> bool:
    # private in torch, hence the guard: without an answer the exact precision is the right one
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)
