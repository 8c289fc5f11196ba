"""``mpt-deblur demo``: a real image, put out of focus and brought back, with the gain in figures and a picture."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.cli.console import DONE, add_engine_options, check_model, follow, make_deblurrer, subparser
from napari_mpt_deblur.images import ImageView, atomic, atomic_path, check_writable, undo_to_dtype, write_image

if TYPE_CHECKING:
    from napari_mpt_deblur.optics.stack import FocusStack

_FILES = ("sharp.tif", "blurred.tif", "deblurred.tif", "comparison.png", "report.json")
_FIGURES = ("psnr_blurred", "psnr_deblurred", "ssim_blurred", "ssim_deblurred")


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(subparsers, "demo", "defocus a real image of nuclei, restore it and say how well that went", run)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the images and the report")
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the stack, restore it, write the results; those of an earlier demo are replaced."""
    check_model(arguments)
    folder = Path(arguments.output)
    if os.path.exists(folder):
        for name in _FILES:
            check_writable(folder / name, overwrite=True)
    else:
        atomic.check_creatable(folder)
    from napari_mpt_deblur.optics.sample import sample_focus_stack

    sample = sample_focus_stack()
    view = ImageView.of(sample.stack, "ZYX", pixel_size_um=sample.pixel_size_um)
    deblurrer = make_deblurrer(arguments)
    restored = follow(deblurrer.run(view), "demo")
    report = measure(sample, restored.array) | {"record": restored.record}
    with atomic.new_folder(folder):
        _write(folder, sample, restored.array, report)
    print(summary(report))
    print(f"Pictures and figures are in {folder.resolve()}: look at comparison.png")
    return DONE


def measure(sample: FocusStack, deblurred: np.ndarray) -> dict[str, Any]:
    """PSNR (dB) and SSIM of every plane against the sharp image, before and after, and their means.

    Parameters
    ----------
    sample : FocusStack
    deblurred : ndarray
        (Z, Y, X), the restored stack.

    Returns
    -------
    dict
        ``psnr_blurred``, ``psnr_deblurred``, ``ssim_blurred`` and ``ssim_deblurred``: a list each, one number a plane;
        their means under ``mean``; the planes' ``defocus_um``.
    """
    from napari_mpt_deblur.evaluation.metrics import peak_of, psnr, ssim

    peak = peak_of(sample.sharp)
    report: dict[str, Any] = {
        "defocus_um": list(sample.defocus_um),
        "psnr_blurred": [psnr(plane, sample.sharp, peak) for plane in sample.stack],
        "psnr_deblurred": [psnr(plane, sample.sharp, peak) for plane in deblurred],
        "ssim_blurred": [ssim(plane, sample.sharp, peak) for plane in sample.stack],
        "ssim_deblurred": [ssim(plane, sample.sharp, peak) for plane in deblurred],
    }
    report["mean"] = {name: statistics.fmean(report[name]) for name in _FIGURES}
    return report


def summary(report: dict[str, Any]) -> str:
    """The report in words, a line a plane."""
    lines = ["defocus    PSNR blurred -> deblurred         SSIM blurred -> deblurred"]
    planes = zip(report["defocus_um"], *(report[name] for name in _FIGURES), strict=True)
    for defocus, before, after, ssim_before, ssim_after in planes:
        lines.append(
            f"{defocus:+6.1f} um  {before:6.2f} -> {after:6.2f} dB ({after - before:+.2f})"
            f"         {ssim_before:.3f} -> {ssim_after:.3f}"
        )
    gain = report["mean"]["psnr_deblurred"] - report["mean"]["psnr_blurred"]
    worst = min(range(len(report["psnr_blurred"])), key=report["psnr_blurred"].__getitem__)
    worst_gain = report["psnr_deblurred"][worst] - report["psnr_blurred"][worst]
    lines.append(f"Gain: {gain:+.2f} dB on average, {worst_gain:+.2f} dB in the blurriest plane.")
    return "\n".join(lines)


def _write(folder: Path, sample: FocusStack, deblurred: np.ndarray, report: dict[str, Any]) -> None:
    from napari_mpt_deblur.cli.comparison import draw_comparison

    um, step = sample.pixel_size_um, sample.z_step_um
    with ExitStack() as stack:  # all of them or none
        sharp, blurred, restored, comparison, text = (
            stack.enter_context(atomic_path(folder / name, overwrite=True)) for name in _FILES
        )
        write_image(sharp, undo_to_dtype(sample.sharp, sample.stack.dtype), "YX", um)
        write_image(blurred, sample.stack, "ZYX", um, step)
        write_image(restored, deblurred, "ZYX", um, step)
        draw_comparison(sample, deblurred, report).save(comparison, format="PNG")
        text.write_text(json.dumps(_plain(report), indent=2, default=str) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Infinity (the PSNR of equal images) is no JSON: null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
