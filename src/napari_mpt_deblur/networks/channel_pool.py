"""Channel attention that is the same for every tile of a plane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

# per thread and context, so that runs at once in several threads never see each other's plane
_active: ContextVar[ChannelPool | None] = ContextVar("active_channel_pool", default=None)


class ChannelPool:
    """ISCA's attention, measured once on samples of a plane and then used for each of its tiles.

    ISCA's statistics go over the whole map it is given, so a tile alone would be restored differently from its plane.
    The first forward pass within `use` measures: every ISCA sums its statistics over the batch, attends with the sum
    and leaves its attention here. Later passes within `use` take the attention from here.

    Parameters
    ----------
    area_ratio : float
        Area of the plane over that of the samples, for the literal form of ISCA, whose products grow with the area.
    """

    def __init__(self, area_ratio: float = 1.0) -> None:
        self.area_ratio = area_ratio
        self._attention: dict[nn.Module, Tensor] = {}

    @contextmanager
    def use(self) -> Iterator[None]:
        """Forward passes of this thread within the block measure or take the plane's attention."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    @staticmethod
    def active() -> ChannelPool | None:
        """The pool that is in use in this thread."""
        return _active.get()

    def get(self, module: nn.Module) -> Tensor | None:
        """The module's attention, (1, heads, C / heads, C / heads), or None if it was not measured yet."""
        return self._attention.get(module)

    def put(self, module: nn.Module, attention: Tensor) -> None:
        self._attention[module] = attention
