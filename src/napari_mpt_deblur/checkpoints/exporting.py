"""`export_bioimageio`: a model of the library as a package that tools of the bioimage.io community read."""

from __future__ import annotations

import shutil
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from napari_mpt_deblur.checkpoints import model_rdf
from napari_mpt_deblur.checkpoints.library import available_models, find_model
from napari_mpt_deblur.checkpoints.loading import Model, load_model
from napari_mpt_deblur.checkpoints.model_rdf import ModelFacts
from napari_mpt_deblur.checkpoints.torchscript import record
from napari_mpt_deblur.errors import DeblurError, FileError, ModelError, ParameterError
from napari_mpt_deblur.images import ImageView, atomic_path, check_writable, measure_normalization
from napari_mpt_deblur.images.atomic import writing_failed
from napari_mpt_deblur.networks.guard import no_runtime_errors

MISSING = "Exporting needs the package bioimageio.spec: pip install 'napari-mpt-deblur[bioimageio]'."
SUFFIX = ".zip"
_OURS = ("napari-mpt-deblur developers",)
_TEST_PX = 256
_COVER_PX = 512
_MAX_CARD_BYTES = 10**6
_NO_ROOM = "The memory does not suffice to export this model: close other programs."
_FAILED = "Cannot export this model: running it failed ({reason})."


def export_bioimageio(
    name_or_path: str | Path,
    path: str | Path,
    *,
    authors: Sequence[str] = (),
    licence: str = "",
    overwrite: bool = False,
) -> Path:
    """Export a model in the bioimage.io format, as TorchScript that runs without this package.

    Parameters
    ----------
    name_or_path : str or Path
        A name that `available_models` lists, or a path to a ``.safetensors`` file.
    path : str or Path
        Of the package; ends in ``.zip``.
    authors : sequence of str
        Who made the model; by default those of the package for its own models, nobody for others.
    licence : str
        Of the model, an identifier of SPDX's such as ``"CC-BY-4.0"``; by default what the model's file says.
    overwrite : bool
        Replace a file that exists.

    Returns
    -------
    Path

    Raises
    ------
    ParameterError
        If the package bioimageio.spec is missing, or the suffix, the licence or an author cannot be used.
    FileError
        If a file cannot be read or written, or the model's card is no text file of a usual size; what was there before
        stays.
    ModelError
        If the model is unknown or damaged, or cannot be expressed in the format.
    OutOfMemoryError
        If the memory does not suffice.
    """
    target = Path(path)
    if target.suffix.lower() != SUFFIX:
        raise ParameterError(f"A package's file name must end in {SUFFIX}; got {target.name!r}.")
    check_writable(target, overwrite=overwrite)
    source = find_model(name_or_path)
    spdx = _spdx(licence)
    if licence and not spdx:
        raise ParameterError(f"{licence[:80]!r} is no licence that SPDX lists: give an identifier such as CC-BY-4.0.")
    for author in authors:
        if not author.strip() or set(author) & set("/\\"):
            raise ParameterError(f"{author[:80]!r} cannot be an author's name: leave out slashes, or write one.")
    card = _card(source)
    model = load_model(source, "cpu")
    facts = _facts(model, source, card, tuple(authors), licence)
    try:
        with TemporaryDirectory(prefix="mpt-deblur-", ignore_cleanup_errors=True) as folder:
            with no_runtime_errors(_NO_ROOM, _FAILED):
                package = _package(model, facts, Path(folder))
            with atomic_path(target, overwrite=overwrite) as temporary:
                shutil.copyfile(package, temporary)
    except DeblurError:
        raise
    except OSError as error:  # of the temporary folder
        raise writing_failed(target, error) from error
    return target


def _spdx(licence: str) -> str:
    """The licence if SPDX lists it, else nothing.

    Raises
    ------
    ParameterError
        If bioimageio.spec is not installed.
    """
    try:
        from bioimageio.spec.generic.v0_3 import LicenseId
    except ImportError as error:
        raise ParameterError(MISSING) from error
    try:
        return str(LicenseId(licence))
    except ValueError:
        return ""


def _card(source: Path) -> str:
    """The text beside a model; empty where there is none."""
    path = source.with_suffix(".md")
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileError(f"Cannot read the model's card {path}: it is not a regular file; move it away.")
        with path.open("rb") as file:
            content = file.read(_MAX_CARD_BYTES + 1)
    except FileError:
        raise
    except OSError:  # not every model has one
        return ""
    if len(content) > _MAX_CARD_BYTES:
        raise FileError(f"Cannot read the model's card {path}: it has more than a megabyte; move it away.")
    return content.decode("utf-8", "replace")


def _facts(model: Model, source: Path, card: str, authors: tuple[str, ...], licence: str) -> ModelFacts:
    config = model.config
    ours = any(info.bundled and info.path == source for info in available_models())
    licence = licence or config.licence
    return ModelFacts(
        name=config.name or model.name,
        config=config,
        sha256=model.sha256,
        parameter_count=sum(values.numel() for values in model.network.parameters()),
        card=card,
        authors=authors or (_OURS if ours else ()),
        licence=licence,
        spdx=_spdx(licence),
    )


def _package(model: Model, facts: ModelFacts, folder: Path) -> Path:
    """Write all files and the package of them, checked by the format's own library."""
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description, save_bioimageio_package
    from bioimageio.spec.model.v0_5 import ModelDescr

    told = model_rdf.model_rdf(facts, ModelDescr.implemented_format_version, torch.__version__.partition("+")[0])
    (folder / model_rdf.WEIGHTS).write_bytes(record(model.network))
    (folder / model_rdf.DOCUMENTATION).write_text(model_rdf.documentation(facts), "utf-8", "replace")
    _write_example(model, folder)
    package = folder / f"package{SUFFIX}"
    with ValidationContext(root=folder, log_warnings=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves the closing of files to Python
        described = build_description(told)
        if isinstance(described, InvalidDescr):
            raise ModelError(f"Cannot export this model: {' '.join(str(described.get_reason()).split())[:300]}.")
        save_bioimageio_package(described, output_path=package)
    return package


def _write_example(model: Model, folder: Path) -> None:
    """An image, what the model makes of it, and a picture of both."""
    config = model.config
    multiple = config.network.size_multiple
    image = _drawn(config.network.in_channels, multiple * -(-_TEST_PX // multiple))
    measured = measure_normalization(ImageView.of(image, "CYX"), config.intensity_rule)
    scaled = np.stack([measured.apply(plane, channel) for channel, plane in enumerate(image)])
    with torch.inference_mode():
        restored = model.network(torch.from_numpy(scaled[None]))[0].numpy()
    restored = restored.clip(0, 1) if config.clips else restored
    _cover(scaled, restored).save(folder / model_rdf.COVER)
    np.save(folder / model_rdf.INPUT, image[None])
    gain = model_rdf.FULL_RANGE if config.intensity_rule == "full" else 1.0
    np.save(folder / model_rdf.OUTPUT, (restored * gain)[None].astype(np.float32))


def _drawn(channels: int, side: int) -> np.ndarray:
    """Bright discs out of focus, with noise: (C, side, side) float32, whole grey levels of 8 bits."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    scene = np.zeros((side, side))
    for _ in range(24):
        row, column, radius, bright = rng.uniform((0, 0, 0.03, 0.4), (1, 1, 0.07, 1.0))
        scene = np.maximum(scene, bright * ((y - row) ** 2 + (x - column) ** 2 < radius**2))
    grey = 20 + 200 * ndimage.gaussian_filter(scene, 0.012 * side) + rng.normal(0, 3, (channels, side, side))
    return grey.round().clip(0, 255).astype(np.float32)


def _cover(before: np.ndarray, after: np.ndarray) -> Image.Image:
    """Both, (C, H, W) of values about 0 to 1, side by side; colours where there are three, else the first channel."""
    both = (np.concatenate((before, after), axis=2).clip(0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(np.moveaxis(both, 0, -1) if len(both) == 3 else both[0])
    picture.thumbnail((2 * _COVER_PX, _COVER_PX))
    return picture
