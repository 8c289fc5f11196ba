from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_mpt_deblur.checkpoints import ModelConfig, available_models, find_model, library, load_model, save_model
from napari_mpt_deblur.errors import FileError, ModelError
from napari_mpt_deblur.networks import MPT, MPTConfig


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A bundled and a user's folder, each with a model, the user's also with a broken one."""
    bundled, own = tmp_path / "bundled", tmp_path / "own"
    torch.manual_seed(0)
    network, config = MPT(MPTConfig.tiny()), ModelConfig(MPTConfig.tiny(), description="for tests")
    for folder, name in ((bundled, "nuclei"), (own, "mine")):
        folder.mkdir()
        save_model(folder / f"{name}.safetensors", network, config)
    (own / "broken.safetensors").write_bytes(b"nothing")
    (own / "card.md").write_text("not a model")
    monkeypatch.setattr(library, "_BUNDLED", bundled)
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(own))
    return bundled, own


@pytest.mark.usefixtures("folders")
def test_models_are_listed_and_broken_ones_say_why() -> None:
    models = available_models()
    assert [(model.name, model.bundled) for model in models] == [("nuclei", True), ("broken", False), ("mine", False)]
    assert [bool(model.problem) for model in models] == [False, True, False]
    assert models[0].description == "for tests"
    assert models[0].parameter_count > 1000


@pytest.mark.usefixtures("folders")
def test_models_load_by_name() -> None:
    assert load_model("mine").name == "mine"
    assert load_model().name == "nuclei"


def test_a_bundled_model_cannot_be_replaced_by_name(folders: tuple[Path, Path]) -> None:
    bundled, own = folders
    (own / "nuclei.safetensors").write_bytes((own / "mine.safetensors").read_bytes())
    assert find_model("nuclei").parent == bundled
    assert "rename" in next(m for m in available_models() if m.name == "nuclei" and not m.bundled).problem
    assert find_model(own / "nuclei.safetensors").parent == own


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("name", ["nucleus", "", "NUCLEI ", "a\0b", "x" * 5000, "."])
def test_unknown_models_are_answered_with_the_known(name: str) -> None:
    with pytest.raises(ModelError, match="nuclei, mine") as caught:
        find_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("path", ["nowhere/model", "model.safetensors", "../model.safetensors"])
def test_missing_paths_are_said_to_be_missing(path: str) -> None:
    with pytest.raises(FileError, match="no such file"):
        find_model(path)


def test_the_users_folder_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "missing"))
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "missing")
    assert available_models() == []
    with pytest.raises(ModelError, match="none is installed"):
        find_model("nuclei")


def test_the_users_folder_is_the_platforms_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPT_DEBLUR_MODELS", raising=False)
    assert library.user_folder().parts[-2:] == ("napari-mpt-deblur", "models")


def test_the_public_names_are_there() -> None:
    import napari_mpt_deblur

    assert napari_mpt_deblur.load_model is load_model
    assert callable(napari_mpt_deblur.deblur)
    assert set(napari_mpt_deblur.__all__) <= set(dir(napari_mpt_deblur))
    with pytest.raises(AttributeError, match="sharpen"):
        napari_mpt_deblur.sharpen  # noqa: B018


def test_listing_models_and_the_public_names_load_no_torch() -> None:
    code = (
        "import sys, napari_mpt_deblur as package, napari_mpt_deblur.images\n"
        "from napari_mpt_deblur.checkpoints import available_models\n"
        "available_models(); package.__version__; dir(package)\n"
        "heavy = {'torch', 'dask', 'stardist', 'napari', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
