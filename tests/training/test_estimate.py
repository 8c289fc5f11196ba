"""What a run will take is measured on a patch, and grows as it should."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from oracle.live_memory import LiveBytes
from training.small import small_config

from napari_mpt_deblur.errors import DeviceError
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training import estimate as estimating
from napari_mpt_deblur.training.data import TrainingData
from napari_mpt_deblur.training.estimate import estimate
from napari_mpt_deblur.training.loop import Trainer


@pytest.fixture
def clock(monkeypatch):
    """Every step takes a tenth of a second; only the first, whose memory is counted, is really taken."""
    monkeypatch.setattr(estimating, "_timed_step", lambda trainer: (trainer.iteration or trainer.step()) and 0.1)


@pytest.mark.usefixtures("clock")
def test_time_goes_with_the_pixels_of_a_batch():
    one = estimate(small_config(batch=(1,), validate_every=4, validation_pairs=1), "cpu")
    assert one.seconds_per_step == pytest.approx(0.1)
    assert one.seconds == pytest.approx(4 * 0.1 + (256 / 16) ** 2 * 0.1 / 3)
    mixed = estimate(small_config(patch_px=(16, 32), batch=(2, 1)), "cpu")
    assert mixed.seconds_per_step == pytest.approx(0.1 * (2 + 4) / 2)


@pytest.mark.usefixtures("clock")
def test_memory_goes_with_the_largest_batch_and_the_passes():
    bytes_of = {
        method: estimate(small_config(contrast=method, batch=(4,)), "cpu").memory_bytes
        for method in ("pixel", "efcr", "efcrex_labelled")
    }
    assert bytes_of["pixel"] < bytes_of["efcr"] < bytes_of["efcrex_labelled"]
    sizes = {batch: estimate(small_config(batch=(batch,)), "cpu").memory_bytes for batch in (1, 2, 3)}
    assert sizes[3] - sizes[2] == pytest.approx(sizes[2] - sizes[1], rel=1e-3)
    assert bytes_of["pixel"] - sizes[3] == pytest.approx(sizes[2] - sizes[1], rel=1e-3)


def test_what_is_counted_is_what_a_graph_keeps():
    weight = torch.nn.Parameter(torch.rand(10, 10))
    network = torch.nn.Module()
    network.weight = weight
    with estimating._kept_bytes(network) as kept:
        first = torch.rand(5, 10)
        middle = first @ weight  # keeps its input; the weight is the network's own
        middle.square().sum().backward()  # keeps what it squares
    assert kept == [4 * (50 + 50)]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_is_what_a_step_holds(precision):
    """Counted as torch makes and drops tensors; allocators add a little."""
    config = small_config(network=MPTConfig.tiny(), patch_px=(64,), batch=(4,), precision=precision)
    data = TrainingData(estimating.Noise(1), (), estimating.NoiseImages(1), estimating.Noise(1))
    trainer = Trainer(config, Path(), data)
    weights = 4 * sum(each.numel() for each in trainer.network.parameters())
    with LiveBytes(chain(trainer.network.parameters(), trainer.average.parameters())) as live:
        trainer.step()
    estimated = estimate(config, "cpu").memory_bytes - estimating._LIBRARY_BYTES
    assert 0.95 < estimated / (live.peak + 2 * weights) < 1.25


def test_a_real_estimate_is_of_the_order_of_a_real_step():
    found = estimate(small_config(), "cpu")
    assert 1e-3 < found.seconds_per_step < 60
    assert 1e8 < found.memory_bytes < 1e9


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(DeviceError, match="warp"):
        estimate(small_config(), "warp")
