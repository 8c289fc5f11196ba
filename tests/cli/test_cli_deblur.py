from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mpt_deblur import deblur
from napari_mpt_deblur.images import read_image, write_image
from napari_mpt_deblur.restoration import Deblurrer

ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def picture(shape: tuple[int, ...] = (40, 48), dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    """Smooth blobs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    image = np.zeros(shape)
    for _ in range(6):
        cy, cx = rng.uniform(0, shape[-2]), rng.uniform(0, shape[-1])
        image += rng.uniform(50, 200) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 30)
    return np.clip(image + rng.normal(10, 2, shape), 0, 255).astype(dtype)


@pytest.fixture
def stack_path(tmp_path: Path) -> Path:
    metadata = {"PhysicalSizeY": 0.66, "Channel": {"Name": ["DAPI", "GFP"]}}
    return write_image(tmp_path / "stack.ome.tif", picture((3, 2, 40, 48)), "ZCYX", 0.65, 1.5, metadata=metadata)


def test_a_stack_keeps_axes_sizes_and_type(run: Any, tmp_path: Path, stack_path: Path) -> None:
    before, out = stack_path.read_bytes(), tmp_path / "out.tif"
    result = run("deblur", stack_path, "-o", out)
    assert (result.status, result.err) == (0, "")
    assert f"{stack_path} -> {out}" in result.out
    source, restored = read_image(stack_path), read_image(out)
    assert restored.axes.text == "ZCYX"
    assert restored.dtype == np.uint16
    assert restored.metadata == source.metadata
    assert restored.metadata["PhysicalSizeZ"] == 1.5
    np.testing.assert_array_equal(restored.data, deblur(source.data, axes="ZCYX"))
    assert np.any(restored.data != source.data)
    assert stack_path.read_bytes() == before


def test_the_result_says_how_it_was_made(run: Any, tmp_path: Path, stack_path: Path) -> None:
    run("deblur", stack_path, "-o", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        description = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Description"]
    record = json.loads(description)
    assert record["model"]["name"] == "nuclei"
    assert record["axes"] == "ZCYX"


def test_float32_on_request(run: Any, tmp_path: Path, stack_path: Path) -> None:
    assert run("deblur", stack_path, "-o", tmp_path / "out.tif", "--dtype", "float32").status == 0
    restored = tifffile.imread(tmp_path / "out.tif")
    assert restored.dtype == np.float32
    assert np.any(restored % 1)


def test_axes_and_pixel_size_can_be_told(run: Any, tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, picture((3, 40, 48)), photometric="minisblack")
    guessed = run("deblur", path, "-o", out)
    assert "read the axis Q (other) as Z" in guessed.out
    assert guessed.err == ""
    told = run("deblur", path, "-o", out, "--axes", "cyx", "--pixel-size", "0.2", "--overwrite")
    assert (told.status, told.err) == (0, "")
    assert "axis Q" not in told.out
    view = read_image(out)
    assert (view.axes.text, view.pixel_size_um, view.shape) == ("CYX", 0.2, (3, 40, 48))


@pytest.mark.parametrize("tile", [32, 64])
def test_a_tile_size_can_be_told(run: Any, tmp_path: Path, stack_path: Path, tile: int) -> None:
    assert run("deblur", stack_path, "-o", tmp_path / "out.tif", "--tile", tile).status == 0


def test_a_nucleus_diameter_can_be_told(run: Any, tmp_path: Path, stack_path: Path) -> None:
    assert run("deblur", stack_path, "-o", tmp_path / "out.tif", "--nucleus-diameter", 400).status == 0
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert '"nucleus_diameter_px": 400.0' in tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Description"]


@pytest.mark.parametrize(
    ("image", "axes"),
    [
        (picture((3, 40, 48), "uint8").transpose(1, 2, 0), "YXS"),
        (np.dstack([*picture((3, 40, 48), "uint8"), np.full((40, 48), 9, np.uint8)]), "YXS"),
        (picture(dtype="uint8"), "YX"),
        (picture() * 200, "YX"),
    ],
    ids=["rgb", "rgba", "grey", "grey16"],
)
def test_png_becomes_tiff(run: Any, tmp_path: Path, image: np.ndarray, axes: str) -> None:
    Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / "a.png")
    assert run("deblur", tmp_path / "a.png", "-o", tmp_path / "out.tif").status == 0
    view = read_image(tmp_path / "out.tif")
    assert (view.axes.text, view.dtype, view.shape) == (axes, image.dtype, image.shape)
    if image.shape[-1] == 4:
        assert np.all(np.asarray(view.data)[..., 3] == 9)


@pytest.mark.parametrize("dtype", ["float16", "int64", "float64", "int16"])
def test_unusual_types_are_kept(run: Any, tmp_path: Path, dtype: str) -> None:
    write_image(tmp_path / "a.tif", picture(dtype=dtype), "YX", 0.3)
    assert run("deblur", tmp_path / "a.tif", "-o", tmp_path / "out.tif").status == 0
    view = read_image(tmp_path / "out.tif")
    assert (view.dtype, view.axes.text, view.pixel_size_um) == (np.dtype(dtype), "YX", 0.3)


@pytest.mark.parametrize(
    "image",
    [
        np.full((1, 1), 7, np.uint8),
        np.full((1, 1, 1), 7.0, np.float32),
        np.full((30, 40), 1234, np.uint16),
        np.full((30, 40), np.nan, np.float32),
        np.zeros((2, 1, 40), np.uint16),
    ],
    ids=["one pixel", "one pixel stack", "constant", "all NaN", "one row of zeros"],
)
def test_images_with_nothing_in_them_come_back_as_they_are(run: Any, tmp_path: Path, image: np.ndarray) -> None:
    axes = "ZYX" if image.ndim == 3 else "YX"
    write_image(tmp_path / "a.tif", image, axes)
    result = run("deblur", tmp_path / "a.tif", "-o", tmp_path / "out.tif")
    assert (result.status, result.err) == (0, "")
    np.testing.assert_array_equal(np.squeeze(tifffile.imread(tmp_path / "out.tif")), np.squeeze(image))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images and something else."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.tif", "b.ome.tiff"):
        write_image(folder / name, picture(seed=len(name)), "YX")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.mark.parametrize("how", ["folder", "glob", "files"])
def test_several_inputs_are_named_after_themselves(run: Any, tmp_path: Path, folder: Path, how: str) -> None:
    inputs = {"folder": [folder], "glob": [folder / "*.tif*"], "files": [folder / "a.tif", folder / "b.ome.tiff"]}[how]
    out = tmp_path / "new" / "out"
    result = run("deblur", *inputs, "-o", out)
    assert (result.status, result.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "b.ome.tiff"]


def test_one_file_into_a_folder(run: Any, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("deblur", folder / "a.tif", "-o", tmp_path / "out").status == 0
    assert run("deblur", folder / "a.tif", "-o", f"{tmp_path / 'other'}/").status == 0
    assert (tmp_path / "out" / "a.tif").is_file()
    assert (tmp_path / "other" / "a.tif").is_file()


def test_a_file_named_twice_is_restored_once(run: Any, tmp_path: Path, folder: Path) -> None:
    result = run("deblur", folder, folder / "a.tif", folder / "*.tif", "-o", tmp_path / "out")
    assert result.status == 0
    assert len(result.out.splitlines()) == 2


def test_one_bad_file_does_not_end_the_run(run: Any, tmp_path: Path, folder: Path) -> None:
    (folder / "0.tif").write_text("text")
    content = (folder / "a.tif").read_bytes()
    (folder / "aa.tif").write_bytes(content[: len(content) // 2])
    result = run("deblur", folder, folder / "missing.tif", tmp_path / "none*.tif", "-o", tmp_path / "out")
    assert result.status == 1
    lines = result.err.splitlines()
    assert len(lines) == 5
    for line, words in zip(
        lines, ["No file matches", "0.tif", "aa.tif", "missing.tif", "4 of 6 inputs failed"], strict=True
    ):
        assert words in line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.ome.tiff"]


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError(), "not enough memory"), (ZeroDivisionError("why"), "unexpected Zero")]
)
def test_a_failure_within_the_engine_does_not_end_the_run(
    run: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    original = Deblurrer.run

    def failing(self: Deblurrer, view: Any, **options: Any) -> Iterator[Any]:
        if not failures:
            failures.append(1)
            raise error
        return original(self, view, **options)

    failures: list[int] = []
    monkeypatch.setattr(Deblurrer, "run", failing)
    result = run("deblur", folder, "-o", tmp_path / "out")
    assert result.status == 1
    assert f"a.tif: {words}" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.ome.tiff"]


def test_results_are_replaced_only_when_allowed(run: Any, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.tif").write_text("precious")
    result = run("deblur", folder, "-o", out)
    assert result.status == 1
    assert "exists" in result.err
    assert (out / "a.tif").read_text() == "precious"
    assert (out / "b.ome.tiff").is_file()
    assert run("deblur", folder, "-o", out, "--overwrite").status == 0
    assert read_image(out / "a.tif").shape == (40, 48)


def test_a_reader_s_unexpected_error_does_not_end_the_run(
    run: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith("a"):
            raise ZeroDivisionError("why")
        return read_image(path, *arguments, **options)

    monkeypatch.setattr("napari_mpt_deblur.cli.batch.read_image", broken)
    result = run("deblur", folder, "-o", tmp_path / "out")
    assert result.status == 1
    assert "a.tif: unexpected ZeroDivisionError" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.ome.tiff"]


@pytest.fixture
def heard_signals() -> Iterator[None]:
    """Signals as in a terminal: what runs the tests in the background may ignore some of them."""
    usual = {each: signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL for each in ENDING_SIGNALS}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_an_interrupted_run_leaves_nothing(
    run: Any, tmp_path: Path, stack_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def interrupted(self: Deblurrer, view: Any, **options: Any) -> Iterator[Any]:
        yield from ()
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("not interrupted")

    handlers = [signal.getsignal(each) for each in ENDING_SIGNALS]

    monkeypatch.setattr(Deblurrer, "run", interrupted)
    result = run("deblur", stack_path, "-o", f"{tmp_path / 'out'}/")
    assert result.status == 130
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [stack_path]
    assert handlers == [signal.getsignal(each) for each in ENDING_SIGNALS]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminal hangs up here")
def test_nohup_is_respected(run: Any, tmp_path: Path, stack_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = Deblurrer.run

    def hung_up(self: Deblurrer, view: Any, **options: Any) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGHUP)
        return restore(self, view, **options)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(Deblurrer, "run", hung_up)
        assert run("deblur", stack_path, "-o", tmp_path / "out.tif").status == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_unexpected_error_is_one_line(
    run: Any, tmp_path: Path, stack_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Deblurrer, view: Any, **options: Any) -> Iterator[Any]:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(Deblurrer, "run", broken)
    result = run("deblur", stack_path, "-o", tmp_path / "out.tif")
    assert result.status == 1
    assert result.err == (
        f"mpt-deblur: {stack_path}: unexpected ZeroDivisionError: one two; "
        "please report it, with what mpt-deblur --traceback shows.\n"
    )
    assert "Traceback" in run("--traceback", "deblur", stack_path, "-o", tmp_path / "out.tif").err


def test_a_terminal_sees_an_estimate_and_a_progress_bar(
    run: Any, tmp_path: Path, stack_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = run("deblur", stack_path, "-o", tmp_path / "out.tif")
    assert result.status == 0
    assert re.match(rf"{re.escape(str(stack_path))}: 6 tiles, about \d+ s and 0\.\d GB of memory\n", result.err)
    assert "/6 [" in result.err
    assert "tile/s" in result.err


@pytest.mark.parametrize("arguments", [["--help"], ["deblur", "--help"], ["models", "--help"], ["--version"]])
def test_help_and_version(run: Any, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.status == 0
    assert "mpt-deblur" in result.out


def test_a_bad_file_is_reported_without_waiting_for_torch(tmp_path: Path, tiny_models: Path) -> None:
    code = (
        "import sys\n"
        "from napari_mpt_deblur.cli.main import main\n"
        "status = main(['deblur', 'missing.tif', '-o', 'out.tif', '--model', sys.argv[1]])\n"
        "assert status == 1, status\n"
        "assert 'torch' not in sys.modules\n"
    )
    model = str(tiny_models / "nuclei.safetensors")
    subprocess.run([sys.executable, "-c", code, model], check=True, cwd=tmp_path, capture_output=True)


def test_the_command_and_names_that_no_terminal_can_show(tmp_path: Path, stack_path: Path, tiny_models: Path) -> None:
    name = os.fsdecode(b"caf\xe9-\xff.tif") if os.name == "posix" else "caf\u00e9.tif"
    stack_path.rename(tmp_path / name)
    command = [sys.executable, "-m", "napari_mpt_deblur.cli", "deblur", name, f"missing-{name}", "-o", "out"]
    command += ["--model", str(tiny_models / "nuclei.safetensors")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 2
    assert done.stdout.startswith(b"caf")
    assert read_image(tmp_path / "out" / name).axes.text == "ZCYX"
