"""``mpt-deblur train``: from files to weights, stopped and taken up again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.training.loop import Trainer

CONFIG = """
iterations = 4
patch_px = [64]
batch = [1]
warmup = 2
precision = "float32"
validate_every = 2
validation_pairs = 1

[network]
dims = [8, 8, 16, 16]
heads = [1, 1, 2, 2]
scales = [[0.5, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
window = 4
expansion = 1.5
stem = 2

[simulation]
psf_count = 6
disc_radius_px = [0.7, 4.0]
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        spots = gaussian_filter((rng.random((90, 100)) > 0.99).astype(np.float32), 4)
        tifffile.imwrite(folder / f"{number}.tif", (spots / spots.max() * 4000).astype(np.uint16))
    (tmp_path / "c.toml").write_text(CONFIG)
    return folder


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "state.pt", weights_only=True)
    return found


def assert_same_weights(first: Path, second: Path) -> None:
    for part in ("network", "average"):
        mine, theirs = state(first)[part], state(second)[part]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def stop_after(monkeypatch: pytest.MonkeyPatch, iteration: int, number: int) -> None:
    """Send a signal in the middle of a step: after the weights have changed, before their average has."""
    update = Trainer._update_average

    def interrupted(trainer: Trainer) -> None:
        if trainer.iteration == iteration:
            os.kill(os.getpid(), number)
        update(trainer)

    monkeypatch.setattr(Trainer, "_update_average", interrupted)


def test_trains_and_leaves_weights_that_load(run: Any, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    result = run("train", images, "-o", out, "--config", tmp_path / "c.toml", "--seed", 5)
    assert result.status == 0
    assert "Begun at iteration 0 of 4" in result.out
    assert str(out / "best.safetensors") in result.out
    model = load_model(out / "last.safetensors", device="cpu")
    assert model.config.training["iterations"] == 4
    assert model.config.training["config"]["seed"] == 5
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in log] == [2, 4]
    assert all(np.isfinite(entry["psnr"]) for entry in log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_a_step_and_resumed_equals_uninterrupted(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    options = ("--config", tmp_path / "c.toml", "--device", "cpu")
    assert run("train", images, "-o", tmp_path / "whole", *options).status == 0
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, number)
        stopped = run("train", images, "-o", tmp_path / "parts", *options)
    assert stopped.status == 130
    assert stopped.err.count("stopped; the same command goes on from here") == 1
    assert signal.getsignal(number) == handler
    assert state(tmp_path / "parts")["iteration"] == 3
    resumed = run("train", images, "-o", tmp_path / "parts", *options)
    assert "Resumed at iteration 3 of 4" in resumed.out
    assert resumed.status == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_the_time_limit_ends_a_run_that_goes_on_later(run: Any, images: Path, tmp_path: Path) -> None:
    options = (images, "-o", tmp_path / "run", "--config", tmp_path / "c.toml")
    assert run("train", *options, "--minutes", "1e-9").status == 0
    assert state(tmp_path / "run")["iteration"] == 1
    assert run("train", *options).status == 0
    assert state(tmp_path / "run")["iteration"] == 4


def test_restart_forgets_the_run_before(run: Any, images: Path, tmp_path: Path) -> None:
    options = (images, "-o", tmp_path / "run", "--config", tmp_path / "c.toml")
    assert run("train", *options).status == 0
    again = run("train", *options, "--restart", "--iterations", 1, "--minutes", "1e-9")
    assert "Begun at iteration 0 of 1" in again.out
    assert load_model(tmp_path / "run" / "best.safetensors", device="cpu").config.training["iterations"] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("images", "missing.tif"), 1, "missing.tif"),
        (("images/0.tif",), 1, "at least two sharp images"),
        (("images", "--validation", "images/1.tif"), 1, "both trained and validated on"),
        (("images", "--config", "missing.toml"), 2, "missing.toml"),
        (("images", "--config", "images/0.tif"), 2, "not a TOML file"),
        (("images", "--iterations", "0"), 2, "whole number above 0"),
        (("images", "--minutes", "nan"), 2, "number above 0"),
        (("images", "--device", "warp"), 2, "warp"),
        (("images", "flat.tif"), 1, "flat.tif"),
        (("list.txt",), 1, "gone.tif"),
        (("folder.txt",), 1, "folder.txt"),
    ],
)
def test_bad_arguments_are_told_before_any_work(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, status: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("flat.tif", np.full((64, 64), 7, np.uint8))
    Path("list.txt").write_text("images/0.tif\ngone.tif\n")
    Path("folder.txt").mkdir()
    if "--config" not in arguments:
        arguments += ("--config", "c.toml")
    result = run("train", *arguments, "-o", "out")
    assert result.status == status
    assert words in result.err
    assert "Traceback" not in result.err
    assert not Path("out", "state.pt").exists()


def test_a_damaged_state_is_refused_and_kept(run: Any, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "state.pt").write_bytes(b"damaged")
    result = run("train", images, "-o", out, "--config", tmp_path / "c.toml")
    assert result.status == 1
    assert "damaged" in result.err
    assert (out / "state.pt").read_bytes() == b"damaged"


def test_starts_from_a_model_and_takes_its_network(run: Any, images: Path, tmp_path: Path) -> None:
    first = ["train", images, "-o", tmp_path / "first", "--config", tmp_path / "c.toml"]
    assert run(*first).status == 0
    start = tmp_path / "first" / "last.safetensors"
    plain, other = tmp_path / "plain.toml", tmp_path / "other.toml"
    network = CONFIG[CONFIG.index("[network]") : CONFIG.index("[simulation]")]
    plain.write_text(CONFIG.replace(network, ""))
    other.write_text(CONFIG.replace("expansion = 1.5", "expansion = 2.0"))
    second = ["train", images, "-o", tmp_path / "second", "--start-from", start, "--iterations", 1, "--seed", 3]
    assert "another network" in run(*second, "--config", other).err
    assert run(*second, "--config", plain).status == 0
    before, after = (
        load_model(start, "cpu").network,
        load_model(tmp_path / "second" / "last.safetensors", "cpu").network,
    )
    assert after.config == before.config
    change = max(float((a - b).abs().max()) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert 0 < change < 0.02  # one step of AdamW


def test_a_model_that_does_not_exist_is_named(run: Any, images: Path, tmp_path: Path) -> None:
    result = run("train", images, "-o", tmp_path / "out", "--start-from", "nobody")
    assert result.status == 2
    assert "nobody" in result.err
    assert not (tmp_path / "out").exists()


def test_a_step_that_is_torn_is_not_saved(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told twice to end: at once, and what was saved before stays as it was."""
    options = ["train", images, "-o", tmp_path / "out", "--config", tmp_path / "c.toml"]
    assert run(*options, "--iterations", 1).status == 0
    before = (tmp_path / "out" / "state.pt").read_bytes()

    def interrupted(trainer: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_update_average", interrupted)
    assert run(*options).status == 130
    assert (tmp_path / "out" / "state.pt").read_bytes() == before
