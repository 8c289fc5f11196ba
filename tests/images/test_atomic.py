from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mpt_deblur.errors import FileError
from napari_mpt_deblur.images import atomic_path, check_writable, write_image
from napari_mpt_deblur.images.atomic import check_creatable, make_folder

IMAGE = np.zeros((300, 300), np.uint16)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; needs root."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    except (AttributeError, OSError):
        mounted = False
    if not mounted:
        pytest.skip("needs to be allowed to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with atomic_path(tmp_path / "a.tif") as temporary:
            write_image(temporary, IMAGE, "YX")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(FileError, match=r"Cannot write .*/a\.tif: the disk is full"):
        write()


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    path = write_image(tmp_path / "a.tif", IMAGE, "YX")
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, *args: object, **kwargs: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(FileError, match="disk is full"):
        write_image(tmp_path / "a.tif", IMAGE, "YX")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_really_full(full_disk: Path) -> None:
    with pytest.raises(FileError, match="disk is full"):
        write_image(full_disk / "a.tif", IMAGE, "YX")
    assert list(full_disk.iterdir()) == []
    write_image(full_disk / "a.tif", IMAGE[:10], "YX")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.tif").mkdir()
    for path, words in {
        "file": "exists: choose another name",
        "folder.tif": "a folder of that name",
        "file/a.tif": "is a file, not a folder",
        "missing/a.tif": "does not exist: create it",
        "x" * 300 + ".tif": "too long",
        "nul\0.tif": "not a file name",
    }.items():
        with pytest.raises(FileError, match=words) as caught:
            check_writable(tmp_path / path, overwrite=False)
        assert "\n" not in str(caught.value)
    assert check_writable(tmp_path / "file", overwrite=True)


def test_folders_are_checked_and_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="is a file"):
        check_creatable(tmp_path / "file" / "a" / "b")
    with pytest.raises(FileError):
        make_folder(tmp_path / "file" / "a")
    check_creatable(tmp_path)
    check_creatable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
