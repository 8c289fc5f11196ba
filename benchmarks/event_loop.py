"""How live the viewer stays while a stack is deblurred and its nuclei are found: gaps of its event loop.

    xvfb-run python benchmarks/event_loop.py [--model NAME] [--planes 7] [--size 512]

Opens napari with the Deblur widget, starts a run on a stack made from the sample, moves the slider now and then as a
user would, and prints how long the event loop was deaf at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from qtpy.QtCore import QTimer

TICK_MS = 5


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
    parser.add_argument("--planes", type=int, default=7)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_mpt_deblur.optics.sample import sample_focus_stack

    sample = sample_focus_stack().stack
    repeats = -(-options.size // sample.shape[1])
    stack = np.tile(np.resize(sample, (options.planes, *sample.shape[1:])), (1, repeats, repeats))
    viewer = napari.Viewer()
    viewer.add_image(stack[:, : options.size, : options.size], name="stack")
    _, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Deblur")
    while not panel.controller.is_ready:  # torch is imported in the background: once, and not part of this
        QApplication.processEvents()
        time.sleep(0.01)
    if options.model:
        panel.choose_model(options.model)
    slider = QTimer()
    slider.setInterval(150)
    slider.timeout.connect(lambda: viewer.dims.set_current_step(0, (viewer.dims.current_step[0] + 1) % options.planes))
    print(f"idle, untouched          {_gaps(2)}", flush=True)
    slider.start()
    print(f"idle, slider moving      {_gaps(5)}", flush=True)
    for moving in (False, True):
        slider.start() if moving else slider.stop()
        began = time.perf_counter()
        panel.controller.deblur()
        gaps = _gaps(while_true=lambda: panel.controller.is_running)
        words = "slider moving  " if moving else "untouched      "
        print(f"deblurring, {words}    {gaps}, over {time.perf_counter() - began:.1f} s", flush=True)
    slider.stop()
    _, panel = viewer.window.add_plugin_dock_widget("napari-mpt-deblur", "Detect nuclei")
    while not panel.controller.is_ready:
        QApplication.processEvents()
        time.sleep(0.01)
    panel.controller.detect()
    print(f"detecting, untouched     {_gaps(while_true=lambda: panel.controller.is_running)}", flush=True)
    viewer.close()


def _gaps(seconds: float = 3600.0, while_true: Callable[[], bool] = lambda: True) -> GapMeter:
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    with GapMeter() as gaps:
        while time.perf_counter() < end and while_true():
            QApplication.processEvents()
            time.sleep(0.001)
    return gaps


if __name__ == "__main__":
    main()
