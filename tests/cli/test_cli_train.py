"""``mpt-deblur train``: from files to weights, stopped and taken up again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.cli.main import build_parser
from napari_mpt_deblur.cli.train_request import make_request
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training import opening, session
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.events import Estimate
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.request import FocusStacks, ImagePairs, OpenLayer, SharpImages

CONFIG = """
iterations = 4
patch_px = [16]
batch = [1]
warmup = 2
precision = "float32"
validate_every = 2
validation_pairs = 1

[network]
dims = [4, 4, 4, 4]
heads = [1, 1, 1, 1]
scales = [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
window = 2
expansion = 1.0

[simulation]
psf_count = 4
disc_radius_px = [0.7, 1.5]
drawn = 0.0
"""


@pytest.fixture(autouse=True)
def small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_VALIDATION_SIDE_PX", 16)


@pytest.fixture
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate, a network and two steps of its own, is tested by what does not ask for this."""
    monkeypatch.setattr(session, "estimate", lambda config, device: Estimate(0.5, 0.5 * config.iterations, 10**6))


def spots(shape: tuple[int, int], seed: int) -> np.ndarray:
    field = gaussian_filter((np.random.default_rng(seed).random(shape) > 0.99).astype(np.float32), 1.5)
    return (field / field.max() * 4000).astype(np.uint16)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        tifffile.imwrite(folder / f"{number}.tif", spots((60, 70), number))
    (tmp_path / "c.toml").write_text(CONFIG)
    return folder


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "state.pt", weights_only=True)
    return found


def assert_same_weights(first: Path, second: Path) -> None:
    states = state(first), state(second)
    for part in ("network", "average"):
        mine, theirs = (each[part] for each in states)
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
    assert re.search(r"About \S+ s a step, .* in all, .* GB of memory, on cpu in float32", result.out)
    assert re.search(r"Held-out patches: PSNR .* before, PSNR .* after", result.out)
    assert str(out / "best.safetensors") in result.out
    model = load_model(out / "last.safetensors", device="cpu")
    assert model.config.training["iterations"] == 4
    assert model.config.training["config"]["seed"] == 5
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in log] == [0, 2, 4]
    assert all(np.isfinite(entry["psnr"]) for entry in log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_a_step_and_resumed_equals_uninterrupted(
    run: Any,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    number: int,
) -> None:
    options = ("--config", tmp_path / "c.toml", "--device", "cpu")
    assert run("train", images, "-o", tmp_path / "whole", *options).status == 0
    request.getfixturevalue("no_trial")  # what a run begins with does not depend on its estimate
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


@pytest.mark.usefixtures("no_trial")
def test_the_time_limit_ends_a_run_that_goes_on_later(run: Any, images: Path, tmp_path: Path) -> None:
    options = (images, "-o", tmp_path / "run", "--config", tmp_path / "c.toml")
    assert run("train", *options, "--minutes", "1e-9").status == 0
    assert state(tmp_path / "run")["iteration"] == 1
    later = run("train", *options)
    assert later.status == 0
    assert re.search(r"Resumed at iteration 1 of 4\.\nAbout .* for what is left, ", later.out)
    assert state(tmp_path / "run")["iteration"] == 4


def test_a_run_that_diverges_fails_in_a_line_and_keeps_good_weights(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def break_down(trainer: Trainer) -> Any:
        if trainer.iteration == 3:  # it was validated at 2
            with torch.no_grad():
                trainer.network.output.weight.fill_(torch.nan)
        return step(trainer)

    options = ("train", images, "-o", tmp_path / "run", "--config", tmp_path / "c.toml", "--name", "mine")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", break_down)
        result = run(*options)
    assert result.status == 1
    (line,) = [line for line in result.err.splitlines() if line.startswith("mpt-deblur:")]
    assert "loss is not finite at iteration 3; what was learnt until iteration 2 is kept: go on with a lower" in line
    assert "Traceback" not in result.err
    assert not (tmp_path / "no-models").exists()  # nothing went into the library
    for name in ("last", "best"):
        model = load_model(tmp_path / "run" / f"{name}.safetensors", "cpu")
        assert model.config.training["iterations"] == 2
        with torch.no_grad():
            assert torch.isfinite(model.network(torch.rand(1, 1, 16, 16))).all()
    assert run(*options[:-2]).status == 0
    assert state(tmp_path / "run")["iteration"] == 4


@pytest.mark.usefixtures("no_trial")
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
        (("images/0.tif",), 1, "at least two sharp images"),  # it is 60 x 70
        (("images", "--validation", "images/1.tif"), 1, "both trained and validated on"),
        (("images", "--config", "missing.toml"), 2, "missing.toml"),
        (("images", "--config", "images/0.tif"), 2, "not a TOML file"),
        (("images", "--iterations", "0"), 2, "whole number above 0"),
        (("images", "--minutes", "nan"), 2, "number above 0"),
        (("images", "--device", "warp"), 2, "warp"),
        (("images", "flat.tif"), 1, "flat.tif"),
        (("list.txt",), 1, "gone.tif"),
        (("folder.txt",), 1, "folder.txt"),
        ((), 2, "Name what to train on"),
        (("images", "--layer", "flat.tif"), 2, "one of them"),
        (("--layer", "flat.tif", "--validation", "images"), 2, "sharp images only"),
        (("--layer", "flat.tif"), 1, "all its pixels are the same"),
        (("--pairs", "images", "images/1.tif"), 1, "do not match by name"),
        (("--pairs", "images", "images"), 1, "is both the blurred and the sharp image"),
        (("--pairs", "images", "empty"), 1, "holds no image"),
        (("--stack", "images/0.tif"), 1, "no stack through focus"),
        (("images", "--method", "efcrex"), 2, "needs unlabelled images"),
        (("images", "--extra", "images/1.tif", "--extra-pairs", "images", "images"), 2, "not by both"),
        (("images", "--patch", "20"), 2, "multiples of 16 for this network: 16 or 32, not 20"),
        (("images", "--name", "../x"), 2, "cannot be a model's name"),
        (("images", "--name", "nuclei"), 2, "bundled"),
    ],
)
def test_bad_arguments_are_told_before_any_work(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, status: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("flat.tif", np.full((64, 64), 7, np.uint8))
    Path("list.txt").write_text("images/0.tif\ngone.tif\n")
    Path("folder.txt").mkdir()
    Path("empty").mkdir()
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


@pytest.mark.usefixtures("no_trial")
def test_starts_from_a_model_and_takes_its_network(run: Any, images: Path, tmp_path: Path) -> None:
    first = ["train", images, "-o", tmp_path / "first", "--config", tmp_path / "c.toml"]
    assert run(*first).status == 0
    start = tmp_path / "first" / "last.safetensors"
    plain, other = tmp_path / "plain.toml", tmp_path / "other.toml"
    network = CONFIG[CONFIG.index("[network]") : CONFIG.index("[simulation]")]
    plain.write_text(CONFIG.replace(network, ""))
    other.write_text(CONFIG.replace("expansion = 1.0", "expansion = 2.0"))
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


@pytest.mark.usefixtures("no_trial")
def test_a_step_that_is_torn_is_not_saved(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told twice to end: at once, and what was saved before stays as it was."""
    options = ["train", images, "-o", tmp_path / "out", "--config", tmp_path / "c.toml"]
    assert run(*options, "--iterations", 1).status == 0
    before = (tmp_path / "out" / "state.pt").read_bytes()

    torn = []

    def interrupted(trainer: Trainer) -> None:
        torn.append(trainer.iteration)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_update_average", interrupted)
    assert run(*options).status == 130
    assert torn == [1]
    assert (tmp_path / "out" / "state.pt").read_bytes() == before


def request(*arguments: Any) -> Any:
    return make_request(build_parser().parse_args(["train", "-o", "out", *map(str, arguments)]))


def test_each_source_is_what_its_option_says(images: Path, tmp_path: Path) -> None:
    first, second = images / "0.tif", images / "1.tif"
    assert isinstance(request(images).pairs, SharpImages)
    assert isinstance(request("--stack", first, second).pairs, FocusStacks)
    sharp = shutil.copytree(images, tmp_path / "sharp")
    pairs = request("--pairs", images, sharp, "--axes", "YX").pairs
    assert isinstance(pairs, ImagePairs)
    assert [image.axes for image in pairs.sharp] == ["YX"] * 3
    assert isinstance(request("--layer", first).pairs, OpenLayer)
    extra = request(images, "--extra-pairs", first, second)
    assert isinstance(extra.extra, ImagePairs)
    assert extra.config.contrast.method == "efcrex_labelled"
    unlabelled = request(images, "--unlabelled", first)
    assert [source.path for source in unlabelled.unlabelled] == [first]
    assert unlabelled.config.contrast.method == "efcrex"


def test_the_papers_recipe_is_an_option(images: Path, tmp_path: Path) -> None:
    asked = request(images, "--recipe", "paper", "--minutes", 5)
    assert (asked.config, asked.base, asked.fill_minutes) == (TrainingConfig.paper(3), None, False)
    grey = request("--layer", images / "0.tif", "--recipe", "paper-grey", "--batch", 2)
    assert (grey.config.network, grey.config.batch, grey.base) == (MPTConfig.paper(1), (2,), None)
    assert grey.config.contrast.method == "efcrex"
    of_ours = request(images, "--recipe", "paper", "--start-from", "nuclei").config
    assert (of_ours.network, of_ours.iterations) == (MPTConfig.tiny(), 300_000)  # the model's
    with pytest.raises(ParameterError, match="--config or by --recipe, not by both"):
        request(images, "--recipe", "paper", "--config", tmp_path / "c.toml")


def test_axes_are_those_of_extra_data_too(images: Path) -> None:
    first, second = images / "0.tif", images / "1.tif"
    sharp = request(images, "--axes", "YX", "--extra", first, second).extra
    assert [image.axes for image in sharp.images] == ["YX", "YX"]
    pairs = request(images, "--axes", "YX", "--extra-pairs", first, second).extra
    assert [image.axes for image in (*pairs.blurred, *pairs.sharp)] == ["YX", "YX"]


def test_one_image_alone_fine_tunes_the_model_in_the_box_on_itself(images: Path) -> None:
    asked = request("--layer", images / "0.tif", "--minutes", 3)
    assert (asked.base, asked.config.contrast.method, asked.fill_minutes) == ("nuclei", "efcrex", True)
    assert [source.path for source in asked.unlabelled] == [images / "0.tif"]
    assert asked.config == TrainingConfig.fine_tuning(asked.config.network, "efcrex")
    plain = request("--layer", images / "0.tif", "--method", "pixel", "--iterations", 7, "--minutes", 3)
    assert (plain.unlabelled, plain.config.iterations, plain.fill_minutes) == ((), 7, False)


def test_options_replace_what_the_configuration_says(images: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG + '\n[contrast]\nmethod = "efcr"\nextra_weight = 0.5\n')
    options = ("--beta", 1e-3, "--learning-rate", 2e-4, "--patch", 32, "--batch", 3, "--seed", 0, "--iterations", 9)
    config = request(images, "--config", tmp_path / "c.toml", *options).config
    assert (config.contrast.method, config.contrast.beta, config.contrast.extra_weight) == ("efcr", 1e-3, 0.5)
    assert (config.learning_rate, config.patch_px, config.batch) == (2e-4, (32,), (3,))
    assert (config.seed, config.iterations) == (0, 9)
    assert request(images, "--config", tmp_path / "c.toml", "--batch", 5).config.batch == (5,)
    (tmp_path / "c.toml").write_text("[contrast]\nkernels = [3]\n")
    with pytest.raises(ParameterError, match="kernels"):
        request(images, "--config", tmp_path / "c.toml")


@pytest.mark.usefixtures("no_trial")
def test_one_image_alone_becomes_a_model_in_the_library(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "library"))
    tifffile.imwrite(tmp_path / "cells.tif", spots((90, 100), 0))
    command = ["train", "--layer", tmp_path / "cells.tif", "-o", tmp_path / "out", "--iterations", 1, "--patch", 64]
    result = run(*command, "--batch", 1, "--name", "cells")
    assert result.status == 0
    assert "Saved as cells" in result.out
    assert "the image" in result.out  # what the sharp side is
    assert "cells" in run("models").out
    card = (tmp_path / "library" / "cells.md").read_text()
    assert "cells.tif" in card
    assert load_model(tmp_path / "library" / "cells.safetensors", "cpu").config.nucleus_diameter_px == (8, 150)
    again = run(*command, "--name", "cells")
    assert again.status == 2
    assert "One of your models is called cells" in again.err


def test_without_tensorboard_one_line_says_what_to_install(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = run("train", images, "-o", tmp_path / "out", "--config", tmp_path / "c.toml", "--tensorboard")
    assert result.status == 2
    assert "napari-mpt-deblur[tensorboard]" in result.err
    assert not (tmp_path / "out").exists()
