"""Which files a run trains on, which it is validated on, and which belong together. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_mpt_deblur.errors import FileError, TrainingError
from napari_mpt_deblur.images.files import find_images
from napari_mpt_deblur.training.request import ImagePairs, ImageSource

_LIST_SUFFIX = ".txt"


def list_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Paths of images; a ``.txt`` file lists one path a line, relative to itself.

    Raises
    ------
    FileError, TrainingError
        If an input does not exist or a list cannot be read.
    """
    expanded: list[str | Path] = []
    for item in map(Path, inputs):
        if item.suffix.lower() != _LIST_SUFFIX:
            expanded.append(item)
            continue
        try:
            lines = item.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"Cannot read the list of images {item}: {error}.") from error
        expanded.extend(item.parent / line.strip() for line in lines if line.strip())
    return find_images(expanded) if expanded else []


def hold_out(images: Sequence[ImageSource], every: int = 10) -> tuple[list[ImageSource], list[ImageSource]]:
    """Training and validation images: every tenth, by name, is held out (at least one of two or more)."""
    ordered = sorted(images, key=lambda image: str(image.path or image.name))
    held = set(range(every - 1, len(ordered), every)) or {len(ordered) - 1}
    return (
        [image for number, image in enumerate(ordered) if number not in held],
        [image for number, image in enumerate(ordered) if number in held],
    )


def match_by_name(blurred: str | Path, sharp: str | Path, axes: str | None = None) -> ImagePairs:
    """Two files, or the files of two folders (or patterns, or lists) whose names are the same but for the suffix.

    Two files that are named themselves are a pair whatever their names.

    Parameters
    ----------
    blurred, sharp : str or Path
    axes : str, optional
        Of all files.

    Raises
    ------
    FileError
        If one of them does not exist or holds no image.
    TrainingError
        If a file has no partner, or is its own.
    """
    sides = [list_images([blurred]), list_images([sharp])]
    single = [Path(name) if [Path(name)] == side else None for name, side in zip((blurred, sharp), sides, strict=True)]
    for path in single:
        if path is not None and not path.exists():
            raise FileError(f"Cannot read {path}: no such file or folder; check the name.")
    if None not in single:
        pairs = [(sides[0][0], sides[1][0])]
    else:
        first, second = (_by_stem(side) for side in sides)
        for mine, theirs, there in ((first, second, sharp), (second, first, blurred)):
            alone = sorted(set(mine) - set(theirs))
            if alone:
                more = f" (nor have {len(alone) - 1} more)" if len(alone) > 1 else ""
                raise TrainingError(
                    f"{blurred} and {sharp} do not match by name: "
                    f"{mine[alone[0]].name} has no partner in {there}{more}."
                )
        pairs = [(first[stem], second[stem]) for stem in sorted(first)]
    for first_path, second_path in pairs:
        if first_path.resolve() == second_path.resolve():
            raise TrainingError(f"{first_path} is both the blurred and the sharp image: name two that differ.")
    columns = zip(*pairs, strict=True)
    return ImagePairs(*(tuple(ImageSource.of_file(path, axes) for path in column) for column in columns))


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise TrainingError(f"{other} and {path} have one name: which of them to pair is not clear; rename one.")
    return found
