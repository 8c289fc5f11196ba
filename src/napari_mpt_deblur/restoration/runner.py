"""The network on one device in one precision: arrays in, arrays out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from napari_mpt_deblur.networks.channel_pool import ChannelPool

Finish = Callable[[], np.ndarray]


class NotFiniteError(Exception):
    """The network's output holds NaN or infinite numbers; never leaves the engine."""


class Runner:
    """Runs a network on batches of tiles.

    Parameters
    ----------
    network : nn.Module
        Evaluated as it is; copied where it lives on another device.
    device : str
    precision : {"float32", "bfloat16", "float16"}
        Of the network's products, by autocast. Its input, its global residual and its output are float32 always.
    threads : int, optional
        Processor threads of a forward pass; torch's own number by default.
    """

    def __init__(self, network: nn.Module, device: str, precision: str, threads: int | None = None) -> None:
        self.device = torch.device(device)
        self.network = _on(network, self.device)
        self.precision, self.threads = precision, threads

    @property
    def overlaps(self) -> bool:
        """Whether the next batch can be read while this one is computed."""
        return self.device.type == "cuda"

    def begin(self, tiles: np.ndarray, pool: ChannelPool | None = None) -> Finish:
        """Start on a batch, (N, C, H, W) float32; with a pool, its first batch measures and later ones use it.

        Returns
        -------
        callable
            Waits for the output, of the input's shape and dtype; raises `NotFiniteError` if it holds NaN or infinite
            numbers. On a CUDA device the batch is computed, and copied both ways, while the caller goes on.
        """
        half = self.precision != "float32"
        autocast = torch.autocast(self.device.type, getattr(torch, self.precision)) if half else nullcontext()
        with _threads(self.threads), torch.inference_mode(), autocast, pool.use() if pool else nullcontext():
            restored = self.network(self._sent(torch.from_numpy(tiles))).float()
        fetch = self._fetched(restored)

        def finish() -> np.ndarray:
            result = fetch().numpy()
            if not np.isfinite(result).all():
                raise NotFiniteError
            return result

        return finish

    def __call__(self, tiles: np.ndarray, pool: ChannelPool | None = None) -> np.ndarray:
        """A batch from beginning to end, see `begin`.

        Raises
        ------
        NotFiniteError
            If the output holds NaN or infinite numbers.
        """
        return self.begin(tiles, pool)()

    def _sent(self, tiles: Tensor) -> Tensor:
        """A batch on the device; only from pinned memory does CUDA copy without making the caller wait."""
        if self.overlaps:
            return tiles.pin_memory().to(self.device, non_blocking=True)
        return tiles.to(self.device)

    def _fetched(self, restored: Tensor) -> Callable[[], Tensor]:
        """What waits for a batch in the processor's memory."""
        if not self.overlaps:
            here = restored.cpu()
            return lambda: here
        pinned = torch.empty(restored.shape, dtype=restored.dtype, pin_memory=True)
        pinned.copy_(restored, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self.device))

        def wait() -> Tensor:
            copied.synchronize()
            return pinned

        return wait

    def measure(self, samples: np.ndarray, area_ratio: float) -> ChannelPool:
        """The channel attention of a plane, from samples of it, (N, C, H, W) float32."""
        pool = ChannelPool(area_ratio)
        self(samples, pool)
        return pool


def _on(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device; if it lives elsewhere a copy, so that its owner's does not move.

    The copy is made where it is to be: there may be no room for a second one where it comes from.
    """
    parameter = next(network.parameters(), None)
    if parameter is None or _same(parameter.device, device):
        return network
    moved: dict[int, Tensor] = {id(each): each.to(device) for each in network.buffers()}
    for each in network.parameters():
        moved[id(each)] = nn.Parameter(each.detach().to(device), each.requires_grad)
    return copy.deepcopy(network, moved)


def _same(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (a.index or 0) == (b.index or 0)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
