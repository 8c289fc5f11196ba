"""What is promised of the bundled model on real fields; scripts/evaluate_model.py measures more of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from napari_mpt_deblur import deblur, load_model
from napari_mpt_deblur.evaluation.deconvolution import best_deconvolution
from napari_mpt_deblur.evaluation.metrics import psnr
from napari_mpt_deblur.optics.camera import Camera
from napari_mpt_deblur.optics.psf import Microscope, blur, defocus_psf


@pytest.mark.slow
@pytest.mark.parametrize("um", [4, 8, 12, 16])
def test_blind_restoration_against_deconvolution_told_the_truth(data_folder: Path, um: float) -> None:
    index = json.loads((data_folder / "bbbc039" / "index.json").read_text())
    names = [
        entry["id"] for entry in index if entry["split"] == "validation" and entry.get("p999", entry.get("max")) >= 64
    ][2::9]
    model, psf = load_model(device="cpu"), defocus_psf(Microscope(0.5, 0.656, aberrations={"spherical": 0.06}), um)
    gains = []
    for number, name in enumerate(names):
        sharp = imread(data_folder / "bbbc039" / "images" / f"{name}.tif").astype(np.float32)
        blurred = Camera(read_noise=4.0).record(blur(sharp, psf), np.random.default_rng(number))
        _, deconvolved = best_deconvolution(blurred, psf, sharp)
        gains.append(psnr(deblur(blurred, model), sharp) - psnr(deconvolved, sharp))
    assert np.mean(gains) > 0


@pytest.mark.slow
def test_a_field_in_focus_stays_sharp(data_folder: Path) -> None:
    index = json.loads((data_folder / "bbbc039" / "index.json").read_text())
    name = next(
        entry["id"] for entry in index if entry["split"] == "validation" and entry.get("p999", entry.get("max")) >= 64
    )
    sharp = imread(data_folder / "bbbc039" / "images" / f"{name}.tif").astype(np.float32)
    seen = Camera(read_noise=4.0).record(blur(sharp, defocus_psf(Microscope(0.5, 0.656), 0)), np.random.default_rng(0))
    assert psnr(deblur(seen, load_model(device="cpu")), sharp) > psnr(seen, sharp) - 0.3
