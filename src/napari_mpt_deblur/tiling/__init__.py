"""Which tiles of a plane to read, and how to blend them back: numpy only."""

from napari_mpt_deblur.tiling.blend import Blender
from napari_mpt_deblur.tiling.plan import Region, Tile, TilePlan

__all__ = ["Blender", "Region", "Tile", "TilePlan"]
