"""The loop: the same to the bit however often it is stopped, whatever the method; what it keeps and what it refuses."""

import json
import os
from dataclasses import replace

import pytest
import torch
from training.small import FEW, SIDE, small_config, small_network

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.checkpoints.shapes import parameter_count
from napari_mpt_deblur.errors import DivergedError, FileError, TrainingError
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training import loop, state
from napari_mpt_deblur.training.config import SimulationConfig
from napari_mpt_deblur.training.contrast_config import METHODS
from napari_mpt_deblur.training.data import TrainingData
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.objective import Batch, objective


@pytest.fixture
def train(make_trainer):
    def run(config, folder, until=None):
        trainer = make_trainer(config, folder)
        trainer.resume()
        losses = []
        for step in trainer.run():
            losses.append(step.losses)
            if step.iteration == until:
                break
        trainer.save()
        return trainer, losses

    return run


def assert_same(first, second):
    for part in ("network", "average"):
        mine, theirs = getattr(first, part).state_dict(), getattr(second, part).state_dict()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), part


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_equals_uninterrupted(train, tmp_path, method):
    config = small_config(contrast=method, iterations=2)
    whole, losses = train(config, tmp_path / "whole")
    _, first = train(config, tmp_path / "parts", until=1)
    parts, second = train(config, tmp_path / "parts")
    assert first + second == losses
    assert_same(whole, parts)
    assert (parts.before, parts.best, parts.last) == (whole.before, whole.best, whole.last)
    terms = {"pixel": 0, "v1": 2, "vex1": 2}.get(method, 3)
    assert sum(getattr(losses[0], name) is not None for name in ("positive", "negative", "extra")) == terms


def test_every_method_trains_another_network(make_trainer, tmp_path):
    """With one seed and one order of data; the contrastive part has a say in each."""
    weights = {}
    for method in METHODS:
        trainer = make_trainer(small_config(contrast=method), tmp_path)
        trainer.step()
        weights[method] = torch.cat([values.flatten() for values in trainer.network.state_dict().values()])
    assert all(
        not torch.equal(weights[mine], weights[theirs]) for mine in METHODS for theirs in METHODS if mine < theirs
    )


def test_every_method_has_the_same_start_and_the_same_pairs(make_trainer, tmp_path, monkeypatch):
    """What is compared differs by its loss alone."""
    seen = {}

    def note(network, batch, loss, contrast):
        seen[contrast.method].extend(batch.pairs)
        return objective(network, batch, loss, contrast)

    monkeypatch.setattr(loop, "objective", note)
    for method in METHODS:
        trainer = make_trainer(small_config(contrast=method, patch_px=(SIDE, 2 * SIDE), batch=(2, 1), seed=5), tmp_path)
        seen[method] = [values.clone() for values in trainer.network.state_dict().values()]
        for _ in range(2):
            trainer.step()
    first = seen.pop("pixel")
    assert {len(images) for images in first[-4:]} == {1, 2}  # both kinds of batches were drawn
    for values in seen.values():
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, values, strict=True))


def test_it_starts_from_a_model(make_trainer, base_model, tmp_path):
    start = load_model(base_model, "cpu")
    trainer = make_trainer(small_config(), tmp_path, start=start)
    weights, average = trainer.network.state_dict(), trainer.average.state_dict()
    for name, values in start.network.state_dict().items():
        assert torch.equal(weights[name], values)
        assert torch.equal(average[name], values)
    with pytest.raises(TrainingError, match="another network"):
        make_trainer(small_config(network=small_network(expansion=2.0)), tmp_path, start=start)


def test_the_model_says_what_came_before_it(train, make_trainer, base_model, tmp_path):
    start = load_model(base_model, "cpu")
    make_trainer(small_config(), tmp_path, start=start).save()
    train(small_config(iterations=1, loss="mse"), tmp_path)
    training = load_model(tmp_path / "last.safetensors", "cpu").config.training
    assert training["history"][0]["started_from"] == start.sha256
    assert training["history"][0]["name"] == "base"
    assert training["history"][1]["config"]["loss"] == "l1"
    assert len(training["history"]) == 2
    assert training["figures"]["before"]["iteration"] == 0
    assert training["figures"]["after"]["iteration"] == 1


class Dimmed:
    """Pairs that are easy to learn: the sharp side is the blurred one, dimmed."""

    def batch(self, number, size, side):
        blurred = torch.rand(size, 1, side, side, generator=torch.Generator().manual_seed(number))
        return blurred, 0.5 * blurred


def test_training_learns_and_its_weights_load(tmp_path):
    config = small_config(iterations=16, learning_rate=2e-2, validate_every=8, ema=0.5)
    trainer = Trainer(config, tmp_path, TrainingData(Dimmed(), [Dimmed().batch(1000, 1, 19)]))
    before = trainer.begin()
    scores = [step.validation for step in trainer.run() if step.validation]
    trainer.save()
    assert [each.iteration for each in scores] == [8, 16]
    assert scores[-1].psnr > before.psnr + 1
    assert scores[-1].psnr_blurred == before.psnr_blurred
    model = load_model(trainer.best_path, device="cpu")
    assert model.config.training["config"]["seed"] == 0
    x = torch.rand(1, 1, SIDE, SIDE)
    with torch.no_grad():
        last = load_model(trainer.last_path, device="cpu").network(x)
        assert torch.isfinite(model.network(x)).all()
    torch.testing.assert_close(last, trainer.average.eval()(x).detach())


def weights_of(trainer):
    return {name: values.clone() for name, values in trainer.network.state_dict().items()}


def assert_weights(trainer, expected):
    assert all(torch.equal(expected[name], values) for name, values in trainer.network.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run_and_the_good_weights_stay(make_trainer, tmp_path):
    trainer = make_trainer(small_config(), tmp_path)
    steps, begun = trainer.run(), weights_of(trainer)
    next(steps)
    trainer.save()
    kept = trainer.last_path.read_bytes()
    trainer._batch = lambda _: Batch((torch.full((2, 1, SIDE, SIDE), torch.nan),) * 2)
    with pytest.raises(TrainingError, match="loss is not finite at iteration 1: the images hold"):
        next(steps)
    assert not trainer.torn
    assert trainer.last_path.read_bytes() == kept
    assert trainer.iteration == 0
    assert_weights(trainer, begun)


@pytest.mark.parametrize("ema", [0.998, 0.0])
def test_a_run_that_diverges_goes_back_to_the_weights_that_were_validated_last(train, make_trainer, tmp_path, ema):
    """With all that belongs to them: it goes on from there as if nothing had been."""
    config = small_config(iterations=6, ema=ema)
    trainer = make_trainer(config, tmp_path / "diverged")
    steps = trainer.run()
    validated = [weights_of(trainer) for _, step in zip(range(4), steps, strict=False) if step.validation][-1]
    next(steps)
    with torch.no_grad():  # as too high a learning rate does: the step that breaks them is noticed by the next one
        trainer.network.output.weight.fill_(1e38)
    with pytest.raises(TrainingError, match="at iteration 5; what was learnt until iteration 4 is kept"):
        next(steps)
    assert_weights(trainer, validated)
    trainer.save()
    assert load_model(trainer.last_path, "cpu").config.training["iterations"] == 4
    resumed, _ = train(config, tmp_path / "diverged")
    whole, _ = train(config, tmp_path / "whole")
    assert_same(resumed, whole)
    assert resumed.best == whole.best


def test_weights_that_were_gone_back_to_do_not_have_the_figures_of_those_that_are_gone(make_trainer, tmp_path):
    trainer = make_trainer(small_config(iterations=8), tmp_path)
    steps = trainer.run()
    for _ in range(3):
        next(steps)
    with torch.no_grad():  # the average, which is validated, holds but a part of them
        trainer.network.output.weight.fill_(1e38)
        trainer.iteration += 1
        trainer.last = replace(trainer.last, iteration=4)
    with pytest.raises(TrainingError, match="at iteration 4; what was learnt until iteration 2 is kept"):
        trainer.step()
    trainer.save()
    figures = load_model(trainer.last_path, "cpu").config.training["figures"]
    assert set(figures) == {"before"}


def test_a_run_goes_back_where_validation_finds_no_numbers(make_trainer, tmp_path):
    trainer = make_trainer(small_config(), tmp_path)
    begun = weights_of(trainer)
    trainer.step()
    with torch.no_grad():
        trainer.average.output.weight.fill_(torch.inf)
    with pytest.raises(TrainingError, match="no number at iteration 1"):
        trainer.measure()
    assert trainer.iteration == 0
    assert_weights(trainer, begun)
    assert torch.isfinite(trainer.average.output.weight).all()


def test_a_loss_that_is_no_number_from_the_first_step_on_is_not_the_learning_rates(make_trainer, tmp_path):
    trainer = make_trainer(small_config(contrast="efcrex"), tmp_path)
    batch = trainer._batch(0)
    trainer._batch = lambda _: batch._replace(unlabelled=torch.full_like(batch.unlabelled, torch.nan))
    with pytest.raises(
        DivergedError, match="loss is not finite at iteration 0, before its first step: the images hold what"
    ):
        trainer.step()
    trainer._batch = lambda _: batch
    with torch.no_grad():
        trainer.network.output.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="before its first step: the weights that it begins with are at fault, not"):
        trainer.step()
    with torch.no_grad():
        trainer.average.output.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="no number at iteration 0, before its first step: the weights that it"):
        trainer.begin()


def test_weights_that_compute_no_numbers_are_not_validated(make_trainer, tmp_path):
    trainer = make_trainer(small_config(), tmp_path)
    with torch.no_grad():
        trainer.average.output.weight.fill_(torch.inf)
    with pytest.raises(TrainingError, match="no number at iteration 0"):
        trainer.measure()
    assert not trainer.best_path.exists()


def test_the_best_weights_have_their_own_figures_after_a_kill_between_measuring_and_saving(
    train, make_trainer, tmp_path
):
    config = small_config(iterations=6, learning_rate=5e-3)
    killed = make_trainer(config, tmp_path / "killed")
    steps = killed.run()
    for step in steps:
        if step.iteration == 3:
            killed.save()
        if step.iteration == 4:
            break  # measured, not saved
    assert killed.best.iteration == 4  # else nothing is tested
    resumed = make_trainer(config, tmp_path / "killed")
    assert resumed.resume()
    assert (resumed.iteration, resumed.best) == (3, killed.best)
    resumed, _ = train(config, tmp_path / "killed")
    whole, _ = train(config, tmp_path / "whole")
    assert_same(resumed, whole)
    assert (resumed.before, resumed.best, resumed.last) == (whole.before, whole.best, whole.last)
    elsewhere = make_trainer(config, tmp_path / "killed")
    elsewhere.data.record["pairs"] = {"kind": "other images"}
    elsewhere.save()  # with no figures; what the best weights say was measured on other pairs
    again = make_trainer(config, tmp_path / "killed")
    again.data.record["pairs"] = {"kind": "other images"}
    assert again.resume()
    assert again.best is None


def test_weights_that_could_not_be_written_are_not_the_best(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(small_config(), tmp_path)
    trainer.step()
    monkeypatch.setattr(trainer, "_export", lambda path: (_ for _ in ()).throw(FileError("the disk is full")))
    with pytest.raises(FileError):
        trainer.measure()
    assert trainer.best is None


def test_a_damaged_state_is_refused_and_kept(make_trainer, tmp_path):
    for content in (b"not a checkpoint", b""):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(TrainingError, match="damaged"):
            make_trainer(small_config(), tmp_path).resume()
        assert (tmp_path / "state.pt").read_bytes() == content
    torch.save({"iteration": 3}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="damaged"):
        make_trainer(small_config(), tmp_path).resume()


def test_a_run_of_another_network_is_refused(train, make_trainer, tmp_path):
    train(small_config(iterations=1), tmp_path)
    with pytest.raises(TrainingError, match="another network"):
        make_trainer(small_config(network=small_network(expansion=2.0)), tmp_path).resume()


def test_scores_count_for_their_own_validation_pairs_only(train, make_trainer, tmp_path):
    first, _ = train(small_config(iterations=2), tmp_path)
    other = SimulationConfig(psf_count=4, disc_radius_px=(0.7, 1.4), drawn=0)
    same, changed = (make_trainer(small_config(simulation=simulation), tmp_path) for simulation in (FEW, other))
    assert same.resume()
    assert changed.resume()
    assert same.best == first.best
    assert changed.best is None
    assert changed.iteration == 2
    elsewhere = make_trainer(small_config(), tmp_path)
    elsewhere.data.record["pairs"] = {"kind": "other images"}
    assert elsewhere.resume()
    assert elsewhere.best is None


def test_a_run_is_gone_on_with_as_its_settings_are_now(train, make_trainer, tmp_path):
    first, _ = train(small_config(iterations=2, ema=0.9), tmp_path)
    changed = small_config(ema=0.0, betas=(0.8, 0.9), weight_decay=0.3, patch_px=(2 * SIDE,))
    resumed = make_trainer(changed, tmp_path)
    assert resumed.resume()
    assert [(group["betas"], group["weight_decay"]) for group in resumed.optimizer.param_groups] == [((0.8, 0.9), 0.3)]
    assert_weights(resumed, first.network.state_dict())  # not the average that is kept no more
    assert resumed.best is None  # what is held out leaves room for a patch


def test_a_state_of_the_first_version_is_taken_up(train, make_trainer, tmp_path):
    train(small_config(iterations=2), tmp_path)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    old = {name: saved[name] for name in ("iteration", "history", "network", "average", "optimizer")}
    config = json.loads(saved["config"])
    for name in ("contrast", "flips", "scaled", "scales", "betas"):
        del config[name]
    torch.save(old | {"config": json.dumps(config), "best": 12.5}, tmp_path / "state.pt")
    (tmp_path / "best.safetensors").unlink()  # it told no figures
    trainer = make_trainer(small_config(), tmp_path)
    assert trainer.resume()
    assert (trainer.iteration, trainer.best.psnr) == (2, 12.5)
    trainer.measure()
    assert trainer.best == trainer.last  # any score of an untrained network is above 12.5 dB


@pytest.mark.parametrize(
    ("loss", "value"), [("l1", 0.5), ("mse", 1.0), ("rmse", 2**0.5 / 2)], ids=["l1", "mse", "rmse"]
)
def test_losses_of_one_perfect_image_and_one_that_is_off_by_two_in_half_its_pixels(make_trainer, tmp_path, loss, value):
    trainer = make_trainer(small_config(loss=loss), tmp_path)
    blurred = torch.rand(2, 1, SIDE, SIDE)
    trainer.network.forward = lambda x: x * trainer.network.input.weight.sum() * 0 + x
    sharp = blurred.clone()
    sharp[1, :, : SIDE // 2] += 2
    assert trainer._step(Batch((blurred, sharp))).total == pytest.approx(value, abs=1e-3)


def test_learning_rate_warms_up_and_falls_to_its_floor():
    config = small_config(iterations=100, warmup=10)
    rates = [config.learning_rate_at(i) for i in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[-1] == pytest.approx(config.final_learning_rate)
    short = small_config(iterations=20, warmup=300)
    assert max(map(short.learning_rate_at, range(20))) == short.learning_rate == short.learning_rate_at(4)
    low = small_config(iterations=100, warmup=10, learning_rate=1e-7)  # below the default floor
    assert max(map(low.learning_rate_at, range(101))) == pytest.approx(1e-7)


@pytest.mark.parametrize("method", ["efcrex", "efcrex_labelled", "vex1"])
def test_data_that_the_method_needs_must_be_there(make_trainer, tmp_path, method):
    data = make_trainer(small_config(), tmp_path).data
    with pytest.raises(TrainingError, match="needs unlabelled images or extra pairs"):
        Trainer(small_config(contrast=method), tmp_path, data)


def test_images_are_brought_to_the_networks_channels(make_trainer, tmp_path):
    """Grey pairs with colour extra pairs train a grey network and one of three channels."""

    class Colour:
        def batch(self, number, size, side):
            generator = torch.Generator().manual_seed(number)
            return tuple(torch.rand(size, 3, side, side, generator=generator) for _ in range(2))

    grey = make_trainer(small_config(), tmp_path).data
    for channels in (1, 3):
        config = small_config(network=small_network(in_channels=channels), contrast="efcrex_labelled", iterations=1)
        trainer = Trainer(config, tmp_path / str(channels), TrainingData(grey.train, grey.validation, extra=Colour()))
        (step,) = list(trainer.run())
        assert step.losses.extra > 0
        assert step.validation.psnr_blurred == pytest.approx(trainer.before.psnr_blurred)


def test_a_full_disk_leaves_the_checkpoint_before_whole(train, make_trainer, tmp_path, monkeypatch):
    train(small_config(iterations=2), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(28, os.strerror(28))

    trainer = make_trainer(small_config(), tmp_path)
    trainer.resume()
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(FileError, match="the disk is full"):
        trainer.save()
    trainer.best = None
    with pytest.raises(FileError, match="the disk is full"):
        trainer.measure()
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_room_for_checkpoints_is_looked_for_before_the_work(tmp_path, monkeypatch):
    folder = tmp_path / "not" / "there"
    state.check_folder(folder, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000}))
    with pytest.raises(FileError, match=r"take 48 MB, but .* has 0 MB left"):
        state.check_folder(folder, 10**6)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is a file"):
        state.check_folder(tmp_path / "file", 1000)
    assert not folder.parent.exists()


def test_the_state_takes_no_more_than_was_counted(train, make_trainer, tmp_path):
    trainer, _ = train(small_config(network=MPTConfig.tiny(), patch_px=(64,), iterations=1), tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    at_most = sum(sizes.values()) + sizes["state.pt"] + sizes["last.safetensors"]  # the next ones beside them
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    assert parameters == parameter_count(MPTConfig.tiny())
    assert 0.5 * state.needed_bytes(parameters) < at_most + 2**21 < state.needed_bytes(parameters)
