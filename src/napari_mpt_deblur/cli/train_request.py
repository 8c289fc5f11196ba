"""What ``mpt-deblur train`` is told, as a request."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, find_model, read_header
from napari_mpt_deblur.cli import console
from napari_mpt_deblur.errors import DeblurError, ParameterError
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig
from napari_mpt_deblur.training.config import TrainingConfig
from napari_mpt_deblur.training.contrast_config import METHODS
from napari_mpt_deblur.training.folders import list_images, match_by_name
from napari_mpt_deblur.training.request import (
    FocusStacks,
    ImageSource,
    OpenLayer,
    PairSource,
    SharpImages,
    TrainingRequest,
)

_RECIPES = {"paper": 3, "paper-grey": 1}  # channels
_SOURCES = ("images", "pairs", "stack", "layer")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what to train on, and how."""
    data = parser.add_argument_group("data (one of the first four; files, folders, globs, or .txt lists of files)")
    data.add_argument("images", nargs="*", metavar="IMAGE", help="sharp images; the blurred side is simulated defocus")
    data.add_argument("--pairs", nargs=2, metavar=("BLURRED", "SHARP"), help="the same fields twice, matched by name")
    data.add_argument(
        "--stack", nargs="+", metavar="FILE", help="stacks through focus: the sharpest planes are the truth"
    )
    data.add_argument("--layer", metavar="FILE", help="nothing but one image: its sharpest regions are the truth")
    data.add_argument(
        "--validation", nargs="+", metavar="IMAGE", help="sharp images to validate on (default: every tenth)"
    )
    data.add_argument("--unlabelled", nargs="+", metavar="IMAGE", help="images without a sharp side, for efcrex")
    data.add_argument("--extra", nargs="+", metavar="IMAGE", help="sharp images of another kind, for efcrex_labelled")
    data.add_argument("--extra-pairs", nargs=2, metavar=("BLURRED", "SHARP"), help="pairs of another kind, likewise")
    data.add_argument("--axes", type=console.axes, help="of all files, such as ZYX (default: as each says)")
    how = parser.add_argument_group("method (each replaces what the configuration says)")
    how.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of TrainingConfig's settings")
    how.add_argument(
        "--recipe",
        choices=tuple(_RECIPES),
        help="in its place, the paper's network (for colours or grey levels) and settings: 300000 iterations of EFCR "
        "on 8 patches of 256 pixels, days on a GPU",
    )
    how.add_argument(
        "--start-from",
        metavar="MODEL",
        help="begin with this model's weights (name or path) and its network; a run that began with another is refused "
        f"(default: random weights; with --layer and neither --config nor --recipe, {DEFAULT_MODEL})",
    )
    how.add_argument(
        "--method", choices=tuple(METHODS), help="; ".join(f"{name}: {text}" for name, text in METHODS.items())
    )
    how.add_argument("--beta", type=console.size, help="weight of the contrastive part")
    how.add_argument("--iterations", type=console.pixels, help="how many")
    how.add_argument("--learning-rate", type=console.size)
    how.add_argument("--patch", type=console.pixels, metavar="PIXELS", help="side of a patch")
    how.add_argument("--batch", type=console.pixels, help="patches in a step")
    how.add_argument("--seed", type=int, help="of everything random")


def make_request(arguments: argparse.Namespace) -> TrainingRequest:
    """The request; no pixel is read.

    Raises
    ------
    ParameterError
        If the arguments make no sense together, or a configuration or model named by them cannot be used.
    DeblurError
        If images are missing or do not match.
    """
    pairs = _pairs(arguments)
    if arguments.config and arguments.recipe:
        raise ParameterError("Name the settings by --config or by --recipe, not by both.")
    told = arguments.config or arguments.recipe
    base = arguments.start_from
    if base is None and arguments.layer and not told:
        base = DEFAULT_MODEL
    try:
        network = read_header(find_model(base)).config.network if base is not None else None
        config = _config(arguments, network)
    except DeblurError as error:  # the arguments are at fault
        raise ParameterError(str(error)) from error
    return TrainingRequest(
        config=config,
        pairs=pairs,
        folder=arguments.output,
        unlabelled=_unlabelled(arguments, config),
        extra=_extra(arguments),
        base=base,
        device=arguments.device,
        minutes=arguments.minutes,
        fill_minutes=bool(arguments.minutes and not arguments.iterations and not told and base is not None),
        restart=arguments.restart,
        tensorboard=arguments.tensorboard,
    )


def _pairs(arguments: argparse.Namespace) -> PairSource:
    given = [name for name in _SOURCES if getattr(arguments, name)]
    if len(given) != 1:
        raise ParameterError("Name what to train on: sharp images, or --pairs, or --stack, or --layer; one of them.")
    if arguments.validation and not arguments.images:
        raise ParameterError("--validation goes with sharp images only: other data hold a part of themselves out.")
    if arguments.pairs:
        blurred, sharp = arguments.pairs
        return match_by_name(blurred, sharp, arguments.axes)
    if arguments.stack:
        return FocusStacks(_sources(arguments.stack, arguments.axes))
    if arguments.layer:
        return OpenLayer(ImageSource.of_file(arguments.layer, arguments.axes))
    return SharpImages(_sources(arguments.images, arguments.axes), _sources(arguments.validation or (), arguments.axes))


def _extra(arguments: argparse.Namespace) -> PairSource | None:
    if arguments.extra and arguments.extra_pairs:
        raise ParameterError("Name the extra data by --extra or by --extra-pairs, not by both.")
    if arguments.extra_pairs:
        blurred, sharp = arguments.extra_pairs
        return match_by_name(blurred, sharp, arguments.axes)
    return SharpImages(_sources(arguments.extra, arguments.axes)) if arguments.extra else None


def _unlabelled(arguments: argparse.Namespace, config: TrainingConfig) -> tuple[ImageSource, ...]:
    if arguments.unlabelled:
        return _sources(arguments.unlabelled, arguments.axes)
    if arguments.layer and config.contrast.needs_unlabelled:
        return (ImageSource.of_file(arguments.layer, arguments.axes),)
    return ()


def _sources(inputs: Sequence[str], axes: str | None) -> tuple[ImageSource, ...]:
    return tuple(ImageSource.of_file(path, axes) for path in list_images(inputs))


def _config(arguments: argparse.Namespace, network: MPTConfig | SpandrelConfig | None) -> TrainingConfig:
    if arguments.config:
        config = TrainingConfig.from_toml(arguments.config, network)
    elif arguments.recipe:
        config = TrainingConfig.paper(_RECIPES[arguments.recipe])
        config = replace(config, network=network or config.network)
    elif arguments.images or network is None:
        config = TrainingConfig(network=network or MPTConfig.compact())
    else:
        config = TrainingConfig.fine_tuning(network)
    changes: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("iterations", "learning_rate") if getattr(arguments, name)
    }
    if arguments.seed is not None:
        changes["seed"] = arguments.seed
    if arguments.patch:
        changes |= {"patch_px": (arguments.patch,), "batch": config.batch[:1]}
    if arguments.batch:
        changes["batch"] = (arguments.batch,) * len(changes.get("patch_px", config.patch_px))
    contrast = {"method": _method(arguments), "beta": arguments.beta}
    contrast = {name: value for name, value in contrast.items() if value is not None}
    return replace(config, **changes, contrast=replace(config.contrast, **contrast))


def _method(arguments: argparse.Namespace) -> str | None:
    """The method that is named, or the one that the data that are named stand for."""
    if arguments.method:
        return str(arguments.method)
    if arguments.config:
        return None
    if arguments.extra or arguments.extra_pairs:
        return "efcrex_labelled"
    return "efcrex" if arguments.unlabelled or arguments.layer else None
