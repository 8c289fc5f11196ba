"""Measure a model on real images and write its card: tables of PSNR and SSIM, and pictures of its worst cases.

    python scripts/evaluate_model.py MODEL.safetensors --card CARD.md --pictures FOLDER [--fields 12]

Needs MPT_DEBLUR_DATA (see CONTRIBUTING.md). Every figure of a bundled model's card comes from here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from list_training_images import NOISE, own_noise
from scipy.ndimage import gaussian_filter, label, median_filter
from skimage.io import imread, imsave
from skimage.registration import phase_cross_correlation
from skimage.transform import rescale

from napari_mpt_deblur import deblur, load_model
from napari_mpt_deblur.checkpoints import Model
from napari_mpt_deblur.evaluation.deconvolution import best_deconvolution
from napari_mpt_deblur.evaluation.metrics import affine_fit, peak_of, psnr, ssim
from napari_mpt_deblur.images.diameter import estimate_nucleus_diameter
from napari_mpt_deblur.optics.camera import Camera
from napari_mpt_deblur.optics.psf import Microscope, blur, defocus_psf

DATA = Path(os.environ.get("MPT_DEBLUR_DATA", Path(__file__).parents[1] / "../shared/data"))
CAMERA = Camera(gain=1.0, read_noise=4.0)
# within the ranges that training draws its random microscopes from, but none of them
ABERRATIONS = {"spherical": 0.07, "coma": 0.06}
MICROSCOPE = Microscope(0.5, 0.656, 0.461, aberrations=ABERRATIONS)
DEPTHS_UM = (0, 4, 8, 12, 16)
# a hundredfold oil objective: nuclei of about 150 pixels, the image in focus is limited by the optics
FINE_MICROSCOPE = Microscope(1.4, 0.065, 0.461, 1.515, {"spherical": 0.05, "astigmatism": 0.04})
FINE_DEPTHS_UM = (0.0, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0)
DIAMETERS_PX = (8, 16, 32, 64, 110, 150)
RADII_PX = (0, 2, 5, 10, 17, 25)
Restore = Callable[[np.ndarray], np.ndarray]


def validation_images(name: str, suffix: str, count: int) -> list[np.ndarray]:
    """Evenly spaced validation images with enough grey levels, and little enough noise, to be called sharp."""
    entries = [e for e in json.loads((DATA / name / "index.json").read_text()) if e["split"] == "validation"]
    entries = [e for e in entries if e.get("p999", e.get("max")) >= 64]
    chosen = entries[:: max(1, len(entries) // count)][:count]
    images = [imread(DATA / name / "images" / (e["id"] + suffix)).astype(np.float32) for e in chosen]
    return [image for image in images if own_noise(image) <= NOISE]


def depth_table(restore: Restore, images: list[np.ndarray], scale: float = 1.0) -> list[dict[str, float]]:
    """Blind restoration against deconvolution told the true PSF, by depth."""
    rows = []
    for depth in DEPTHS_UM:
        psf = defocus_psf(MICROSCOPE, depth)
        scores = []
        for number, sharp in enumerate(images):
            truth = sharp * scale
            blurred = CAMERA.record(blur(truth, psf), np.random.default_rng([number, depth]))
            _, plain = best_deconvolution(blurred, psf, truth, padded=False)
            _, padded = best_deconvolution(blurred, psf, truth)
            images_of = (blurred, plain, padded, restore(blurred))
            scores.append([measure(image, truth) for measure in (psnr, ssim) for image in images_of])
        names = [f"{kind}_{what}" for kind in ("psnr", "ssim") for what in ("blurred", "plain", "padded", "restored")]
        rows.append({"um": depth} | dict(zip(names, map(float, np.mean(scores, 0)), strict=True)))
    return rows


def magnification_table(restore: Restore, images: list[np.ndarray]) -> tuple[np.ndarray, dict]:
    """Gain in dB by diameter of nuclei (rows) and radius of the defocus disc (columns), and the pictures behind it."""
    gains, pictures = np.zeros((len(DIAMETERS_PX), len(RADII_PX))), {}
    for i, diameter in enumerate(DIAMETERS_PX):
        for j, radius in enumerate(RADII_PX):
            values = []
            for number, image in enumerate(images):
                zoom = diameter / (estimate_nucleus_diameter(image) or 30)
                truth = rescale(image, zoom, order=3, anti_aliasing=zoom < 1)[:640, :640].astype(np.float32)
                psf = defocus_psf(MICROSCOPE, radius / MICROSCOPE.blur_per_um)
                blurred = CAMERA.record(blur(truth, psf), np.random.default_rng([number, i, j]))
                restored = restore(blurred)
                values.append(psnr(restored, truth) - psnr(blurred, truth))
                if number == 0:
                    pictures[diameter, radius] = (blurred, restored, truth)
            gains[i, j] = np.mean(values)
    return gains, pictures


def fine_table(restore: Restore, images: list[np.ndarray]) -> list[dict[str, float]]:
    """A nucleus of 150 pixels with structure inside, by defocus; the truth is what the microscope shows in focus."""
    rows = []
    for depth in FINE_DEPTHS_UM:
        scores = []
        for number, image in enumerate(images):
            rng = np.random.default_rng([number, 7])
            zoomed = rescale(image, 150 / (estimate_nucleus_diameter(image) or 30), order=3)[:640, :640]
            frequency = np.hypot(np.fft.fftfreq(zoomed.shape[0])[:, None], np.fft.rfftfreq(zoomed.shape[1])[None])
            spectrum = np.fft.rfft2(rng.standard_normal(zoomed.shape)) / np.maximum(frequency, 0.01)
            structure = np.fft.irfft2(spectrum, zoomed.shape)
            scene = zoomed * np.maximum(1 + 0.25 * structure / structure.std(), 0)
            truth, seen = (blur(scene, defocus_psf(FINE_MICROSCOPE, z)) for z in (0.0, depth))
            blurred = CAMERA.record(seen, rng)
            scores.append([psnr(image, truth) for image in (blurred, restore(blurred))])
        blurred_psnr, restored_psnr = map(float, np.mean(scores, 0))
        disc = depth * FINE_MICROSCOPE.blur_per_um
        rows.append({"um": depth, "disc": disc, "blurred": blurred_psnr, "restored": restored_psnr})
    return rows


def smear_table(restore: Restore) -> list[tuple[int, float, float]]:
    """The real brightfield stack: PSNR to the plane in focus, registered and after an affine fit, before and after."""
    folder = DATA / "smear_focus_stack"
    planes = {int(path.stem): _grey(imread(path)) for path in folder.glob("*.bmp")}
    focus, rows = planes[0], []
    for number in sorted(planes):
        plane = planes[number]
        if number == 0:
            continue
        align = _registration(plane, focus)
        (before, truth), (after, _) = (align(image) for image in (plane, restore(plane)))
        peak = peak_of(truth)
        rows.append((number, *(psnr(affine_fit(image, truth), truth, peak) for image in (before, after))))
    return rows


def emptiness(restore: Restore) -> list[tuple[str, float, float, int, int]]:
    """Where there is nothing to see: standard deviation and number of blobs, before and after."""
    rng = np.random.default_rng(0)
    flat = np.full((512, 512), 500.0)
    fields = {
        "camera noise": CAMERA.record(flat, rng),
        "camera noise, bright": CAMERA.record(20 * flat, rng),
        "noise on a gradient": CAMERA.record(flat + np.linspace(0, 300, 512), rng),
        "read-out noise": rng.normal(100, 4, flat.shape).astype(np.float32),
        "noise that is correlated": (100 + 60 * gaussian_filter(rng.standard_normal(flat.shape), 1.5)).astype("f4"),
    }
    rows = []
    for name, field in fields.items():
        after = restore(field)
        rows.append((name, float(field.std()), float(after.std()), blobs(field, field), blobs(after, field)))
    return rows


def blobs(image: np.ndarray, field: np.ndarray) -> int:
    """Spots of 3 pixels and more that rise above their surroundings by twice the noise of `field`."""
    rise = gaussian_filter(image, 1.0) - median_filter(image, 41, mode="reflect")
    noise = 1.4826 * float(np.median(np.abs(field - gaussian_filter(field, 10))))
    labels, _ = label(rise > 2 * noise)
    return int((np.bincount(labels.ravel())[1:] >= 3).sum())


def _registration(plane: np.ndarray, focus: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Scale and shift that bring `plane` onto `focus`; applied to an image it returns the common parts of both."""
    best: tuple[float, float, tuple[int, int]] = (-1, 1, (0, 0))
    for zoom in np.linspace(0.9, 1.1, 41):
        a, b = _common(rescale(plane, zoom, order=1), focus, (0, 0))
        shift = phase_cross_correlation(b, a, normalization=None)[0]
        y, x = (round(float(value)) for value in shift)
        a, b = _common(rescale(plane, zoom, order=1), focus, (y, x))
        if min(a.shape) > 0.7 * min(focus.shape):
            likeness = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
            best = max(best, (likeness, float(zoom), (y, x)))
    _, zoom, shift = best
    return lambda image: _common(rescale(image, zoom, order=1), focus, shift)


def _common(a: np.ndarray, b: np.ndarray, shift: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The parts of `a`, moved by `shift`, and `b` that lie on each other."""
    for axis, step in enumerate(shift):
        a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
        a, b = a[max(0, -step) :], b[max(0, step) :]
        length = min(len(a), len(b))
        a, b = np.moveaxis(a[:length], 0, axis), np.moveaxis(b[:length], 0, axis)
    return a, b


def _grey(image: np.ndarray) -> np.ndarray:
    return (image[..., :3].mean(-1) if image.ndim == 3 else image).astype(np.float32)


def picture(blurred: np.ndarray, restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Blurred, restored and sharp beside each other, at one contrast, uint8."""
    low, high = np.percentile(truth, (0.5, 99.8))
    strip = np.hstack([np.pad(image, 2, constant_values=high) for image in (blurred, restored, truth)])
    return (np.clip((strip - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def card(model: Model, name: str, tables: dict) -> str:
    """The model card in Markdown."""
    training = model.config.training
    simulation = training.get("config", {}).get("simulation", {})
    recipe = {k: v for k, v in training.get("config", {}).items() if k not in ("network", "simulation")}
    parameters = sum(p.numel() for p in model.network.parameters())
    lines = [
        f"# {name}",
        "",
        model.config.description,
        "",
        f"- **Network**: compact MPT, {parameters / 1e6:.2f} M parameters, one channel: "
        f"`{json.dumps(model.config.network.to_dict())}`",
        f"- **Data**: {training.get('data', 'not recorded')}",
        f"- **Licence**: {model.config.licence}",
        f"- **Recipe**: {training.get('iterations', '?')} iterations of `mpt-deblur train` at commit "
        f"{training.get('commit', 'not recorded')}: `{json.dumps(recipe)}`; "
        f"synthetic defocus: `{json.dumps(simulation)}`",
        *([f"- **Note**: {training['note']}"] if training.get("note") else []),
        f"- **Weights**: SHA-256 `{model.sha256}`",
        "- **Figures**: `scripts/evaluate_model.py`, on validation images only; PSNR with peak = 99.8th minus 1st "
        "percentile of the sharp image",
        "",
        "## Depth",
        "",
        "Widefield NA 0.5, 0.656 um a pixel, 461 nm, spherical aberration 0.07 and coma 0.06 waves; camera gain 1, "
        "read noise 4. Deconvolution is the best of Richardson-Lucy (10, 20, 50 iterations) and Wiener (0.01, 0.1) of "
        "scikit-image, chosen with the truth in hand and **told the true PSF**, on the image as it is and on the image "
        "padded by reflection; the model is told nothing.",
    ]
    for title, rows in tables["depth"].items():
        lines += [
            "",
            f"{title}:",
            "",
            "| um | blurred | deconvolution | padded | model | gain | SSIM blurred | deconv., padded | model |",
        ]
        lines.append("|---" * 9 + "|")
        for row in rows:
            gain = row["psnr_restored"] - row["psnr_blurred"]
            lines.append(
                f"| {row['um']} | {row['psnr_blurred']:.2f} | {row['psnr_plain']:.2f} | {row['psnr_padded']:.2f} | "
                f"{row['psnr_restored']:.2f} | {gain:+.2f} | {row['ssim_blurred']:.3f} | "
                f"{row['ssim_padded']:.3f} | {row['ssim_restored']:.3f} |"
            )
    lines += ["", "## Magnification and depth", "", "Gain in dB by the diameter of nuclei (down) and the radius of the"]
    lines += ["defocus disc (across), both in pixels; BBBC039 validation fields, zoomed.", ""]
    lines.append("| | " + " | ".join(map(str, RADII_PX)) + " |")
    lines.append("|---" * (len(RADII_PX) + 1) + "|")
    for diameter, gains in zip(DIAMETERS_PX, tables["magnification"], strict=True):
        lines.append(f"| **{diameter}** | " + " | ".join(f"{gain:+.1f}" for gain in gains) + " |")
    lines += ["", f"The worst cases ({', '.join(tables['worst'])}), blurred, restored and sharp, are pictured in"]
    lines += [f"`{tables['pictures']}`.", "", "## Fine detail", ""]
    lines += ["Nuclei of 150 pixels with structure at all scales inside, NA 1.4, 65 nm a pixel; the truth is the scene"]
    lines += [
        "as this microscope shows it in focus.",
        "",
        "| um | disc, px | blurred | model | gain |",
        "|---" * 5 + "|",
    ]
    lines += [
        f"| {row['um']} | {row['disc']:.0f} | {row['blurred']:.2f} | {row['restored']:.2f} | "
        f"{row['restored'] - row['blurred']:+.2f} |"
        for row in tables["fine"]
    ]
    lines += ["", "## A real focus stack (brightfield smear)", ""]
    gains = [after - before for _, before, after in tables["smear"]]
    lines.append(
        f"PSNR to the plane in focus after registration and an affine fit, mean gain {np.mean(gains):+.2f} dB, "
        f"worst plane {min(gains):+.2f} dB."
    )
    lines += ["", "| plane | before | after |", "|---|---|---|"]
    lines += [f"| {number} | {before:.2f} | {after:.2f} |" for number, before, after in tables["smear"]]
    lines += ["", "## Where there is nothing", "", "Standard deviation in grey levels, and the number of blobs (spots"]
    lines += ["of 3 pixels and more, twice the noise above their surroundings):", ""]
    lines += ["| field | before | after | blobs before | after |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {before:.2f} | {after:.2f} | {blobs_before} | {blobs_after} |"
        for name, before, after, blobs_before, blobs_after in tables["empty"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--fields", type=int, default=12)
    arguments = parser.parse_args()
    model = load_model(arguments.model)

    def restore(image: np.ndarray) -> np.ndarray:
        return deblur(image, model, axes="YX", dtype="float32")

    fields = validation_images("bbbc039", ".tif", arguments.fields)
    others = [i for i in validation_images("dsb2018_fluo", ".png", arguments.fields) if min(i.shape) >= 128]
    depth = {
        f"BBBC039 ({len(fields)} fields)": depth_table(restore, fields),
        f"Data Science Bowl 2018, brought to a camera's range ({len(others)} images)": depth_table(restore, others, 16),
    }
    gains, pictures = magnification_table(restore, fields[:3])
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    order = sorted(np.ndindex(gains.shape), key=lambda index: gains[index])
    worst = [(DIAMETERS_PX[i], RADII_PX[j]) for i, j in order][:3]
    for diameter, radius in [*worst, (150, 25), (32, 10)]:
        imsave(arguments.pictures / f"nuclei-{diameter}px-disc-{radius}px.png", picture(*pictures[diameter, radius]))
    tables = {
        "depth": depth,
        "magnification": gains,
        "worst": [f"nuclei {d} px, disc {r} px" for d, r in worst],
        "pictures": arguments.pictures.as_posix(),
        "fine": fine_table(restore, fields[:3]),
        "smear": smear_table(restore),
        "empty": emptiness(restore),
    }
    if not math.isfinite(float(gains.sum())):
        raise SystemExit("A gain is not finite: the model or the data are broken.")
    arguments.card.write_text(card(model, Path(arguments.model).stem, tables), encoding="utf-8")
    print(arguments.card.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
