"""What ``compare`` compares: files that hold labels, or images in which nuclei are detected."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.console import follow
from napari_mpt_deblur.cli.detection import check_detector, detection_record, detection_settings, make_detector
from napari_mpt_deblur.errors import DeblurError, LabelsError, ParameterError
from napari_mpt_deblur.images import ImageView, read_image

if TYPE_CHECKING:
    import numpy as np

    from napari_mpt_deblur.detection import AnyDetector


@dataclass(frozen=True, eq=False)
class Side:
    """A file, and whether it holds labels."""

    path: str
    view: ImageView
    are_labels: bool


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The nuclei of a file.

    Attributes
    ----------
    labels : ndarray
    axes : str
        Of the labels.
    probabilities : mapping or None
        As the ledger takes them; None where they were not detected here.
    """

    labels: np.ndarray
    axes: str
    probabilities: Mapping[tuple[int, int], float] | None = None


class SideReader:
    """Reads the files of one comparison, and detects in its images: with one model, at one scale.

    Parameters
    ----------
    arguments : argparse.Namespace
        Those of the command.

    Attributes
    ----------
    pixel_size_um : float or None
        Of all files, as they lie on one grid: what the arguments say, or the first file that states it.
    record : dict or None
        What reproduces what was detected; None if nothing was.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._detector: AnyDetector | None = None
        self.pixel_size_um: float | None = arguments.pixel_size
        self.record: dict[str, Any] | None = None

    def open(self, path: str, *, kind: str | None) -> Side:
        """Open a file; nothing is detected yet.

        Parameters
        ----------
        path : str
        kind : {"labels", "images"} or None
            None: told by what it holds.

        Raises
        ------
        DeblurError
            If it cannot be read.
        """
        try:
            view = read_image(path, self._arguments.axes, pixel_size_um=self._arguments.pixel_size)
        except DeblurError as error:
            raise about(path, error) from error
        self.pixel_size_um = self.pixel_size_um or view.pixel_size_um
        return Side(path, view, _are_labels(view) if kind is None else kind == "labels")

    def nuclei(self, side: Side) -> Nuclei:
        """The labels of a file, or those detected in it.

        Raises
        ------
        DeblurError
            If it holds no labels, or nothing can be detected in it.
        """
        try:
            return _labels(side.view) if side.are_labels else self._detect(side)
        except ParameterError:  # the arguments are at fault, not the file
            raise
        except DeblurError as error:
            raise about(side.path, error) from error

    def _detect(self, side: Side) -> Nuclei:
        from napari_mpt_deblur.detection import detection_steps

        told = self._arguments.pixel_size
        if self._detector is None:
            detection_settings(self._arguments, told)  # sensible at all?
            check_detector(self._arguments)
            self._detector = make_detector(self._arguments)
        if self._detector.pixel_size_um is None:
            told = None  # it still counts for areas
        settings = detection_settings(self._arguments, told)
        view = replace(side.view, pixel_size_um=self.pixel_size_um)
        detected = follow(detection_steps(view, self._detector, settings), Path(side.path).name)
        self.record = detection_record(detected, self._detector, settings)
        return Nuclei(detected.labels, detected.axes, detected.probabilities)


def about(path: str, error: DeblurError) -> DeblurError:
    """The error with the file's name in its message."""
    message = str(error)
    return type(error)(message if path in message else f"{path}: {message}")


def _are_labels(view: ImageView) -> bool:
    from napari_mpt_deblur.detection.evidence import grey_levels
    from napari_mpt_deblur.detection.labels import looks_like_labels

    return not view.axes.has_samples and looks_like_labels(grey_levels(view, view.axes.text))


def _labels(view: ImageView) -> Nuclei:
    from napari_mpt_deblur.detection.evidence import grey_levels
    from napari_mpt_deblur.detection.labels import as_labels, check_no_mask

    if view.axes.has_samples:
        raise LabelsError("It is a colour image, not labels: save the labels as whole numbers in a TIFF.")
    labels = as_labels(grey_levels(view, view.axes.text))
    check_no_mask(labels)
    return Nuclei(labels, view.axes.text)
