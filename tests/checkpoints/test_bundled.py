"""The models in the box."""

from pathlib import Path

import pytest

import napari_mpt_deblur
from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, load_model

MODELS = sorted((Path(napari_mpt_deblur.__file__).parent / "models").glob("*.safetensors"))


def test_the_default_model_is_there():
    assert DEFAULT_MODEL in [path.stem for path in MODELS]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_bundled_model_loads_and_has_its_card(path):
    model = load_model(path, device="cpu")
    assert model.name == path.stem
    assert model.config.licence
    assert model.config.training["data"]
    assert model.sha256 in path.with_suffix(".md").read_text(encoding="utf-8"), "the card is of other weights"


def test_together_they_are_small():
    assert sum(path.stat().st_size for path in MODELS) < 16 * 2**20
