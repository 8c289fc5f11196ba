"""The ledger of nuclei: what became of every nucleus from the blurred to the restored image, and what speaks for it."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from napari_mpt_deblur.detection.evidence import UNSUPPORTED_BELOW, measure_on_raw
from napari_mpt_deblur.detection.fates import FATES, Fate, Objects, Overlaps, matched_with, settle_fates
from napari_mpt_deblur.detection.labels import as_labels, as_planes, check_same_shape
from napari_mpt_deblur.errors import ImageError, ParameterError

Side = Literal["before", "after"]
Probabilities = Mapping[tuple[int, int], float]  # by number of the plane and label


@dataclass(frozen=True)
class Nucleus:
    """One nucleus of one of the two label images. What is not known is None.

    Attributes
    ----------
    image : {"before", "after"}
        Whose label it is.
    label : int
    plane : int
        Number of its plane, from 0, counted over all axes before Y and X, the last of them fastest.
    y, x : float
        Centroid in pixels.
    area_px : int
    area_um2 : float or None
    probability : float or None
        The detector's.
    fate : {"kept", "split", "merged", "lost", "gained"}
        See `napari_mpt_deblur.detection.fates.settle_fates`.
    unsupported : bool or None
        Whether it was gained without evidence in the raw image: `evidence` is below 3 standard errors. Not known
        without a raw image, and of one gained where the raw image has no surroundings to compare it with.
    partners : tuple of int
        Labels of the nuclei in the other image that it was kept as, split into or from, or merged with or from.
    iou : float
        The greatest intersection over union with any nucleus of the other image.
    right : bool or None
        Whether it matches a nucleus of the truth one-to-one at an intersection over union of at least 0.5.
    mean_intensity, total_intensity : float or None
        Measured on the raw image, background not subtracted.
    contrast : float or None
        Mean of the nucleus minus mean of its surroundings in the raw image, in units of the noise of a pixel.
    evidence : float or None
        The same in units of its own standard error; around 0 +- 1 where there is nothing.
    """

    image: Side
    label: int
    plane: int
    y: float
    x: float
    area_px: int
    area_um2: float | None
    probability: float | None
    fate: Fate
    unsupported: bool | None
    partners: tuple[int, ...]
    iou: float
    right: bool | None
    mean_intensity: float | None
    total_intensity: float | None
    contrast: float | None
    evidence: float | None


COLUMNS = tuple(field.name for field in fields(Nucleus))
_WORDS = {"unsupported": ("no", "yes"), "right": ("wrong", "right")}  # for False and True


@dataclass(frozen=True)
class Ledger:
    """Every nucleus before and after, in order of plane and label.

    Attributes
    ----------
    before, after : tuple of Nucleus
    has_raw : bool
        Whether there was a raw image to measure on.
    has_truth : bool
        Whether there was truth to judge by.
    """

    before: tuple[Nucleus, ...]
    after: tuple[Nucleus, ...]
    has_raw: bool
    has_truth: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `to_rows`."""
        return COLUMNS

    def totals(self) -> dict[str, dict[str, int | None]]:
        """How many nuclei of each fate there are, for JSON.

        Returns
        -------
        dict
            ``before`` and ``after``, each with the number of ``nuclei``, of each fate that it can have (they add up to
            that number), of ``right`` and ``wrong`` ones (None without truth); ``after`` also with the ``unsupported``
            ones among the gained (None without a raw image).
        """
        return {
            "before": self._totals(self.before, "gained"),
            "after": self._totals(self.after, "lost")
            | {"unsupported": sum(bool(entry.unsupported) for entry in self.after) if self.has_raw else None},
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict a nucleus, by column; those before come first."""
        return [dict(vars(entry)) for entry in (*self.before, *self.after)]

    def to_csv(self) -> str:
        """The rows as CSV with a header: unknown is empty, partners are separated by spaces."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.to_rows():
            writer.writerow([_cell(name, value) for name, value in row.items()])
        return text.getvalue()

    def features(self, image: Side) -> dict[str, np.ndarray]:
        """The nuclei of an image as arrays of one length, for the features table of a napari labels layer.

        Parameters
        ----------
        image : {"before", "after"}

        Returns
        -------
        dict of ndarray
            ``index`` holds the label, by which napari finds the row (where planes share labels there is a row for each,
            and napari shows the last); then the columns but for ``image`` and ``label``. Numbers that are not known are
            NaN, words "".
        """
        entries = self.before if image == "before" else self.after
        table = {"index": np.array([entry.label for entry in entries], np.int64)}
        for name in COLUMNS[2:]:
            values = [getattr(entry, name) for entry in entries]
            if name in ("plane", "area_px"):
                table[name] = np.array(values, np.int64)
            elif name in ("fate", "partners", *_WORDS):
                table[name] = np.array([_cell(name, value) for value in values], str)
            else:
                table[name] = np.array([math.nan if value is None else value for value in values], np.float64)
        return table

    def _totals(self, entries: tuple[Nucleus, ...], impossible: Fate) -> dict[str, int | None]:
        count = Counter(entry.fate for entry in entries)
        right = sum(bool(entry.right) for entry in entries) if self.has_truth else None
        wrong = len(entries) - right if right is not None else None
        totals: dict[str, int | None] = {"nuclei": len(entries)}
        totals |= {fate: count[fate] for fate in FATES if fate != impossible}
        return totals | {"right": right, "wrong": wrong}


def ledger(
    before: Any,
    after: Any,
    raw: Any = None,
    *,
    truth: Any = None,
    probabilities: tuple[Probabilities | None, Probabilities | None] | None = None,
    pixel_size_um: float | None = None,
) -> Ledger:
    """Match every nucleus before with those after, class it, and measure it on the raw image.

    Parameters
    ----------
    before, after : array_like
        Label images of one shape, (..., Y, X), 0 for background; matched plane by plane. A label that occurs in several
        planes is a nucleus in each.
    raw : array_like, optional
        Grey levels as recorded, of the same shape; without it intensities, contrast and evidence are None.
    truth : array_like, optional
        Labels of the true nuclei, of the same shape; without it `Nucleus.right` is None.
    probabilities : pair of mappings of (plane, label) to probability, optional
        The detector's for the nuclei before and after, by number of the plane as in `Nucleus.plane` and label; either
        may be None.
    pixel_size_um : float, optional
        Width of a pixel in micrometres.

    Returns
    -------
    Ledger
        Of every nucleus one entry with one fate; `napari_mpt_deblur.detection.fates.settle_fates` defines the fates.

    Raises
    ------
    LabelsError
        If one is no label image, or the shapes differ.
    ImageError
        If the raw image is not one of grey levels.
    ParameterError
        If the pixel size is not above 0.
    """
    if pixel_size_um is not None and not 0 < pixel_size_um < math.inf:
        raise ParameterError(f"pixel_size_um must be a number above 0; got {pixel_size_um!r}.")
    before, after = as_labels(before, "labels before"), as_labels(after, "labels after")
    check_same_shape(before, after, ("labels before", "labels after"))
    objects = Objects.of(as_planes(before)), Objects.of(as_planes(after))
    overlaps = Overlaps.between(*objects)
    fates = settle_fates(*objects, overlaps)
    true_objects = None
    if truth is not None:
        truth = as_labels(truth, "truth")
        check_same_shape(truth, before, ("truth", "labels"))
        true_objects = Objects.of(as_planes(truth))
    raw_planes = None if raw is None else as_planes(_as_raw(raw, before))
    links, pair = fates.links, probabilities or (None, None)
    lists = []
    for side, fate, own, other, overlap_side in (
        ("before", fates.before, 0, 1, overlaps.first),
        ("after", fates.after, 1, 0, overlaps.second),
    ):
        columns: dict[str, Any] = _describe(objects[own], pixel_size_um)
        columns |= _measure(objects[own], raw_planes)
        count = objects[own].count
        columns["image"] = [side] * count
        columns["fate"] = fate.tolist()
        columns["iou"] = overlaps.best_iou(count, overlap_side).tolist()
        columns["partners"] = _partners(links[:, own], objects[other].label[links[:, other]], count)
        columns["probability"] = _probabilities(objects[own], pair[own])
        columns["right"] = [None] * count if true_objects is None else matched_with(objects[own], true_objects).tolist()
        columns["unsupported"] = [
            None if raw is None else _is_unsupported(name, value)
            for name, value in zip(columns["fate"], columns["evidence"], strict=True)
        ]
        lists.append(tuple(Nucleus(*row) for row in zip(*(columns[name] for name in COLUMNS), strict=True)))
    return Ledger(lists[0], lists[1], has_raw=raw is not None, has_truth=truth is not None)


def _is_unsupported(fate: Fate, evidence: float | None) -> bool | None:
    if fate != "gained":
        return False
    return None if evidence is None else evidence < UNSUPPORTED_BELOW


def _as_raw(raw: Any, labels: np.ndarray) -> np.ndarray:
    raw = np.asarray(raw)
    if raw.dtype.kind not in "iuf":
        raise ImageError(f"The raw image is of type {raw.dtype}: give its grey levels as integers or floats.")
    check_same_shape(raw, labels, ("raw image", "labels"))
    return raw


def _describe(objects: Objects, pixel_size_um: float | None) -> dict[str, list[Any]]:
    index = np.flatnonzero(objects.ids)
    _, y, x = np.unravel_index(index, objects.ids.shape)
    which = objects.ids.ravel()[index] - 1
    area = objects.area_px
    return {
        "label": objects.label.tolist(),
        "plane": objects.plane.tolist(),
        "y": (np.bincount(which, weights=y, minlength=objects.count) / area).tolist(),
        "x": (np.bincount(which, weights=x, minlength=objects.count) / area).tolist(),
        "area_px": area.tolist(),
        "area_um2": [None] * objects.count if pixel_size_um is None else (area * pixel_size_um**2).tolist(),
    }


def _measure(objects: Objects, raw: np.ndarray | None) -> dict[str, list[float | None]]:
    names = {"mean_intensity": "mean", "total_intensity": "total", "contrast": "contrast", "evidence": "evidence"}
    if raw is None:
        return {name: [None] * objects.count for name in names}
    measures = measure_on_raw(objects, raw)
    columns = {name: getattr(measures, measure).tolist() for name, measure in names.items()}
    return {name: [value if math.isfinite(value) else None for value in values] for name, values in columns.items()}


def _partners(own: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[int, ...]]:
    partners: list[tuple[int, ...]] = [()] * count
    for number, label in zip(own.tolist(), labels.tolist(), strict=True):
        partners[number] = (*partners[number], label)
    return partners


def _probabilities(objects: Objects, known: Probabilities | None) -> list[float | None]:
    keys = zip(objects.plane.tolist(), objects.label.tolist(), strict=True)
    values = [None if known is None else known.get(key) for key in keys]
    return [None if value is None else float(value) for value in values]


def _cell(name: str, value: Any) -> Any:
    """As CSV and features tables show it; what they show as numbers stays."""
    if value is None:
        return ""
    if name == "partners":
        return " ".join(map(str, value))
    return _WORDS[name][value] if name in _WORDS else value
