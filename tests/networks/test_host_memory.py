"""Memory that runs keep: used again while they last, given back after the last one."""

import platform
import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest
import torch

from napari_mpt_deblur.networks import MPT, MPTConfig, host_memory
from napari_mpt_deblur.networks.host_memory import kept_memory

_PROGRAM = """
import resource, torch
from contextlib import nullcontext
from napari_mpt_deblur.networks.host_memory import kept_memory

def pages_touched(context):
    with context:
        for times in (15, 5):  # the heap grows by some before it has a hole that fits
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(times):
                torch.ones(12 * 2**20)  # 48 MB: more than glibc keeps by itself
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(pages_touched(nullcontext()), pages_touched(kept_memory()))
before = resident()
with kept_memory():
    maps = [torch.ones(2**20) for _ in range(50)]  # 200 MB
    del maps
    within = resident() - before
print(within // 2**20, (resident() - before) // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_kept_memory_is_not_touched_anew_and_is_given_back():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
    usual, kept, within_mb, after_mb = map(int, done.stdout.split())
    assert kept < usual / 100
    assert within_mb > 190
    assert after_mb < 20


def test_only_the_last_of_several_runs_gives_back(monkeypatch):
    calls = []
    monkeypatch.setattr(host_memory, "_set_thresholds", lambda *sizes: calls.append(sizes))
    monkeypatch.setattr(host_memory, "_give_back", lambda: calls.append("given back"))
    with kept_memory():
        with pytest.raises(ValueError, match="inner"), kept_memory():
            raise ValueError("inner")
        assert "given back" not in calls
    assert calls[-1] == "given back"
    assert calls[0] == calls[1] != calls[2]


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(host_memory.ctypes, "CDLL", None)  # a call would fail
    monkeypatch.setattr(host_memory, "_glibc", host_memory._glibc.__wrapped__)  # asks anew
    with kept_memory():
        pass


def test_an_older_glibc_that_refuses_is_told_the_most_it_takes(monkeypatch):
    """Before 2.35 it keeps no block of more than 32 MB, and once told anything it raises no threshold by itself."""
    told = {}

    class Older:
        @staticmethod
        def mallopt(name, size):
            accepted = name != host_memory._MMAP_THRESHOLD or size <= 32 * 2**20
            if accepted:
                told[name] = size
            return int(accepted)

        @staticmethod
        def malloc_trim(_padding):
            return 1

    monkeypatch.setattr(host_memory, "_glibc", Older)
    with kept_memory():
        assert told == {-1: 2**30, -3: 32 * 2**20}


def test_a_forgotten_run_may_end_while_another_begins(monkeypatch):
    """The garbage collector ends it, at any moment, in the thread that holds the lock."""
    forgotten = kept_memory()
    forgotten.__enter__()
    endings = [forgotten]

    def collect(*_sizes):
        if endings:
            endings.pop().__exit__(None, None, None)

    monkeypatch.setattr(host_memory, "_set_thresholds", collect)
    done = []

    def run():
        with kept_memory():
            done.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert done
    assert not thread.is_alive()


def test_a_pass_without_gradients_keeps_memory_by_itself():
    network = MPT(MPTConfig.tiny(in_channels=1))
    runs = []
    network.output.register_forward_hook(lambda *_: runs.append(host_memory._runs))
    image = torch.rand(1, 1, 64, 64)
    for context in (torch.no_grad(), torch.inference_mode(), nullcontext()):
        with context:
            network(image)
    assert runs == [1, 1, 0]
    assert host_memory._runs == 0
