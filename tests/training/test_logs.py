"""The log, and TensorBoard's where it is installed."""

import json
import sys
import types

import pytest

from napari_mpt_deblur.errors import FileError, ParameterError
from napari_mpt_deblur.training.events import Losses, Scores, Step
from napari_mpt_deblur.training.logs import Log
from napari_mpt_deblur.training.state import forget_run

SCORES = Scores(2, 30.0, 25.0, 0.9, 0.8)


def _fill(log):
    log.begin(Scores(0, 26.0, 25.0, 0.85, 0.8))
    log.add(Step(1, Losses(0.4, 0.3, 10.0, 0.2, 0.1, 0.5), 1e-3))
    log.add(Step(2, Losses(0.2, 0.1, 10.0, 0.4, 0.1, 0.5), 1e-3, SCORES))
    log.close()


def test_a_line_a_validation_with_the_means_of_all_terms_before_it(tmp_path):
    _fill(Log(tmp_path))
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["iteration"], first["psnr"]) == (0, 26.0)
    assert (second["iteration"], second["psnr"]) == (2, 30.0)
    for name, value in {"loss": 0.3, "pixel": 0.2, "positive": 0.3, "negative": 0.1, "extra": 0.5}.items():
        assert second[name] == pytest.approx(value)


def test_tensorboard_gets_every_step(tmp_path, monkeypatch):
    written = {}

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written["folder"], written["first"] = folder, purge_step

        def add_scalar(self, name, value, iteration):
            written[name, iteration] = value

        def close(self):
            written["closed"] = True

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    _fill(Log(tmp_path, tensorboard=True))
    assert (written["folder"], written["first"]) == (str(tmp_path / "tensorboard"), 0)
    assert [written[f"loss/{name}", 1] for name in ("total", "pixel loss", "L+", "L-", "Lext")] == [
        0.4,
        0.3,
        0.2,
        0.1,
        0.5,
    ]
    assert (written["validation/psnr", 0], written["validation/psnr", 2], written["closed"]) == (26.0, 30.0, True)


def test_events_are_what_tensorboard_reads(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    _fill(Log(tmp_path, tensorboard=True))
    events = loader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss/total")] == pytest.approx([0.4, 0.2])


def test_tensorboard_shows_each_step_once_where_a_killed_run_goes_on(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    _fill(Log(tmp_path, tensorboard=True))
    resumed = Log(tmp_path, tensorboard=True, iteration=1)  # what was saved last
    resumed.add(Step(2, Losses(0.3, 0.1, 10.0, 0.4, 0.1, 0.5), 1e-3, SCORES))
    resumed.close()
    events = loader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/total")] == [
        (1, pytest.approx(0.4)),
        (2, pytest.approx(0.3)),
    ]
    assert [event.step for event in events.Scalars("validation/psnr")] == [0, 2]


def test_a_run_that_is_forgotten_leaves_no_log(tmp_path):
    _fill(Log(tmp_path))
    (tmp_path / "tensorboard").mkdir()
    for name in ("events.out.tfevents.1790000000.host.1.0", "notes.txt"):  # the second is not ours
        (tmp_path / "tensorboard" / name).touch()
    forget_run(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["notes.txt", "tensorboard"]


def test_without_tensorboard_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ParameterError, match=r"napari-mpt-deblur\[tensorboard\]"):
        Log(tmp_path, tensorboard=True)


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(FileError, match=r"log\.jsonl"):
        Log(tmp_path).begin(SCORES)
