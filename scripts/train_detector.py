"""Train the bundled nucleus detector with StarDist itself, on sharp images, in an environment that has TensorFlow.

    pip install tensorflow-cpu stardist scikit-image imagecodecs
    PYTHONPATH=src python scripts/train_detector.py LISTS OUTPUT_FOLDER [--epochs 40] [--steps 50] \\
        [--blurred --start-from SHARP_FOLDER]

LISTS is the folder of train.txt and validation.txt that scripts/list_training_images.py wrote: the same images as the
deblurring model's, and none that repeats the sample; the masks lie beside their folder. OUTPUT_FOLDER becomes a
StarDist model folder (config.json, thresholds.json, weights_best.h5), which `mpt-deblur detect --model` reads.
`--blurred` trains on defocused images, for comparison only.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve
from skimage.io import imread
from skimage.segmentation import relabel_sequential
from skimage.transform import rescale, resize
from stardist.models import Config2D, StarDist2D
from tensorflow import keras

from napari_mpt_deblur.optics.psf import ABERRATIONS, Microscope, defocus_psf

SIDE = 256
SMALLEST_PX = 20  # debris below is no nucleus, and holds too few pixels to show a shape
REDUCED = 0.6
NATIVE = 0.5  # share of patches that are not enlarged
THRESHOLDS_FROM = 4  # every fourth validation image: all of them take longer than the epochs
PIXEL_UM = 0.656
DEEPEST_UM = 20.0
PSFS = 60  # for `--blurred`, evenly spaced in depth

Pair = tuple[np.ndarray, np.ndarray]


def load(listing: Path) -> list[Pair]:
    """Images, their 1st and 99.8th percentiles brought to 0 and 1, and their labels without debris."""
    pairs = []
    for line in listing.read_text().split():
        path = Path(line)
        image = imread(path).astype(np.float32)
        low, high = np.percentile(image, (1, 99.8))
        labels = imread(path.parents[1] / "masks" / f"{path.stem}.png").astype(np.int32)
        pairs.append(((image - low) / max(float(high - low), 1e-6), without_debris(labels)))
    return [pair for pair in pairs if min(pair[0].shape) >= SIDE]


def without_debris(labels: np.ndarray) -> np.ndarray:
    areas = np.bincount(labels.ravel())
    areas[0] = SMALLEST_PX
    return relabel_sequential(np.where(areas[labels] >= SMALLEST_PX, labels, 0))[0].astype(np.int32)


def reduced(pair: Pair) -> Pair:
    image, labels = pair
    small = rescale(image, REDUCED, order=1, anti_aliasing=True).astype(np.float32)
    return small, resize(labels, small.shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.int32)


class Augmenter:
    """Patches turned, mirrored, enlarged, with noise and another range of intensities."""

    def __init__(self, blurred: bool, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.psfs = [_defocus(depth, self.rng) for depth in np.linspace(0, DEEPEST_UM, PSFS)] if blurred else []

    def __call__(self, image: np.ndarray, labels: np.ndarray) -> Pair:
        rng = self.rng
        side = SIDE if rng.random() < NATIVE else int(SIDE / np.exp(rng.uniform(0, np.log(1.8))))
        y, x = rng.integers(SIDE - side + 1, size=2)
        image, labels = image[y : y + side, x : x + side], labels[y : y + side, x : x + side]
        if side < SIDE:
            image = resize(image, (SIDE, SIDE), order=1)
            labels = resize(labels, (SIDE, SIDE), order=0, preserve_range=True, anti_aliasing=False).astype(np.int32)
        turns, step = int(rng.integers(4)), int(rng.choice([-1, 1]))
        image, labels = (np.rot90(each, turns)[:, ::step].copy() for each in (image, labels))
        if self.psfs:
            psf = self.psfs[rng.integers(len(self.psfs))]
            margin = psf.shape[0] // 2
            image = fftconvolve(np.pad(image, margin, mode="symmetric"), psf, mode="valid")
            low, high = np.percentile(image, (1, 99.8))
            image = (image - low) / max(float(high - low), 1e-6)
        image = image * rng.uniform(0.6, 1.3) + rng.uniform(-0.1, 0.1)
        return (image + rng.normal(0, rng.uniform(0, 0.06), image.shape)).astype(np.float32), labels


def _defocus(depth_um: float, rng: np.random.Generator) -> np.ndarray:
    aberrations = {name: float(rng.normal(0, 0.04)) for name in ABERRATIONS}
    microscope = Microscope(float(rng.uniform(0.4, 0.6)), PIXEL_UM, 0.461, aberrations=aberrations)
    return defocus_psf(microscope, depth_um, centred=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lists", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--blurred", action="store_true")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at the start; falls to 0 by a cosine")
    parser.add_argument("--start-from", type=Path, help="a model folder whose weights to begin with")
    parser.add_argument("--seed", type=int, default=0, help="another one for weights that are trained on")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    train, validation = (load(arguments.lists / f"{name}.txt") for name in ("train", "validation"))
    train += [reduced(pair) for pair in train if REDUCED * min(pair[0].shape) >= SIDE]
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        unet_n_filter_base=16,
        unet_batch_norm=True,  # trains in a quarter of the steps
        unet_n_depth=3,
        net_conv_after_unet=64,
        train_patch_size=(SIDE, SIDE),
        train_batch_size=4,
        train_learning_rate=arguments.learning_rate,
        train_reduce_lr=None,
        train_epochs=arguments.epochs,
        train_steps_per_epoch=arguments.steps,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name=arguments.output.name, basedir=str(arguments.output.parent))
    if arguments.start_from:
        model.keras_model.load_weights(str(arguments.start_from / "weights_best.h5"))
    model.prepare_for_training()

    def rate(epoch: int) -> float:
        return arguments.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / arguments.epochs))

    model.callbacks.append(keras.callbacks.LearningRateScheduler(rate))
    images, labels = zip(*train, strict=True)
    held_out = tuple(map(list, zip(*validation, strict=True)))
    model.train(
        list(images),
        list(labels),
        validation_data=held_out,
        augmenter=Augmenter(arguments.blurred, arguments.seed),
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps,
        seed=arguments.seed,
    )
    model.optimize_thresholds(*(each[::THRESHOLDS_FROM] for each in held_out), iou_threshs=[0.5, 0.7, 0.9])


if __name__ == "__main__":
    main()
