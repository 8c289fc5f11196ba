"""The contrastive losses, for use elsewhere. Loaded on first use, so that importing it does not wait for torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mpt_deblur.training.contrastive import EFCR, efcr, efcr_extra, haar_bands, to_channels

__all__ = ["EFCR", "efcr", "efcr_extra", "haar_bands", "to_channels"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.contrastive"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
