"""Weights of a run as a named model in the user's library, with its card."""

import os
from dataclasses import asdict

import pytest
from training.small import small_config, small_network

from napari_mpt_deblur.checkpoints import ModelConfig, available_models, load_model, save_model
from napari_mpt_deblur.cli.main import main
from napari_mpt_deblur.errors import FileError, ParameterError
from napari_mpt_deblur.networks import MPT
from napari_mpt_deblur.training import publish as publishing
from napari_mpt_deblur.training.events import Scores
from napari_mpt_deblur.training.publish import check_name, publish

BEFORE, AFTER = Scores(0, 28.0, 25.0, 0.8, 0.7), Scores(40, 29.5, 25.0, 0.85, 0.7)


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def _weights(folder, after=AFTER):
    training = {
        "iterations": 40,
        "config": small_config(contrast="efcrex").to_dict(),
        "data": {
            "pairs": {"kind": "regions of the image itself, defocused", "count": 1, "images": [{"name": "cells.tif"}]},
            "unlabelled": {"kind": "unlabelled images", "count": 30, "images": [{"name": "a"}, {"name": "b"}]},
        },
        "figures": {"before": asdict(BEFORE), "after": asdict(after)},
        "history": [{"started_from": "ab" * 32, "name": "nuclei", "training": {}}],
    }
    return save_model(
        folder / "best.safetensors", MPT(small_network()), ModelConfig(small_network(), training=training)
    )


def test_a_published_model_is_listed_at_once_and_its_card_tells_all(tmp_path, library, capsys):
    weights = _weights(tmp_path)
    path = publish(weights, "my_cells", licence="CC0-1.0")
    assert path == library / "my_cells.safetensors"
    (info,) = [info for info in available_models() if info.name == "my_cells"]
    assert info.description == "nuclei, fine-tuned on regions of the image itself, defocused (efcrex)"
    assert main(["models"]) == 0
    assert "my_cells" in capsys.readouterr().out
    card = path.with_suffix(".md").read_text()
    for words in (
        "# my_cells",
        "ab" * 32,
        "cells.tif",
        "(a, b and 28 more)",
        '"beta": 0.1',
        "| before (iteration 0) | 28.00 | 0.800 |",
        "| after (iteration 40) | 29.50 | 0.850 |",
        "| blurred | 25.00 | 0.700 |",
        "CC0-1.0",
        load_model(weights, "cpu").sha256,
    ):
        assert words in card
    assert "got worse" not in card
    assert '"disc_radius_px": [0.7, 1.5]' in card
    recorded = ModelConfig(small_network(), training={"data": {"pairs": {"kind": "focus stacks"}}})
    assert "- **Synthetic defocus**: none" in publishing.card_text(recorded, "")
    assert sorted(entry.name for entry in library.iterdir()) == ["my_cells.md", "my_cells.safetensors"]


def test_a_card_says_plainly_that_validation_got_worse(tmp_path, library):
    path = publish(_weights(tmp_path, Scores(40, 27.0, 25.0, 0.8, 0.7)), "worse", "One\nline.")
    assert "**Validation got worse**" in path.with_suffix(".md").read_text()
    assert load_model("worse").config.description == "One line."


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", ".hidden", "a b", "a\n", "x" * 81, "a.safetensors", "con", "NUL.x", "ä"]
)
def test_names_that_no_file_should_have_are_refused(library, name):
    with pytest.raises(ParameterError, match="cannot be a model's name"):
        check_name(name)
    assert not library.exists()


def test_names_that_are_taken_are_refused_and_what_is_there_stays(tmp_path, library):
    with pytest.raises(ParameterError, match="A bundled model is called nuclei"):
        check_name("Nuclei", overwrite=True)
    weights = _weights(tmp_path)
    content = publish(weights, "mine").read_bytes()
    with pytest.raises(ParameterError, match="One of your models is called mine"):
        publish(weights, "MINE", "other")
    assert (library / "mine.safetensors").read_bytes() == content
    publish(weights, "mine", "other", overwrite=True)
    assert load_model("mine").config.description == "other"


@pytest.mark.parametrize("existing", [False, True])
def test_what_cannot_be_written_leaves_the_library_as_it_was(tmp_path, library, monkeypatch, existing):
    weights = _weights(tmp_path)
    if existing:
        publish(weights, "mine")
    before = {path.name: path.read_bytes() for path in library.iterdir()} if existing else {}

    def full(*arguments, **options):
        raise FileError("Cannot write it: the disk is full.")

    monkeypatch.setattr(publishing, "save_model", full)
    with pytest.raises(FileError, match="the disk is full"):
        publish(weights, "mine", "other", overwrite=existing)
    assert {path.name: path.read_bytes() for path in library.iterdir()} == before


def test_a_library_that_cannot_be_made_is_told_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MPT_DEBLUR_MODELS", os.fspath(tmp_path / "file" / "models"))
    with pytest.raises(FileError, match="is a file"):
        check_name("mine")
