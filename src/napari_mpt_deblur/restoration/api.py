"""`deblur`: an array in, an array out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, load_model
from napari_mpt_deblur.checkpoints.loading import Model
from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images import ImageView
from napari_mpt_deblur.restoration.deblurrer import Deblurrer
from napari_mpt_deblur.restoration.outcomes import Progress, Restored


def deblur(
    image: Any,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    axes: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    tile: int | Sequence[int] | None = None,
    dtype: Any = None,
    pixel_size_um: float | None = None,
    nucleus_diameter_px: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> np.ndarray:
    """Bring an image or stack back into focus, plane by plane.

    Parameters
    ----------
    image : array_like
        Integers or floats; numpy, dask or zarr. Lazy arrays are read one plane at a time.
    model : str, Path or Model
        A name that ``mpt-deblur models`` lists, a file, or a loaded model.
    axes : str, optional
        Any of YX, ZYX, TYX, CYX, TZYX, CZYX, TCZYX, with S last for RGB; guessed by default.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: what the model was loaded with, or the faster one where it makes no visible difference.
    tile : int or sequence of int, optional
        Side of the tiles in pixels, or height and width; as memory allows by default.
    dtype : optional
        ``None`` or ``"input"`` for the image's own, or ``"float32"``.
    pixel_size_um : float, optional
        Width of a pixel. Kept with the image; it does not change the result, as the model knows a range of scales.
    nucleus_diameter_px : float, optional
        Diameter of typical nuclei. Where it is beyond what the model knows, the network works at a smaller scale.
    progress : callable, optional
        Called with a `Progress` after every batch of tiles.

    Returns
    -------
    ndarray
        Of the image's shape, and its dtype unless told otherwise.

    Raises
    ------
    DeblurError
        One of its kinds, with a message that says what to do.
    """
    if isinstance(model, (str, Path)):
        model = load_model(model, device=device)
    elif not isinstance(model, Model):
        raise ParameterError(f"model must be a name, a file or a loaded model; got {type(model).__name__}.")
    view = ImageView.of(image, axes, pixel_size_um=pixel_size_um, nucleus_diameter_px=nucleus_diameter_px)
    deblurrer = Deblurrer(model, device=device, precision=precision, tile_px=tile)
    with closing(deblurrer.run(view, dtype=dtype)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                restored: Restored = end.value
                return restored.array
            if progress is not None:
                progress(step)
