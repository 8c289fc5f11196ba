"""Synthetic pairs and the training loop."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass, gaussian_filter, zoom

from napari_mpt_deblur.checkpoints import load_model
from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training.config import SimulationConfig, TrainingConfig
from napari_mpt_deblur.training.loop import Trainer
from napari_mpt_deblur.training.simulation import DefocusPairs, OpticsBank, SharpImage

TINY = MPTConfig.tiny()
SIDE = TINY.size_multiple
FEW = SimulationConfig(psf_count=12, disc_radius_px=(0.7, 6.0))


def _config(**changes):
    values = {
        "network": TINY,
        "simulation": FEW,
        "iterations": 6,
        "patch_px": (SIDE,),
        "batch": (2,),
        "warmup": 2,
        "precision": "float32",
        "validate_every": 3,
        "validation_pairs": 2,
    }
    return TrainingConfig(**values | changes)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    spots = gaussian_filter((rng.random((3, 120, 150)) > 0.995).astype(np.float32), (0, 4, 4))
    return [SharpImage.of(1000 * spot / spot.max()) for spot in spots]


def _train(config, folder, images, until=None):
    trainer = Trainer(config, folder, images[:2], images[2:])
    trainer.resume()
    losses = []
    for step in trainer.run():
        losses.append(step.loss)
        if step.iteration == until:
            break
    trainer.save()
    return trainer, losses


def test_pairs_depend_on_seed_and_number_alone(images):
    pairs, again = (DefocusPairs(images, FEW, seed=3) for _ in range(2))
    again.pair(0, 64)  # what was drawn before does not matter
    for mine, theirs in zip(pairs.pair(7, 64), again.pair(7, 64), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (pairs.pair(7, 64)[0] != DefocusPairs(images, FEW, seed=4).pair(7, 64)[0]).any()
    assert (pairs.pair(7, 64)[0] != pairs.pair(8, 64)[0]).any()


@pytest.mark.parametrize("side", [32, 128, 256])
def test_pairs_are_finite_and_of_the_size_asked_for(images, side):
    pairs = DefocusPairs(images, FEW, seed=0)
    for number in range(20):
        blurred, sharp = pairs.pair(number, side)
        assert blurred.shape == sharp.shape == (side, side)
        assert np.isfinite(blurred).all()
        assert np.isfinite(sharp).all()


CLEAN = {"psf_count": 80, "thick": 0, "photons": (1e12, 1e12), "read_noise": (1e-6, 1e-6)} | dict.fromkeys(
    ("textured", "crisp", "drawn", "grain", "empty"), 0
)


def _median_difference(images, **changes):
    pairs = DefocusPairs(images, SimulationConfig(**CLEAN | {"native_scale": 1.0, "identity": 0} | changes), seed=0)
    both = (pairs.pair(number, 96) for number in range(24))
    return np.median([np.abs(blurred - sharp).mean() for blurred, sharp in both])


def test_identity_pairs_without_noise_are_the_same(images):
    assert _median_difference(images, identity=1) < 1e-5


def test_in_focus_pairs_without_noise_differ_little(images):
    """By a fraction of the smallest defocus where pixels are coarse; hardly where they show the optics' blur."""
    defocused = _median_difference(images, in_focus=0, disc_radius_px=(6, 7))
    assert _median_difference(images, in_focus=1) < 0.4 * defocused
    large = [SharpImage(zoom(image.pixels, 3, order=3), 60.0) for image in images]
    fine = _median_difference(large, in_focus=1, disc_radius_px=(1e-3, 2e-3))
    assert fine < 0.02 * defocused


def test_finely_sampled_pairs_end_at_the_optics_own_resolution():
    """A point in focus is not to be sharpened beyond what the microscope resolves: no texture is invented."""
    point = np.zeros((256, 256), np.float32)
    point[::32, ::32] = 1
    config = SimulationConfig(**CLEAN | {"native_scale": 1, "in_focus": 1, "identity": 0, "inverted": 0})

    def wide_points(nucleus_px):
        pairs = DefocusPairs([SharpImage(point, nucleus_px)], config, seed=0)
        sharp = (pairs.pair(number, 128)[1] for number in range(24))
        return np.mean([(each - each.min() > 0.5 * np.ptp(each)).sum() / 16 > 1.5 for each in sharp])

    assert wide_points(100.0) > 0.35  # most of these are finely sampled
    assert wide_points(20.0) < 0.15  # few of these are


def test_a_defocused_pair_is_registered(images):
    """The blurred patch lies where the sharp one lies: a shift either way fits worse."""
    config = SimulationConfig(
        **CLEAN | {"psf_count": 12, "in_focus": 0, "inverted": 0, "disc_radius_px": (3, 4), "photons": (1e8, 1e8)}
    )
    pairs = DefocusPairs(images, config, seed=0)
    here, shifted = [], []
    for number in range(20):
        blurred, sharp = pairs.pair(number, 96)
        here.append(np.abs(blurred - sharp)[4:-4, 4:-4].mean())
        for axis in (0, 1):
            for step in (-2, 2):
                shifted.append(np.abs(np.roll(blurred, step, axis) - sharp)[4:-4, 4:-4].mean())
    assert np.mean(here) < np.mean(shifted)


def test_point_spread_functions_are_centred():
    bank, rng = OpticsBank(SimulationConfig(psf_count=40), seed=0), np.random.default_rng(0)
    drawn = [bank.draw(rng, fine, focused) for fine in (True, False) for focused in (True, False) for _ in range(8)]
    for psf in (psf for optics in drawn for psf in optics if psf is not None):
        assert psf.sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(center_of_mass(psf), psf.shape[0] // 2, atol=0.1)
    assert {optics.in_focus is None for optics in drawn} == {True, False}


def test_inverted_pairs_are_noisiest_where_they_are_bright(images):
    config = SimulationConfig(
        psf_count=12, disc_radius_px=(0.7, 1), thick=0, inverted=1, textured=0, empty=0, photons=(300, 300)
    )
    pairs = DefocusPairs(images, config, seed=0)
    noise = {True: [], False: []}
    for number in range(12):
        blurred, sharp = pairs.pair(number, 128)
        middle = (sharp.min() + sharp.max()) / 2
        for bright in noise:
            part = (sharp > middle) == bright
            noise[bright].append((blurred - gaussian_filter(blurred, 1.5))[part].std())
    assert np.median(noise[True]) > np.median(noise[False])


def test_stopped_and_resumed_equals_uninterrupted(images, tmp_path):
    whole, losses = _train(_config(), tmp_path / "whole", images)
    _, first = _train(_config(), tmp_path / "parts", images, until=4)
    parts, second = _train(_config(), tmp_path / "parts", images)
    assert first + second == losses
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, parts.network.state_dict()[name]), name
    for name, values in whole.average.state_dict().items():
        assert torch.equal(values, parts.average.state_dict()[name]), name


def test_it_starts_from_a_model(images, tmp_path):
    first, _ = _train(_config(iterations=1, validate_every=1), tmp_path / "first", images)
    start = load_model(first.last_path, "cpu")
    trainer = Trainer(_config(), tmp_path / "second", images[:2], images[2:], start=start)
    for name, values in start.network.state_dict().items():
        assert torch.equal(trainer.network.state_dict()[name], values)
        assert torch.equal(trainer.average.state_dict()[name], values)
    with pytest.raises(TrainingError, match="another network"):
        Trainer(_config(network=MPTConfig.compact(), patch_px=(128,)), tmp_path, images[:2], images[2:], start=start)


def test_the_model_says_what_came_before_it(images, tmp_path):
    first, _ = _train(_config(iterations=1, validate_every=1), tmp_path / "first", images)
    start = load_model(first.last_path, "cpu")
    folder = tmp_path / "second"
    Trainer(_config(), folder, images[:2], images[2:], start=start).save()
    _train(_config(iterations=3, loss="mse"), folder, images)
    history = load_model(folder / "last.safetensors", "cpu").config.training["history"]
    assert history[0]["started_from"] == start.sha256
    assert history[0]["training"]["iterations"] == 1
    assert history[1]["config"]["loss"] == "l1"
    assert len(history) == 2


def test_training_learns_and_its_weights_load(images, tmp_path):
    blurred = SimulationConfig(psf_count=12, disc_radius_px=(2, 6), in_focus=0, identity=0, drawn=0, empty=0)
    config = _config(simulation=blurred, iterations=20, learning_rate=3e-3, validate_every=10, validation_pairs=8)
    trainer = Trainer(config, tmp_path, images[:2], images[2:])
    before = trainer.validate()["psnr"]
    scores = [step.validation for step in trainer.run() if step.validation]
    trainer.save()
    assert len(scores) == 2
    assert scores[-1]["psnr"] > before
    model = load_model(trainer.best_path, device="cpu")
    x = torch.rand(1, 1, SIDE, SIDE)
    assert model.config.training["config"]["seed"] == 0
    with torch.no_grad():
        best, last = model.network(x), load_model(trainer.last_path, device="cpu").network(x)
    assert torch.isfinite(best).all()
    torch.testing.assert_close(last, trainer.average.eval()(x).detach())


def test_weights_that_are_not_finite_stop_the_run_and_the_good_ones_stay(images, tmp_path):
    trainer = Trainer(_config(), tmp_path, images[:2], images[2:])
    steps = trainer.run()
    next(steps)
    trainer.save()
    kept = trainer.last_path.read_bytes()
    before = {name: values.clone() for name, values in trainer.network.state_dict().items()}
    trainer._batch = lambda _: (torch.full((2, 1, SIDE, SIDE), torch.nan),) * 2
    with pytest.raises(TrainingError, match="not finite"):
        next(steps)
    assert trainer.last_path.read_bytes() == kept
    assert all(torch.equal(before[name], values) for name, values in trainer.network.state_dict().items())


def test_a_damaged_state_is_refused_and_kept(images, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="damaged"):
        Trainer(_config(), tmp_path, images[:2], images[2:]).resume()
    assert (tmp_path / "state.pt").read_bytes() == b"not a checkpoint"


def test_a_run_of_another_network_is_refused(images, tmp_path):
    _train(_config(iterations=1, validate_every=1), tmp_path, images)
    other = _config(network=MPTConfig.from_dict(TINY.to_dict() | {"expansion": 2.0}))
    with pytest.raises(TrainingError, match="another network"):
        Trainer(other, tmp_path, images[:2], images[2:]).resume()


def test_the_best_score_counts_for_its_own_validation_pairs_only(images, tmp_path):
    first, _ = _train(_config(iterations=3), tmp_path, images)
    same, other = (
        Trainer(_config(simulation=simulation), tmp_path, images[:2], images[2:])
        for simulation in (FEW, SimulationConfig(psf_count=12, disc_radius_px=(0.7, 5.0)))
    )
    assert same.resume()
    assert other.resume()
    assert same.best == first.best
    assert other.best < first.best
    assert other.iteration == 3


@pytest.mark.parametrize(
    ("loss", "value"), [("l1", 0.5), ("mse", 1.0), ("rmse", 2**0.5 / 2)], ids=["l1", "mse", "rmse"]
)
def test_losses_of_one_perfect_image_and_one_that_is_off_by_two_in_half_its_pixels(images, tmp_path, loss, value):
    trainer = Trainer(_config(loss=loss), tmp_path, images[:2], images[2:])
    blurred = torch.rand(2, 1, SIDE, SIDE)
    trainer.network.forward = lambda x: x * trainer.network.input.weight.sum() * 0 + x
    sharp = blurred.clone()
    sharp[1, :, : SIDE // 2] += 2
    assert trainer._step(blurred, sharp) == pytest.approx(value, abs=1e-3)


def test_learning_rate_warms_up_and_falls_to_its_floor(images, tmp_path):
    trainer = Trainer(_config(iterations=100, warmup=10), tmp_path, images[:2], images[2:])
    rates = [trainer._learning_rate(i) for i in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(trainer.config.learning_rate)
    assert rates[-1] == pytest.approx(trainer.config.final_learning_rate)


def test_config_survives_json():
    config = _config()
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iteration = 3", "iteration"),
        ("iterations = 0", "at least 1"),
        ("patch_px = [100]\nbatch = [1]", "multiples"),
        ("patch_px = [128, 256]\nbatch = [1]", "same number"),
        ("seed = -1", "seed"),
        ("iterations = 10.5", "iterations"),
        ("warmup = 'x'", "warmup"),
        ("learning_rate = inf", "learning_rate"),
        ("weight_decay = -1", "weight_decay"),
        ("batch = [4.5, 1]", "batch"),
        ("patch_px = [128.0, 256]", "patch_px"),
        ("[simulation]\npsf_count = 2.5", "psf_count"),
        ("[simulation]\nthick = nan", "thick"),
        ("loss = 'l3'", "l1, mse or rmse"),
        ("ema = 1.0", "ema"),
        ("[simulation]\nphotons = [5, 1]", "photons"),
        ("[simulation]\nin_focus = 2", "share"),
        ("[simulation]\nfotons = [1, 2]", "fotons"),
        ("[network]\ndims = [1]", "dims"),
        ("iterations = 'many'", "iterations|not valid"),
        ("= 3", "TOML"),
    ],
)
def test_a_config_with_a_mistake_is_refused(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        TrainingConfig.from_toml(path)
