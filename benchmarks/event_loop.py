"""How live the viewer stays while a stack is deblurred and its nuclei are found: gaps of its event loop.

    xvfb-run python benchmarks/event_loop.py [--model NAME] [--planes 30] [--size 512] [--rounds 3]

Opens napari with the Deblur widget, starts a run on a stack made from the sample, moves the slider now and then as a
user would, and prints how long the event loop was deaf at a time. Runs that are left alone take turns with runs in a
process without a viewer; each against those before and after it tells what the viewer costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from qtpy.QtCore import QEventLoop, QTimer

if TYPE_CHECKING:
    from napari_mpt_deblur import DeblurWidget

TICK_MS = 5
Waited = TypeVar("Waited")


class GapMeter:
    """Notes the time between ticks of a timer: whatever holds the event loop up makes one longer.

    Use as a context manager around something that runs the event loop.
    """

    def __init__(self) -> None:
        self.gaps_ms: list[float] = []
        self._last = 0.0
        self._timer = QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)

    def __enter__(self) -> GapMeter:
        self._last = time.perf_counter()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps_ms.append(1000 * (now - self._last))
        self._last = now

    @property
    def p99_ms(self) -> float:
        """99th percentile of the gaps."""
        return float(np.percentile(self.gaps_ms, 99))

    @property
    def longest_ms(self) -> float:
        return max(self.gaps_ms)

    def __str__(self) -> str:
        return f"{len(self.gaps_ms)} gaps: 99th percentile {self.p99_ms:.0f} ms, longest {self.longest_ms:.0f} ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--planes", type=int, default=30)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    stack = _stack(options.planes, options.size)
    if options.alone:
        print(json.dumps({"seconds": _seconds_alone(stack, options.model)}))
        return

    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.add_image(stack, name="stack")
    _, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Deblur")
    while not panel.controller.is_ready:  # torch is imported in the background: once, and not part of this
        QApplication.processEvents()
        time.sleep(0.01)
    if options.model:
        panel.choose_model(options.model)
    slider = QTimer()
    slider.setInterval(150)
    slider.timeout.connect(lambda: viewer.dims.set_current_step(0, (viewer.dims.current_step[0] + 1) % options.planes))
    print(f"idle, untouched             {_gaps(2)}", flush=True)
    slider.start()
    print(f"idle, slider moving         {_gaps(5)}", flush=True)
    print(f"deblurring, slider moving   {_deblur(panel, _gaps)}", flush=True)
    slider.stop()
    print(f"deblurring, untouched       {_deblur(panel, _gaps)}", flush=True)
    _print_cost(panel, options)
    _, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Detect nuclei")
    while not panel.controller.is_ready:
        QApplication.processEvents()
        time.sleep(0.01)
    panel.controller.detect()
    print(f"detecting, untouched        {_gaps(while_true=lambda: panel.controller.is_running)}", flush=True)
    viewer.close()


def _print_cost(panel: DeblurWidget, options: argparse.Namespace) -> None:
    """Of the viewer; without the meter of gaps, whose ticks are not the viewer's."""
    alone, costs = [_without_viewer(options)], []
    for _ in range(options.rounds):
        began = time.perf_counter()
        _deblur(panel, _run_loop)
        seconds = time.perf_counter() - began
        alone.append(_without_viewer(options))
        costs.append(seconds / statistics.mean(alone[-2:]) - 1)
        print(
            f"with a viewer {seconds:.1f} s, without {alone[-2]:.1f} and {alone[-1]:.1f} s: {costs[-1]:+.0%}",
            flush=True,
        )
    print(f"cost of the viewer          {statistics.median(costs):+.0%} ({min(costs):+.0%} to {max(costs):+.0%})")


def _deblur(panel: DeblurWidget, wait: Callable[..., Waited]) -> Waited:
    panel.controller.deblur()
    return wait(while_true=lambda: panel.controller.is_running)


def _stack(planes: int, side: int) -> np.ndarray:
    from napari_mpt_deblur.optics.sample import sample_focus_stack

    sample = sample_focus_stack().stack
    repeats = -(-side // sample.shape[1])
    return np.tile(np.resize(sample, (planes, *sample.shape[1:])), (1, repeats, repeats))[:, :side, :side]


def _seconds_alone(stack: np.ndarray, model: str | None) -> float:
    from napari_mpt_deblur import deblur

    options = {"axes": "ZYX"} | ({"model": model} if model else {})
    deblur(stack[:1], **options)  # imports torch, which the panel does before
    began = time.perf_counter()
    deblur(stack, **options)
    return time.perf_counter() - began


def _without_viewer(options: argparse.Namespace) -> float:
    from timing import in_fresh_process  # beside this script; tests that use `GapMeter` do not know the folder

    model = ["--model", options.model] if options.model else []
    arguments = ["--alone", "--planes", str(options.planes), "--size", str(options.size), *model]
    return in_fresh_process(__file__, *arguments)["seconds"]


def _gaps(seconds: float = 3600.0, while_true: Callable[[], bool] = lambda: True) -> GapMeter:
    with GapMeter() as gaps:
        _run_loop(seconds, while_true)
    return gaps


def _run_loop(seconds: float = 3600.0, while_true: Callable[[], bool] = lambda: True) -> None:
    """As napari runs: asleep between events."""
    end = time.perf_counter() + seconds
    loop, watch = QEventLoop(), QTimer()
    watch.setInterval(20)
    watch.timeout.connect(lambda: None if time.perf_counter() < end and while_true() else loop.quit())
    watch.start()
    loop.exec()


if __name__ == "__main__":
    main()
