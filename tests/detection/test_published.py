"""StarDist's published models: what stardist says of them, and fetching them from a server that is none."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from napari_mpt_deblur.detection import published
from napari_mpt_deblur.detection.folder import load_detector
from napari_mpt_deblur.detection.published import PublishedModel, fetch, parse_models, published_models
from napari_mpt_deblur.errors import FileError, ModelError


class Server:
    """Answers as `urlopen` does, and counts."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content, self.asked = content, 0

    def __call__(self, url: str, timeout: float) -> Any:
        self.asked += 1
        if isinstance(self.content, Exception):
            raise self.content
        return io.BytesIO(self.content)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPT_DEBLUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MPT_DEBLUR_MODELS", str(tmp_path / "models"))
    return tmp_path / "cache"


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], PublishedModel]:
    def publish(content: bytes) -> PublishedModel:
        model = PublishedModel("fluo", "https://example.org/v0.1/python_fluo.zip", hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(published, "published_models", lambda: (model,))
        return model

    return publish


@pytest.fixture
def content(folder: Path) -> bytes:
    return zipped({path.name: path.read_bytes() for path in folder.iterdir()})


def test_stardist_s_own_list_is_read() -> None:
    models = {model.name: model for model in published_models()}
    assert list(models) == ["2D_versatile_fluo", "2D_versatile_he", "2D_paper_dsb2018", "2D_demo"]
    for model in models.values():
        assert model.url.startswith("https://")
        assert model.url.endswith(f"python_{model.name}.zip")
        assert len(model.sha256) == 64


def test_other_calls_are_passed_over() -> None:
    source = (
        "register_model(StarDist3D, 'a', 'b', 'c')\nregister_model(StarDist2D, 'a', b, 'c')\n"
        "other(StarDist2D, 'a', 'b', 'c')\nregister_model(StarDist2D, 'a', 'b', 'c')"
    )
    assert parse_models(source) == (PublishedModel("a", "b", "c"),)


def test_it_is_fetched_once(publish: Any, content: bytes, cache: Path) -> None:
    publish(content)
    server = Server(content)
    for _ in range(2):
        assert fetch("fluo", opener=server) == cache / "fluo"
    assert server.asked == 1
    assert sorted(path.name for path in cache.iterdir()) == ["fluo", "python_fluo.zip"]
    assert load_detector("fluo", "cpu").thresholds.prob == 0.6


def test_a_zip_put_there_by_hand_is_used(publish: Any, content: bytes, cache: Path) -> None:
    model = publish(content)
    cache.mkdir()
    model.archive.write_bytes(content)
    server = Server(URLError("no network"))
    assert (fetch("fluo", opener=server) / "config.json").is_file()
    assert server.asked == 0


def test_a_wrong_zip_put_there_by_hand_is_refused(publish: Any, content: bytes, cache: Path) -> None:
    model = publish(content)
    cache.mkdir()
    model.archive.write_bytes(content + b"x")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        fetch("fluo", opener=Server(content))
    assert not model.folder.exists()


@pytest.mark.parametrize("error", [URLError("no network"), TimeoutError("timed out"), IncompleteRead(b"PK", 99)])
def test_without_a_network_the_message_says_which_file_goes_where(
    publish: Any, content: bytes, error: Exception
) -> None:
    model = publish(content)
    with pytest.raises(FileError) as caught:
        fetch("fluo", opener=Server(error))
    assert model.url in str(caught.value)
    assert str(model.archive) in str(caught.value)
    assert not model.archive.exists()


def test_another_content_is_not_kept(publish: Any, content: bytes, cache: Path) -> None:
    publish(content)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        fetch("fluo", opener=Server(b"<html>"))
    assert not list(cache.iterdir())


def test_nothing_leaves_the_folder(publish: Any, content: bytes, cache: Path, tmp_path: Path) -> None:
    hostile = zipped(
        {
            "../../config.json": b"{}",
            "/thresholds.json": b"{}",
            "..\\..\\weights_best.h5": b"x",
            "../evil.py": b"x",
            "logs/readme.txt": b"x",
        }
    )
    publish(hostile)
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents}
    assert sorted(path.name for path in fetch("fluo", opener=Server(hostile)).iterdir()) == [
        "config.json",
        "thresholds.json",
        "weights_best.h5",
    ]
    assert {path for path in tmp_path.rglob("*") if cache not in path.parents} == before | {cache}


@pytest.mark.parametrize("damage", ["no zip", "no model", "bomb"])
def test_a_bad_zip_leaves_no_folder(publish: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(published, "_MAX_BYTES", 2**16)
    bad = {"no zip": b"PK", "no model": zipped({"a.h5": b"x"}), "bomb": zipped({"a.h5": bytes(2**17)})}[damage]
    publish(bad)
    with pytest.raises(ModelError, match=r"damaged|no config\.json"):
        fetch("fluo", opener=Server(bad))
    assert [path.name for path in cache.iterdir()] == ["python_fluo.zip"]


def test_an_unknown_name_is_said(publish: Any) -> None:
    publish(b"")
    with pytest.raises(ModelError, match="choose from fluo"):
        fetch("flu")


def test_the_platform_s_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPT_DEBLUR_CACHE")
    assert published.cache_folder().parts[-2:] == ("napari-mpt-deblur", "stardist")
