"""Bad input: each case is one clear line and exit status 2 (usage) or 1, leaves no file and touches no input."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mpt_deblur.images import write_image

GOOD = (np.arange(40 * 48).reshape(40, 48) % 200).astype(np.uint16)
Arguments = list[object]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder, with what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def tiff(folder: Path, array: np.ndarray = GOOD, **options: Any) -> Path:
    path = folder / "in.tif"
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def cut(folder: Path, share: float, **options: Any) -> Path:
    path = tiff(folder, np.stack([GOOD] * 5), **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def half_png(folder: Path) -> Path:
    path = folder / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def bomb(folder: Path) -> Path:
    path = tiff(folder, np.zeros((64, 64), np.uint16), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag in ("ImageWidth", "ImageLength"):
            tif.pages.first.tags[tag].overwrite(2_000_000)
    return path


def fifo(folder: Path) -> Path:
    path = folder / "pipe.tif"
    os.mkfifo(path)
    return path


def named(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def dangling(folder: Path) -> Path:
    path = folder / "link.tif"
    path.symlink_to(folder / "nowhere.tif")
    return path


# what a file may be: how it is made, and a word of the message
FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "missing.tif", "no such file"),
    "missing folder": (lambda folder: folder / "missing" / "in.tif", "no such file"),
    "below a file": (lambda folder: tiff(folder) / "in.tif", "Not a directory"),
    "dangling link": (dangling, "no such file"),
    "empty file": (lambda folder: written(folder, "in.tif", b""), "empty"),
    "text named .tif": (lambda folder: written(folder, "in.tif", b"Dear reviewer,\n" * 20), "not a TIFF"),
    "text named .png": (lambda folder: written(folder, "in.png", b"Dear reviewer,\n" * 20), "not a TIFF, PNG"),
    "PDF named .tif": (lambda folder: written(folder, "in.tif", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 9), "not a TIFF"),
    "TIFF header only": (lambda folder: written(folder, "in.tif", b"II*\0\x08\0\0\0"), "no image"),
    "TIFF header of noise": (lambda folder: written(folder, "in.tif", b"II*\0" + b"\xa5" * 999), "damaged|no image"),
    "TIFF in a circle": (
        lambda folder: written(folder, "in.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
        "damaged|no image",
    ),
    "truncated TIFF": (lambda folder: cut(folder, 0.6), "damaged"),
    "truncated compressed TIFF": (lambda folder: cut(folder, 0.6, compression="zlib"), "damaged"),
    "truncated OME-TIFF": (lambda folder: cut(folder, 0.6, ome=True), "damaged"),
    "truncated ImageJ TIFF": (lambda folder: cut(folder, 0.6, imagej=True), "damaged"),
    "truncated PNG": (half_png, "damaged"),
    "PNG bomb": (lambda folder: written(folder, "in.png", png_header(60_000, 60_000)), "too large"),
    "PNG without pixels": (lambda folder: written(folder, "in.png", png_header(100, 100)), "damaged"),
    "TIFF bomb": (bomb, "damaged"),
    "no regular file": (fifo, "not a regular file"),
    "folder without images": (lambda folder: named(folder, "in"), "holds no image"),
    "folder named .tif": (lambda folder: named(folder, "in.tif"), "holds no image"),
    "pattern without match": (lambda folder: folder / "*.tif", "No file matches"),
    "name of NUL": (lambda folder: folder / "in\0.tif", "not a file name"),
    "name too long": (lambda folder: folder / ("x" * 300 + ".tif"), "too long"),
    "bool": (lambda folder: tiff(folder, GOOD > 100), "mask"),
    "complex": (lambda folder: tiff(folder, GOOD.astype(np.complex64)), "complex"),
    "uint64 beyond 2^53": (lambda folder: tiff(folder, np.full((8, 8), 2**60, np.uint64)), r"2\^53"),
    "int64 below -2^53": (lambda folder: tiff(folder, np.full((8, 8), -(2**60), np.int64)), r"2\^53"),
    "float64 beyond float32": (lambda folder: tiff(folder, np.array([[1e300, 0.0], [1.0, 2.0]])), "3.4e38"),
    "6-D": (lambda folder: tiff(folder, np.zeros((2, 2, 2, 2, 8, 8), np.uint8)), "axes"),
    "7-D": (lambda folder: tiff(folder, np.zeros((2, 2, 2, 2, 2, 8, 8), np.uint8)), "axes"),
}

# what arguments may be: given the folder, the status, and a word of the message
ARGUMENTS: dict[str, tuple[Callable[[Path], Arguments], int, str]] = {
    "axes too long": (lambda f: [tiff(f), "-o", f / "o.tif", "--axes", "ZYX"], 1, "3 dimensions, but the image has 2"),
    "axes too short": (
        lambda f: [tiff(f, np.stack([GOOD] * 5)), "-o", f / "o.tif", "--axes", "YX"],
        1,
        "2 dimensions, but the image has 3",
    ),
    "axes unknown": (lambda f: [tiff(f), "-o", f / "o.tif", "--axes", "YQ"], 2, "Unknown axes"),
    "axes twice": (lambda f: [tiff(f), "-o", f / "o.tif", "--axes", "YYX"], 2, "twice"),
    "axes transposed": (lambda f: [tiff(f), "-o", f / "o.tif", "--axes", "XY"], 2, "must end in YX"),
    "axes empty": (lambda f: [tiff(f), "-o", f / "o.tif", "--axes", ""], 2, "Unknown axes"),
    "axes of colour for five": (
        lambda f: [tiff(f, np.stack([GOOD] * 5, -1)), "-o", f / "o.tif", "--axes", "YXS"],
        1,
        "48|samples",
    ),
    "no arguments": (lambda f: [], 2, "required"),
    "no output": (lambda f: [tiff(f)], 2, "required.*--output"),
    "no input": (lambda f: ["-o", f / "o.tif"], 2, "required.*INPUT"),
    "unknown option": (lambda f: [tiff(f), "-o", f / "o.tif", "--sharper"], 2, "unrecognized"),
    "abbreviated option": (lambda f: [tiff(f), "-o", f / "o.tif", "--over"], 2, "unrecognized"),
    "unknown model": (lambda f: [tiff(f), "-o", f / "o.tif", "--model", "nucleus"], 2, "choose from nuclei"),
    "missing model": (lambda f: [tiff(f), "-o", f / "o.tif", "--model", f / "m.safetensors"], 2, "no such file"),
    "model is an image": (
        lambda f: [tiff(f), "-o", f / "o.tif", "--model", f / "in.tif"],
        2,
        "not a whole safetensors",
    ),
    "model is a folder": (lambda f: [tiff(f), "-o", f / "o.tif", "--model", f], 2, "Unknown model|no such file"),
    "unknown device": (lambda f: [tiff(f), "-o", f / "o.tif", "--device", "warp"], 2, "Unknown device"),
    "absent device": (lambda f: [tiff(f), "-o", f / "o.tif", "--device", "cuda:77"], 2, "has no cuda:77"),
    "unknown precision": (lambda f: [tiff(f), "-o", f / "o.tif", "--precision", "float8"], 2, "invalid choice"),
    "precision not offered": (
        lambda f: [tiff(f), "-o", f / "o.tif", "--device", "cpu", "--precision", "float16"],
        2,
        "not offered on cpu",
    ),
    "tile of zero": (lambda f: [tiff(f), "-o", f / "o.tif", "--tile", "0"], 2, "above 0"),
    "tile negative": (lambda f: [tiff(f), "-o", f / "o.tif", "--tile", "-64"], 2, "above 0|expected one"),
    "tile a fraction": (lambda f: [tiff(f), "-o", f / "o.tif", "--tile", "1.5"], 2, "whole number"),
    "tile a word": (lambda f: [tiff(f), "-o", f / "o.tif", "--tile", "large"], 2, "whole number"),
    "dtype unknown": (lambda f: [tiff(f), "-o", f / "o.tif", "--dtype", "bool"], 2, "invalid choice"),
    "pixel size zero": (lambda f: [tiff(f), "-o", f / "o.tif", "--pixel-size", "0"], 2, "above 0"),
    "pixel size NaN": (lambda f: [tiff(f), "-o", f / "o.tif", "--pixel-size", "nan"], 2, "above 0"),
    "pixel size infinite": (lambda f: [tiff(f), "-o", f / "o.tif", "--pixel-size", "inf"], 2, "above 0"),
    "pixel size a word": (lambda f: [tiff(f), "-o", f / "o.tif", "--pixel-size", "65nm"], 2, "above 0"),
    "diameter negative": (lambda f: [tiff(f), "-o", f / "o.tif", "--nucleus-diameter=-3"], 2, "above 0"),
    "output is the input": (lambda f: [tiff(f), "-o", f / "in.tif", "--overwrite"], 2, "is an input"),
    "output is the input's folder": (lambda f: [tiff(f), "-o", f, "--overwrite"], 2, "is an input"),
    "output is a link to the input": (lambda f: [linked(f), "-o", f / "link.tif", "--overwrite"], 2, "is an input"),
    "output is a hard link": (lambda f: [hard_linked(f), "-o", f / "hard.tif", "--overwrite"], 2, "is an input"),
    "output of another kind": (lambda f: [tiff(f), "-o", f / "o.png"], 2, "must end in .tif"),
    "output without suffix": (lambda f: [tiff(f), "-o", f / "o"], 2, "must end in .tif"),
    "output exists": (lambda f: [tiff(f), "-o", written(f, "o.tif", b"precious")], 1, "exists"),
    "output in a missing folder": (lambda f: [tiff(f), "-o", f / "missing" / "o.tif"], 1, "create it first"),
    "output below a file": (lambda f: [tiff(f), "-o", f / "in.tif" / "o.tif"], 1, "not a folder"),
    "output folder below a file": (lambda f: [two(f), "-o", f / "two" / "a.tif" / "out"], 1, "is a file"),
    "output folder is a file": (lambda f: [two(f), "-o", written(f, "o", b"precious")], 2, "is a file: name a folder"),
    "output folder named .tif": (lambda f: [two(f), "-o", f / "o.tif"], 2, "looks like a file"),
    "output name too long": (lambda f: [tiff(f), "-o", f / ("x" * 300 + ".tif")], 1, "too long"),
    "output name of NUL": (lambda f: [tiff(f), "-o", f / "o\0.tif"], 1, "not a file name"),
    "outputs of one name": (
        lambda f: [two(f), tiff(named(f, "x"), GOOD), rival(f), "-o", f / "out"],
        2,
        "both be written",
    ),
}


def linked(folder: Path) -> Path:
    path = tiff(folder)
    (folder / "link.tif").symlink_to(path)
    return path


def hard_linked(folder: Path) -> Path:
    path = tiff(folder)
    (folder / "hard.tif").hardlink_to(path)
    return path


def two(folder: Path) -> Path:
    inner = named(folder, "two")
    for name in ("a.tif", "b.tif"):
        write_image(inner / name, GOOD, "YX")
    return inner


def rival(folder: Path) -> Path:
    return write_image(named(folder, "y") / "IN.TIF", GOOD, "YX")


def check(result: Any, status: int, words: str) -> None:
    assert result.status == status, result
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("mpt-deblur")
    assert re.search(words, result.err), result.err
    assert "Traceback" not in result.err
    assert "unexpected" not in result.err
    assert len(result.err) < 700


@pytest.mark.parametrize("case", FILES)
def test_bad_files(run: Any, tmp_path: Path, case: str) -> None:
    make, words = FILES[case]
    folder = named(tmp_path, "work")
    path = make(folder)
    before = snapshot(folder)
    out = folder / "out" if os.path.isdir(path) or "*" in path.name else folder / "out.tif"
    check(run("deblur", path, "-o", out), 1, words)
    assert snapshot(folder) == before


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(run: Any, tmp_path: Path, case: str) -> None:
    make, status, words = ARGUMENTS[case]
    folder = named(tmp_path, "work")
    arguments = make(folder)
    before = snapshot(folder)
    result = run("deblur", *arguments)
    if "folder below a file" in case:  # both inputs fail, each with its line, and a count
        assert (result.status, result.err.count("\n")) == (1, 3)
        assert re.search(words, result.err)
    else:
        check(result, status, words)
    assert snapshot(folder) == before


@pytest.mark.parametrize("arguments", [[], ["sharpen"], ["demo"], ["models", "extra"], ["--deblur"]])
def test_bad_commands(run: Any, arguments: list[str]) -> None:
    check(run(*arguments), 2, "required|invalid choice|unrecognized")


class Payload:
    """Unpickling this would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def model_bytes(tiny_models: Path, change: Callable[[dict[str, Any]], None]) -> bytes:
    content = (tiny_models / "nuclei.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _huge(header: dict[str, Any]) -> None:
    header["input.weight"]["shape"] = [2**44, 8]


def _absurd(header: dict[str, Any]) -> None:
    config = json.loads(header["__metadata__"]["mpt_deblur"])
    config["network"] |= {"dims": [4096] * 4, "heads": [1] * 4}
    header["__metadata__"]["mpt_deblur"] = json.dumps(config)


def _foreign(header: dict[str, Any]) -> None:
    del header["__metadata__"]


def _nan(content: bytes) -> bytes:
    return content[:-4] + np.float32(np.nan).tobytes()


MODELS: dict[str, tuple[Callable[[Path, Path], bytes], str]] = {
    "empty": (lambda models, trap: b"", "not a whole safetensors"),
    "text": (lambda models, trap: b"weights\n" * 99, "not a whole safetensors"),
    "hostile pickle": (lambda models, trap: pickle.dumps(Payload(trap)), "pickle"),
    "hostile old pickle": (lambda models, trap: pickle.dumps(Payload(trap), 0), "pickle"),
    "header longer than the file": (lambda models, trap: (2**60).to_bytes(8, "little") + b"{}", "not a whole"),
    "header that lies": (lambda models, trap: model_bytes(models, _huge), "do not add up"),
    "absurd network": (lambda models, trap: model_bytes(models, _absurd), "fewer weights"),
    "foreign weights": (lambda models, trap: model_bytes(models, _foreign), "not saved by napari-mpt-deblur"),
    "truncated": (lambda models, trap: (models / "nuclei.safetensors").read_bytes()[:-100], "bytes of weights"),
    "NaN weights": (lambda models, trap: _nan((models / "nuclei.safetensors").read_bytes()), "not finite"),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_models(run: Any, tmp_path: Path, tiny_models: Path, case: str) -> None:
    make, words = MODELS[case]
    folder, trap = named(tmp_path, "work"), tmp_path / "executed"
    model = written(folder, "model.safetensors", make(tiny_models, trap))
    path = tiff(folder)
    before = snapshot(folder)
    check(run("deblur", path, "-o", folder / "out.tif", "--model", model), 2, words)
    assert snapshot(folder) == before
    assert not trap.exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "Input/output"), (errno.EROFS, "read-only")],
)
def test_a_disk_that_fails_while_writing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def failing(path: Path, *args: object, **kwargs: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(number, os.strerror(number))

    path = tiff(tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.setattr(tifffile, "imwrite", failing)
    check(run("deblur", path, "-o", tmp_path / "out.tif"), 1, words)
    assert snapshot(tmp_path) == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = named(tmp_path, "full")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    except (AttributeError, OSError):
        mounted = False
    if not mounted:
        pytest.skip("needs to be allowed to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(run: Any, tmp_path: Path, full_disk: Path) -> None:
    path = tiff(tmp_path, np.stack([GOOD] * 4))
    check(run("deblur", path, "-o", full_disk / "out.tif", "--axes", "ZYX"), 1, "disk is full")
    assert list(full_disk.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_refuses_files(run: Any, tmp_path: Path) -> None:
    path, locked = tiff(tmp_path), named(tmp_path, "locked")
    locked.chmod(0o500)
    check(run("deblur", path, "-o", locked / "out.tif"), 1, "permission denied")


def test_there_are_forty_cases_and_more() -> None:
    assert len(FILES) + len(ARGUMENTS) + len(MODELS) >= 80
