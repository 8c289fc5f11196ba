"""The result as a layer like its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_mpt_deblur.widgets.deblur.request import DeblurRequest
from napari_mpt_deblur.widgets.geometry import place

if TYPE_CHECKING:
    from napari.layers import Image

METADATA_KEY = "mpt_deblur"


class _Restored(Protocol):
    """An array and the record of how it came about."""

    @property
    def array(self) -> Any: ...

    @property
    def record(self) -> dict[str, Any]: ...


def result_layer(source: Image, restored: _Restored, request: DeblurRequest, name: str) -> Image:
    """A layer of the restored pixels that looks like its source and lies where its pixels were.

    Parameters
    ----------
    source : Image
        Not changed.
    restored : Restored
        Or anything with `array` and `record`.
    request : DeblurRequest
        What was restored; a part of the layer keeps the layer's number of dimensions.
    name : str

    Returns
    -------
    Image
        With the source's transforms, units, axis labels, colormap, blending, gamma, rendering and contrast limits,
        and the record of the run in ``metadata["mpt_deblur"]``.
    """
    from napari.layers import Layer

    _, state, kind = source.as_layer_data_tuple()
    for key in ("locked_data_level", "experimental_clipping_planes"):
        state.pop(key, None)  # of pyramids, and in the source's own pixels
    state |= {
        "name": name,
        "translate": place(source, request.offset_px),
        "multiscale": False,
        "visible": True,
        "auto_contrast": False,  # else napari would set limits of its own, and the two would not compare
        "metadata": {METADATA_KEY: {"source": request.source_name, **restored.record}},
    }
    layer: Image = Layer.create(np.asarray(restored.array).reshape(request.shape), state, kind)
    layer.contrast_limits_range = source.contrast_limits_range
    layer.contrast_limits = source.contrast_limits
    return layer
