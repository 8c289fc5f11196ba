"""The sample focus stack that the viewer, the demo and the tests share."""

from napari_mpt_deblur.optics.stack import sample_focus_stack

__all__ = ["sample_focus_stack"]
