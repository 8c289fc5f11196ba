"""What the trainer draws from: three small protocols' worth of data, whatever their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

Patches = tuple[Tensor, Tensor]
"""Blurred and sharp, each (N, C, H, W) float32, values about 0 to 1."""


class Pairs(Protocol):
    """A source of pairs. Each depends on the seed and its number alone, so that resuming is exact."""

    def batch(self, number: int, size: int, side: int) -> Patches:
        """`size` pairs of (side, side) patches; `number` is that of the first."""
        ...


class Images(Protocol):
    """A source of unlabelled images, drawn like pairs."""

    def batch(self, number: int, size: int, side: int) -> Tensor:
        """(size, C, side, side) float32."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All that a run trains and validates on.

    Attributes
    ----------
    train : Pairs
    validation : sequence of (Tensor, Tensor)
        Held-out pairs, (1, C, H, W) of any size; nothing of them is in `train`.
    unlabelled : Images or None
    extra : Pairs or None
        Of another domain, and perhaps another number of channels.
    nucleus_px : tuple of float or None
        Diameters of nuclei that the pairs cover, where they are drawn for it.
    notes : tuple of str
        What the user should know, a sentence each.
    record : dict
        What the data are, in plain data.
    """

    train: Pairs
    validation: Sequence[Patches]
    unlabelled: Images | None = None
    extra: Pairs | None = None
    nucleus_px: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)


def stack_pairs(pairs: Sequence[tuple[Any, Any]]) -> Patches:
    """Pairs of (C, H, W) arrays as a batch."""
    blurred, sharp = (torch.stack([torch.from_numpy(each) for each in side]) for side in zip(*pairs, strict=True))
    return blurred, sharp
