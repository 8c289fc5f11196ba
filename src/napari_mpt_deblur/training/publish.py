"""A finished training as a named model in the user's library, with a card beside it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_mpt_deblur.checkpoints import check_name, load_model, save_model
from napari_mpt_deblur.checkpoints.config import ModelConfig
from napari_mpt_deblur.images.atomic import atomic_path, make_folder


def publish(
    weights: str | Path, name: str, description: str = "", *, licence: str = "", overwrite: bool = False
) -> Path:
    """Put weights that a training left into the user's library; `available_models` lists them at once.

    Parameters
    ----------
    weights : str or Path
        ``best.safetensors`` or ``last.safetensors`` of a run's folder (`Finished.weights`).
    name : str
    description : str
        In a line; by default what it was trained on and how.
    licence : str
    overwrite : bool
        Replace a model of the user's that has this name.

    Returns
    -------
    Path
        Of the model; its card lies beside it, with the suffix ``.md``.

    Raises
    ------
    ParameterError
        If the name cannot be used.
    FileError, ModelError
        If the weights cannot be read, or the files not be written; what was there before stays.
    """
    path = check_name(name, overwrite=overwrite)
    model = load_model(Path(weights), "cpu")
    line = " ".join(description.split()) or _describe(model.config.training)
    config = replace(model.config, name=name, description=line, licence=licence)
    make_folder(path.parent)
    card = path.with_suffix(".md")
    before = card.read_bytes() if card.exists() else None
    with atomic_path(card, overwrite=True) as temporary:
        temporary.write_text(card_text(config, model.sha256), encoding="utf-8")
    try:
        return save_model(path, model.network, config)
    except BaseException:
        with suppress(OSError):  # a card tells of the model beside it
            card.unlink() if before is None else card.write_bytes(before)
        raise


def card_text(config: ModelConfig, sha256: str) -> str:
    """A model's card, Markdown: what the header of its file says, for people.

    Parameters
    ----------
    config : ModelConfig
    sha256 : str
        Of the weights that it was saved from.
    """
    training = config.training
    recipe = {key: value for key, value in training.get("config", {}).items() if key not in ("network", "simulation")}
    facts = {
        "Network": f"`{json.dumps(config.network.to_dict())}`",
        "Started from": _base(training.get("history", [])),
        "Data": _data(training.get("data", {})),
        "Iterations": f"{training.get('iterations', 0)}",
        "Recipe": f"`{json.dumps(recipe)}`",
        "Synthetic defocus": _simulation(training),
        "Licence": config.licence or "not stated",
        "Weights": f"saved from the file with SHA-256 `{sha256}`",
    }
    lines = [f"# {config.name}", "", config.description, ""]
    lines += [f"- **{name}**: {text}" for name, text in facts.items()]
    return "\n".join([*lines, "", *_figures(training.get("figures", {})), ""])


def _describe(training: dict[str, Any]) -> str:
    method = training.get("config", {}).get("contrast", {}).get("method", "pixel")
    kind = training.get("data", {}).get("pairs", {}).get("kind", "images")
    base = next((entry["name"] for entry in reversed(training.get("history", [])) if entry.get("name")), None)
    return f"{f'{base}, fine-tuned' if base else 'trained'} on {kind} ({method})"


def _simulation(training: dict[str, Any]) -> str:
    simulated = any("defocused" in entry.get("kind", "") for entry in training.get("data", {}).values())
    return f"`{json.dumps(training.get('config', {}).get('simulation', {}))}`" if simulated else "none"


def _base(history: list[dict[str, Any]]) -> str:
    started = [entry for entry in history if "started_from" in entry]
    if not started:
        return "random weights"
    return f"{started[-1].get('name', 'a model')}, SHA-256 `{started[-1]['started_from']}`"


def _data(record: dict[str, Any]) -> str:
    parts = []
    for role, entry in record.items():
        names = ", ".join(str(image.get("name", "")) for image in entry.get("images", []))
        more = entry.get("count", 0) - len(entry.get("images", []))
        parts.append(f"{role}: {entry.get('kind', '')} ({names}{f' and {more} more' if more > 0 else ''})")
    return "; ".join(parts) or "not recorded"


def _figures(figures: dict[str, dict[str, float]]) -> list[str]:
    if not figures:
        return ["No figures were measured."]
    rows = ["| held-out patches | PSNR, dB | SSIM |", "|---|---|---|"]
    first = next(iter(figures.values()))
    rows.append(f"| blurred | {first['psnr_blurred']:.2f} | {first['ssim_blurred']:.3f} |")
    rows += [
        f"| {name} (iteration {scores['iteration']}) | {scores['psnr']:.2f} | {scores['ssim']:.3f} |"
        for name, scores in figures.items()
    ]
    if {"before", "after"} <= set(figures) and figures["after"]["psnr"] < figures["before"]["psnr"]:
        rows += ["", "**Validation got worse**: these weights restore the held-out patches worse than the run began."]
    return rows
