"""One family of errors: each message says what is wrong and what to do about it.

Every class also subclasses the builtin that a caller would expect, so that library users can catch ``ValueError`` or
``OSError`` without knowing this package. None is a ``RuntimeError``: superqt's generator worker swallows those.
"""

from __future__ import annotations


class DeblurError(Exception):
    """Base of every error that a user can cause or mend; its message is one line and names the remedy."""


class AxesError(DeblurError, ValueError):
    """The axes do not describe the array."""


class ImageError(DeblurError, ValueError):
    """The array holds something that cannot be restored (its type, shape or values)."""


class ParameterError(DeblurError, ValueError):
    """A parameter is outside what it accepts."""


class FileError(DeblurError, OSError):
    """A file or folder cannot be read or written."""


class ModelError(DeblurError, ValueError):
    """A model is unknown, damaged, unsafe or does not fit the image."""


class DeviceError(DeblurError, ValueError):
    """The device asked for is not present, or cannot do what was asked."""


class OutOfMemoryError(DeblurError, MemoryError):
    """The computation does not fit the device's memory, even at the smallest tile."""


class TrainingError(DeblurError, ValueError):
    """A training run cannot start or go on."""


class DivergedError(TrainingError):
    """The loss of a training run is no number any more.

    Attributes
    ----------
    kept : Finished or None
        What was learnt before that, with its figures; None where there is nothing.
    """

    kept: object | None = None


class LabelsError(DeblurError, ValueError):
    """An array does not number objects, or does not belong to the one it is compared with."""
