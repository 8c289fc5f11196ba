"""What the controller needs of others: a panel to show things and a thread to run them in."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from napari.layers import Image

Steps = Callable[[], Generator[Any, None, Any]]


class Job(Protocol):
    """A generator that runs in a thread."""

    def quit(self) -> None:
        """Ask it to stop at its next yield."""


class Runner(Protocol):
    """Runs a generator in a thread and calls back in the viewer's."""

    def __call__(
        self,
        name: str,
        steps: Steps,
        *,
        yielded: Callable[[Any], None],
        returned: Callable[[Any], None],
        finished: Callable[[], None],
    ) -> Job:
        """Start; `finished` is always called, last; `returned` not after `quit`."""


class RunView(Protocol):
    """What any panel shows of a run."""

    def show_state(self, *, running: bool, cancelling: bool, can_start: bool) -> None: ...

    def show_progress(self, fraction: float | None, text: str) -> None: ...

    def show_message(self, text: str) -> None: ...

    def show_machinery(self, machinery: Any) -> None: ...


class HasLayer(Protocol):
    """Settings of a panel of one image."""

    @property
    def layer(self) -> Image | None: ...


class ImagePanel(RunView, Protocol):
    """What a panel of one image shows of it."""

    def settings(self) -> HasLayer: ...

    def show_layers(self, layers: Sequence[tuple[str, Image]], chosen: Image | None) -> None: ...

    def show_axes(self, automatic: str, choices: Sequence[tuple[str, str]], *, keep: bool) -> None: ...

    def show_side_by_side(self, *, available: bool, on: bool) -> None: ...
