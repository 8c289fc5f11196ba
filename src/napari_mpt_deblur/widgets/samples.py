"""File > Open Sample."""

from __future__ import annotations

from typing import Any

import numpy as np


def out_of_focus_nuclei() -> list[tuple[Any, dict[str, Any], str]]:
    """A focus stack made from a real image of nuclei, with its truth.

    Returns
    -------
    list of layer data tuples
        The sharp image (Y, X), hidden, and the stack (Z, Y, X) above it.
    """
    from napari_mpt_deblur.optics.sample import sample_focus_stack

    sample = sample_focus_stack()
    pixel, step = sample.pixel_size_um, sample.z_step_um
    limits = tuple(float(level) for level in np.percentile(sample.sharp, (0.1, 99.5)))
    truth = {
        "name": "In focus (truth)",
        "scale": (pixel, pixel),
        "units": ("um", "um"),
        "axis_labels": ("y", "x"),
        "contrast_limits": limits,
        "visible": False,
    }
    stack = {
        "name": "Out-of-focus nuclei",
        "scale": (step, pixel, pixel),
        "translate": (min(sample.defocus_um), 0.0, 0.0),  # the slider reads the defocus
        "units": ("um", "um", "um"),
        "axis_labels": ("z", "y", "x"),
        "contrast_limits": limits,
        "metadata": {"defocus_um": sample.defocus_um, "pixel_size_um": pixel},
    }
    return [(sample.sharp, truth, "image"), (sample.stack, stack, "image")]
