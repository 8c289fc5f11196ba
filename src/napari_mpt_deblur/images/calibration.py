"""Physical sizes in a TIFF's metadata, whichever program wrote them, in OME's terms."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

import tifffile

_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "inch": 25400.0, "in": 25400.0}
_ALIASES = {"um": "µm", "μm": "µm", "micron": "µm", "microns": "µm", "micrometer": "µm", "micrometre": "µm"}
_ALIASES |= {"\\u00b5m": "µm", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}
_SECONDS = {
    "s": 1.0,
    "ms": 1e-3,
    "µs": 1e-6,
    "μs": 1e-6,
    "us": 1e-6,
    "ns": 1e-9,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_MICROSCOPE_UM = (0.001, 20.0)  # a resolution tag outside it is a printer's, such as 72 dots an inch


def read_calibration(tif: tifffile.TiffFile) -> dict[str, Any]:
    """Physical sizes and channel names of the first image.

    Parameters
    ----------
    tif : tifffile.TiffFile

    Returns
    -------
    dict
        Of ``PhysicalSizeX``, ``PhysicalSizeY``, ``PhysicalSizeZ`` (micrometres), ``TimeIncrement`` (seconds) and
        ``Channel`` (``{"Name": [...]}``), what the file states; nothing where its metadata is damaged.
    """
    with suppress(Exception):  # metadata of any origin: none is worth failing for
        if tif.is_ome:
            return _from_ome(tif)
        if tif.is_imagej:
            return _from_imagej(tif)
        if tif.is_lsm:
            return _from_lsm(tif)
        if tif.is_shaped and tif.shaped_metadata and "PhysicalSizeX" in tif.shaped_metadata[0]:
            return _from_shaped(tif.shaped_metadata[0])
        return _from_resolution(tif)
    return {}


def to_um(value: float, unit: str | None) -> float | None:
    """A length in micrometres; None where the unit is no length (such as "pixel") or the value no size."""
    unit = (unit or "µm").strip()
    factor = _UM.get(_ALIASES.get(unit.lower(), unit))
    if factor is None or not 0 < value * factor < math.inf:
        return None
    return float(f"{value * factor:.9g}")  # 65 nm is 0.065, not 0.06500000000000001


def _to_seconds(value: Any, unit: str | None) -> float | None:
    factor = _SECONDS.get((unit or "s").strip())
    return None if factor is None else float(f"{float(value) * factor:.9g}")


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    names = ("PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ", "TimeIncrement", "Channel")
    return {name: values[name] for name in names if values.get(name)}


def _from_ome(tif: tifffile.TiffFile) -> dict[str, Any]:
    root = ElementTree.fromstring(tif.ome_metadata or "")
    pixels = next(element for element in root.iter() if element.tag.endswith("Pixels"))
    found: dict[str, Any] = {}
    for name in ("PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ"):
        if name in pixels.attrib:
            found[name] = to_um(float(pixels.attrib[name]), pixels.attrib.get(f"{name}Unit"))
    if "TimeIncrement" in pixels.attrib:
        found["TimeIncrement"] = _to_seconds(pixels.attrib["TimeIncrement"], pixels.attrib.get("TimeIncrementUnit"))
    names = [element.attrib.get("Name") for element in pixels if element.tag.endswith("Channel")]
    if names and all(names):
        found["Channel"] = {"Name": names}
    return _kept(found)


def _from_shaped(values: dict[str, Any]) -> dict[str, Any]:
    """tifffile's own, and what this package writes where OME knows no such pixels."""
    found = dict(values)
    for name in [name for name in values if name.startswith("PhysicalSize") and not name.endswith("Unit")]:
        found[name] = to_um(float(values[name]), values.get(f"{name}Unit"))
    if "TimeIncrement" in values:
        found["TimeIncrement"] = _to_seconds(values["TimeIncrement"], values.get("TimeIncrementUnit"))
    return _kept(found)


def _from_imagej(tif: tifffile.TiffFile) -> dict[str, Any]:
    metadata = tif.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    found: dict[str, Any] = {}
    for axis in "XY":
        per_unit = _resolution(tif, f"{axis}Resolution")
        if per_unit and unit:
            found[f"PhysicalSize{axis}"] = to_um(1 / per_unit, unit)
    if "spacing" in metadata and unit:
        found["PhysicalSizeZ"] = to_um(abs(float(metadata["spacing"])), unit)
    if float(metadata.get("finterval", 0)) > 0:
        found["TimeIncrement"] = float(metadata["finterval"])
    return _kept(found)


def _from_lsm(tif: tifffile.TiffFile) -> dict[str, Any]:
    metadata = tif.lsm_metadata or {}
    return _kept({f"PhysicalSize{axis}": to_um(float(metadata[f"VoxelSize{axis}"]), "m") for axis in "XYZ"})


def _from_resolution(tif: tifffile.TiffFile) -> dict[str, Any]:
    unit = {2: "inch", 3: "cm"}.get(int(tif.pages.first.tags.valueof("ResolutionUnit", 1)))
    found = {}
    for axis in "XY":
        per_unit = _resolution(tif, f"{axis}Resolution")
        size = to_um(1 / per_unit, unit) if per_unit and unit else None
        if size is not None and _MICROSCOPE_UM[0] <= size <= _MICROSCOPE_UM[1]:
            found[f"PhysicalSize{axis}"] = size
    return _kept(found)


def _resolution(tif: tifffile.TiffFile, tag: str) -> float | None:
    value = tif.pages.first.tags.valueof(tag)
    if not value or not value[1] or not value[0]:
        return None
    return float(value[0]) / float(value[1])
