from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detection.keras_files import TINY

from napari_mpt_deblur.detection.config import StarDistConfig, Thresholds, read_config
from napari_mpt_deblur.errors import FileError, ModelError


def test_reads_what_stardist_writes(folder: Path) -> None:
    config, thresholds = read_config(folder)
    assert (config.grid, config.n_rays, config.unet_batch_norm) == ((2, 2), 8, True)
    assert config.size_divisor == (8, 8)
    assert thresholds == Thresholds(0.6, 0.3)
    assert StarDistConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_are_stardist_s(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_dim": 2, "axes": "YXC"}')
    config, thresholds = read_config(tmp_path)
    assert config == StarDistConfig()
    assert thresholds == Thresholds(0.5, 0.4)


@pytest.mark.parametrize("value", [None, 0, 1, 1.5, "0.5", True, float("nan")])
def test_a_threshold_that_is_no_fraction_gives_way_to_the_default(value: Any) -> None:
    assert Thresholds.from_dict({"prob": value, "nms": 0.2}) == Thresholds(0.5, 0.2)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"n_dim": 3}, "3D"),
        ({"backbone": "resnet"}, "'resnet'"),
        ({"unet_activation": "mish"}, "'mish'"),
        ({"unet_last_activation": "softmax"}, "'softmax'"),
        ({"axes": "CYX"}, "'CYX'"),
        ({"unet_residual": True}, "'unet_residual'"),
    ],
)
def test_what_only_stardist_can_run_is_named_with_the_remedy(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ModelError, match="tensorflow") as caught:
        StarDistConfig.from_dict(TINY | changes)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": [3, 1]},
        {"grid": [2]},
        {"grid": 2},
        {"grid": [128, 1]},
        {"n_rays": 2},
        {"n_rays": 10**9},
        {"n_rays": 8.5},
        {"unet_n_depth": -1},
        {"unet_n_depth": True},
        {"unet_n_depth": 10, "unet_pool": [8, 8]},
        {"unet_kernel_size": [0, 3]},
        {"unet_n_filter_base": "32"},
        {"unet_batch_norm": 1},
        {"unet_prefix": None},
        {"unet_expansion": 0},
        {"unet_expansion": 0.1, "unet_n_depth": 3},
        {"unet_expansion": float("nan")},
        {"n_classes": 0},
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        StarDistConfig.from_dict(TINY | changes)


def test_no_last_activation_is_the_usual_one() -> None:
    config = StarDistConfig.from_dict(TINY | {"unet_activation": "elu", "unet_last_activation": None})
    assert config.unet_last_activation == "elu"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\x00", '{"n_dim": 2' + "[" * 100_000])
def test_damaged_settings_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_thresholds_are_named(folder: Path) -> None:
    (folder / "thresholds.json").write_text("[]")
    with pytest.raises(ModelError, match=r"thresholds\.json"):
        read_config(folder)


def test_a_folder_without_configuration_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="choose the folder that StarDist saved"):
        read_config(tmp_path)
