"""A model as the bioimage.io format describes it: its resource description (RDF) and its documentation. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks.config import MPTConfig

WEIGHTS, INPUT, OUTPUT = "weights.pt", "test_input.npy", "test_output.npy"
DOCUMENTATION, COVER = "README.md", "cover.png"
FULL_RANGE = 255.0  # of models that take the full range of the image's type: here 8 bits
_PAPER = {
    "text": "Y. Zhang, P. Zheng, W. Yan, C. Fang, S. S. Cheng: A Unified Framework for Microscopy Defocus Deblur with "
    "Multi-Pyramid Transformer and Contrastive Learning, CVPR 2024",
    "doi": "10.48550/arXiv.2403.02611",
}
_MISUSE = (
    "Restored intensities are a network's estimate: not for measuring, not for diagnosis, and no evidence that a "
    "structure exists."
)


@dataclass(frozen=True)
class ModelFacts:
    """What is told of a model.

    Attributes
    ----------
    name : str
    config : ModelConfig
    sha256 : str
        Of the file that it comes from.
    parameter_count : int
    card : str
        Markdown; empty if it has none.
    authors : tuple of str
    licence : str
        As it is stated; empty if it is not.
    spdx : str
        The licence, if it is one of SPDX's identifiers; else empty.
    """

    name: str
    config: ModelConfig
    sha256: str
    parameter_count: int
    card: str = ""
    authors: tuple[str, ...] = ()
    licence: str = ""
    spdx: str = ""


def model_rdf(facts: ModelFacts, format_version: str, torch_version: str) -> dict[str, Any]:
    """The resource description, plain data, with its files named as the constants of this module.

    Raises
    ------
    ModelError
        If the model's normalisation cannot be expressed.
    """
    config = facts.config
    is_mpt = isinstance(config.network, MPTConfig)
    told: dict[str, Any] = {
        "type": "model",
        "format_version": format_version,
        "name": f"{re.sub('[^A-Za-z0-9_-]', '_', facts.name)[:100]} (defocus deblurring)",
        "description": (config.description or "brings microscopy that is out of focus back into focus")[:512],
        "authors": [{"name": author} for author in facts.authors],
        "cite": [_PAPER] if is_mpt else [],
        "tags": ["defocus", "deblurring", "image-restoration", "microscopy", "2d", "pytorch", "napari-mpt-deblur"],
        "documentation": {"source": DOCUMENTATION},
        "covers": [{"source": COVER}],
        "inputs": [_input(config)],
        "outputs": [_output(config)],
        "weights": {
            "torchscript": {
                "source": WEIGHTS,
                "pytorch_version": torch_version,
                "comment": f"recorded from the weights with SHA-256 {facts.sha256}",
            }
        },
        "config": {
            "bioimageio": {
                "architecture_type": "transformer" if is_mpt else config.network.describe()[:32],
                "architecture_description": config.network.describe(),
                "task": "image restoration",
                "out_of_scope_use": _MISUSE,
                "model_parameter_count": facts.parameter_count,
            },
            "mpt_deblur": config.to_dict() | {"sha256": facts.sha256},
        },
    }
    return told | ({"license": facts.spdx} if facts.spdx else {})


def _input(config: ModelConfig) -> dict[str, Any]:
    rule = config.intensity_rule
    multiple = config.network.size_multiple
    if rule == "full":
        scaling = {"id": "scale_linear", "kwargs": {"gain": 1 / FULL_RANGE, "offset": 0.0}}
    elif rule[1] <= 1:
        raise ModelError(f"Cannot export this model: the format has no upper percentile as low as {rule[1]:g}.")
    else:
        percentiles = {"min_percentile": rule[0], "max_percentile": rule[1]}
        scaling = {"id": "scale_range", "kwargs": {"axes": ["y", "x"], **percentiles}}
    sizes = {"min": multiple, "step": multiple}
    return {
        "id": "input",
        "description": "image out of focus, 8 bits" if rule == "full" else "image out of focus, any grey levels",
        "axes": [*_leading_axes(config), *({"type": "space", "id": axis, "size": sizes} for axis in "yx")],
        "data": {"type": "float32"} | ({"range": [0.0, FULL_RANGE]} if rule == "full" else {}),
        "test_tensor": {"source": INPUT},
        "pad": {"mode": "reflect"},
        "preprocessing": [scaling],
    }


def _output(config: ModelConfig) -> dict[str, Any]:
    full = config.intensity_rule == "full"
    clip = {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}
    undo = {"id": "scale_linear", "kwargs": {"gain": FULL_RANGE, "offset": 0.0}}
    sizes = {axis: {"tensor_id": "input", "axis_id": axis} for axis in "yx"}
    return {
        "id": "output",
        "description": "the image in focus, 8 bits" if full else "the image in focus; 0 and 1 as in the scaled input",
        "axes": [*_leading_axes(config), *({"type": "space", "id": axis, "size": sizes[axis]} for axis in "yx")],
        "data": {"type": "float32"},
        "test_tensor": {"source": OUTPUT},
        "postprocessing": ([clip] if config.clips else []) + ([undo] if full else []),
    }


def _leading_axes(config: ModelConfig) -> list[dict[str, Any]]:
    channels = config.network.in_channels
    known = {1: ["grey"], 3: ["red", "green", "blue"]}
    names = known.get(channels, [f"channel{i}" for i in range(1, channels + 1)])
    return [{"type": "batch"}, {"type": "channel", "id": "channel", "channel_names": names}]


def documentation(facts: ModelFacts) -> str:
    """What users of other tools should know, Markdown; the model's card is its last part."""
    config, multiple = facts.config, facts.config.network.size_multiple
    parts = [
        f"# {facts.name}",
        config.description,
        f"{config.network.describe()}, {facts.parameter_count / 1e6:.2f} M parameters. "
        "(batch, channel, y, x) float32 in, the same shape out; TorchScript that needs no package but torch.",
        "## How to use it",
        "\n".join(
            f"- {line}"
            for line in (
                f"Height and width are multiples of {multiple} pixels, any number of them: continue an image by "
                "reflection, evenly on opposite sides, and crop the result.",
                _intensities(config),
                "Give images whole where memory allows. Tiles, where a tool must cut them, should overlap by 64 pixels "
                f"or more, and lie at multiples of {multiple} pixels.",
                _MISUSE,
            )
        ),
        "## What differs from napari-mpt-deblur",
        _differences(config),
        "## Validation",
        "Defocus images that are sharp, or record a field in and out of focus; compare the restored images with the "
        "sharp ones by PSNR and SSIM, and both with the blurred ones. Figures that are known stand in the card below.",
        "## Training data",
        _training(config.training, facts.card),
        "## Licence and origin",
        f"Licence: {facts.licence or 'not stated: ask whoever gave you this file'}. "
        f"Exported by napari-mpt-deblur from the weights with SHA-256 `{facts.sha256}`.",
        "## Card",
        re.sub("(?m)^#", "###", facts.card.strip()) or "This model has none.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intensities(config: ModelConfig) -> str:
    clipped = " It is clipped to them." if config.clips else ""
    if config.intensity_rule == "full":
        return f"Grey levels are those of 8 bits, 0 to 255, in and out: scale other images to that range.{clipped}"
    low, high = config.intensity_rule
    return (
        f"Percentiles {low:g} and {high:g} of each channel of each image become 0 and 1 (`scale_range`). The output "
        f"is in these units, which the format cannot undo: grey levels are `output * (high - low) + low`, `low` and "
        f"`high` being the input's percentiles.{clipped}"
    )


def _differences(config: ModelConfig) -> str:
    lines = ["NaN and infinite pixels are left out there, and a constant image comes back as it is."]
    if config.intensity_rule == "full":
        lines.append("Images of 10, 12, 14 and 16 bits, and floats up to 1, have a full range of their own there.")
    else:
        lines.append(
            "Percentiles are measured there over a whole stack, here on each image. Where both are one grey level, as "
            "with few bright spots on an even background, the darkest and brightest pixel stand in for them there."
        )
    if config.network.pools_channels:
        lines.append("Tiles share statistics of their plane there (channel attention); tiles of other tools cannot.")
    if config.nucleus_diameter_px:
        low, high = config.nucleus_diameter_px
        lines.append(
            f"Made for nuclei of {low:g} to {high:g} pixels; told of larger ones, it works there on a smaller scale."
        )
    if config.network.in_channels > 1:
        lines.append("A grey image is given to all channels there, and the mean of the results is taken.")
    return (
        "An image of allowed size that napari-mpt-deblur restores in one tile, in float32, comes out the same here, to "
        "1e-4 of the range from 0 to 1. Beyond that:\n\n"
    ) + "\n".join(f"- {line}" for line in lines)


def _training(record: dict[str, Any], card: str) -> str:
    source = record.get("imported")
    if isinstance(source, dict):
        return f"Not recorded: the weights were imported from {source.get('file')} (SHA-256 `{source.get('sha256')}`)."
    data = record.get("data")
    if isinstance(data, str):
        return data
    return f"`{json.dumps(data)}`" if data else ("The card says what is known." if card else "Not recorded.")
