"""One frozen configuration: what it accepts, what it says of the rest, and that it survives being written down."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from training.small import small_config

from napari_mpt_deblur.checkpoints import read_header
from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.networks import MPTConfig
from napari_mpt_deblur.training.config import ContrastConfig, TrainingConfig
from napari_mpt_deblur.training.contrast_config import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("method", METHODS)
def test_config_survives_json_and_toml(tmp_path, method):
    contrast = ContrastConfig(method, beta=5e-4, reduction="sum", extra_weight=0.1, kernels_px=(3, 5, 5, 7))
    config = small_config(contrast=contrast, scales=(0.5, 0.9), betas=(0.9, 0.99), flips=False)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    (tmp_path / "c.toml").write_text(config.to_toml())
    assert TrainingConfig.from_toml(tmp_path / "c.toml") == config


def test_configs_from_before_there_were_methods_still_load():
    bundled = read_header(ROOT / "src/napari_mpt_deblur/models/nuclei.safetensors").config
    before = {name: value for name, value in bundled.training["config"].items() if name != "contrast"}
    config = TrainingConfig.from_dict(before)
    assert (config.contrast.method, config.loss) == ("pixel", "rmse")
    assert TrainingConfig.from_toml(ROOT / "scripts/nuclei.toml").network == MPTConfig.compact()


def test_the_papers_recipe_is_there():
    config = TrainingConfig.paper()
    assert (config.iterations, config.patch_px, config.batch) == (300_000, (256,), (8,))
    assert (config.learning_rate, config.final_learning_rate, config.weight_decay) == (1e-4, 1e-6, 1e-4)
    assert (config.betas, config.contrast.beta, config.contrast.kernels_px) == ((0.9, 0.999), 1e-5, (3, 5, 7))
    assert config.network == MPTConfig.paper()


@pytest.mark.parametrize("network", [MPTConfig.paper(1), MPTConfig.compact(), MPTConfig.tiny()])
def test_fine_tuning_has_a_patch_that_fits_its_network(network):
    config = TrainingConfig.fine_tuning(network, "efcrex")
    assert config.network == network
    assert config.patch_px[0] % network.size_multiple == 0
    assert config.contrast.method == "efcrex"


@pytest.mark.parametrize(
    ("method", "unlabelled", "extra", "passes"),
    [
        ("pixel", False, False, 1),
        ("efcr", False, False, 2),
        ("efcrex", True, False, 2),
        ("efcrex_labelled", False, True, 3),
        ("v1", False, False, 1),
        ("vex1", False, True, 2),
    ],
)
def test_a_method_says_what_it_needs(method, unlabelled, extra, passes):
    contrast = ContrastConfig(method)
    assert (contrast.needs_unlabelled, contrast.needs_extra_pairs, contrast.passes) == (unlabelled, extra, passes)


def test_one_patch_side_needs_no_brackets(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("patch_px = 256\nbatch = 2\n[contrast]\nkernels_px = 5\n")
    config = TrainingConfig.from_toml(path)
    assert (config.patch_px, config.batch, config.contrast.kernels_px) == ((256,), (2,), (5,))


def test_a_patch_that_does_not_fit_is_answered_with_those_that_do():
    with pytest.raises(TrainingError, match="multiples of 128 for this network: 128 or 256, not 200"):
        TrainingConfig(patch_px=(200,), batch=(1,))
    with pytest.raises(TrainingError, match="multiples of 128 for this network: 128, not 100"):
        TrainingConfig(patch_px=(100,), batch=(1,))


def test_a_base_model_of_other_channels_is_told_apart_from_another_network(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[network]\nin_channels = 3\n")
    with pytest.raises(TrainingError, match="3 channels, the model to start from has 1"):
        TrainingConfig.from_toml(path, MPTConfig.compact())
    path.write_text("[network]\nexpansion = 2.5\n")
    with pytest.raises(TrainingError, match="another network"):
        TrainingConfig.from_toml(path, MPTConfig.compact())
    path.write_text("seed = 3\n")
    assert TrainingConfig.from_toml(path, MPTConfig.compact()) == replace(TrainingConfig(), seed=3)


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
        ("contrast = 3", "table"),
        ("[contrast]\nmethod = 'efcrx'", "pixel, efcr, efcrex"),
        ("[contrast]\nbetta = 1", "betta"),
        ("[contrast]\nbeta = -1", "beta"),
        ("[contrast]\nreduction = 'median'", "mean or sum"),
        ("[contrast]\nextra_weight = nan", "extra_weight"),
        ("[contrast]\nkernels_px = []", "odd"),
        ("[contrast]\nkernels_px = [3, 4]", "odd"),
        ("[contrast]\nkernels_px = [1]", "at least 3"),
        ("[contrast]\nsigma_px = 0", "above 0"),
        ("betas = [0.9]", "betas"),
        ("betas = [0.9, 1.0]", "betas"),
        ("scales = [1.0, 0.5]", "scales"),
        ("scaled = 2", "share"),
        ("flips = 1", "true or false"),
        ("[simulation]\nphotons = [5]", "low and a high"),
        ("[simulation]\nphotons = 5", "photons must be a low and a high number"),
        ("patch_px = '128'\nbatch = 4", "patch_px must be a whole number"),
        ("scales = 0.5", "scales must be two rising numbers"),
    ],
)
def test_a_config_with_a_mistake_is_refused(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        TrainingConfig.from_toml(path)
