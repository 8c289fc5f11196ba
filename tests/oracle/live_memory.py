"""How many bytes of tensors live at once, counted as torch makes and drops them: no clock, no allocator."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts what is made within the block.

    Parameters
    ----------
    known : iterable of Tensor
        Made before; not counted where results share their memory.

    Attributes
    ----------
    now, peak : int
        Bytes that live, and the most that did.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = [each.untyped_storage() for each in known]  # held, so that no address is used again
        self._places = {storage.data_ptr() for storage in self._known}

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for each in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(each, Tensor):
                self._note(each.untyped_storage())
        return results

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._places or not size:
            return
        self._places.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._places.discard(place)
        self.now -= size
