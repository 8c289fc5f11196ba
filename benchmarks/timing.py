"""What the benchmarks share: things that take turns in one process, and the peak memory of a process of its own.

What else the machine does weighs on all that take turns, so ratios within rounds are what counts. On a busy machine set
OMP_NUM_THREADS=1 and give --processor, which compares processor seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

Runs = Mapping[str, Callable[[], object]]
Context = Callable[[], AbstractContextManager[None]]
_SETTLING = 3


def options_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of what takes turns: --rounds and --processor."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--processor", action="store_true", help="processor seconds instead of seconds")
    return parser


def take_turns(
    runs: Runs, rounds: int, processor: bool = False, contexts: Mapping[str, Context] | None = None
) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one that does not count: it loads, allocates and plans.

    Where contexts are given, a turn enters that of its run, and what counts comes after some that do not: by then
    memory is what it is in the middle of a longer run.
    """
    clock = time.process_time if processor else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for counts in (False, *(True,) * rounds):
        for name, run in runs.items():
            with (contexts or {}).get(name, nullcontext)():
                for _ in range(_SETTLING if contexts else 0):
                    run()
                started = clock()
                run()
                if counts:
                    times[name].append(clock() - started)
    return times


def print_head(reference: str) -> None:
    """The head of `print_rows`' table."""
    print(f"| | median seconds | fastest to slowest | ratio to {reference}: median of rounds | least to greatest |")
    print("|---|---|---|---|---|")


def print_rows(times: dict[str, list[float]], reference: str) -> None:
    """Seconds, and ratios to the reference in the same round, with their spread."""
    for name, taken in times.items():
        ratios = np.divide(taken, times[reference])
        print(
            f"| {name} | {np.median(taken):.3f} | {min(taken):.3f} to {max(taken):.3f} "
            f"| {np.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |",
            flush=True,
        )


def peak_bytes() -> int:
    """Peak resident memory of this process up to now."""
    if sys.platform == "linux":  # there, what getrusage says begins with the peak of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_fresh_process(script: str, *arguments: str) -> dict:
    """Run a script in a process of its own, so that peaks do not mix; what its last line says, as JSON."""
    command = [sys.executable, script, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])
