"""Importing the package, its command line or anything that the napari manifest names does not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_mpt_deblur

HEAVY = ("torch", "stardist", "numba", "dask", "zarr")


def manifest_targets() -> list[str]:
    manifest = PluginManifest.from_file(Path(napari_mpt_deblur.__file__).parent / "napari.yaml")
    return [str(command.python_name) for command in manifest.contributions.commands or ()]


def command_line_targets() -> list[str]:
    return [script.value for script in entry_points(group="console_scripts") if script.name == "mpt-deblur"]


def heavy_modules_after(statement: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after a statement."""
    report = f"{statement}\nimport sys\nprint(*(set(sys.modules) & set({HEAVY})))"
    result = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_check_sees_torch() -> None:
    assert "torch" in heavy_modules_after("import napari_mpt_deblur.networks.mpt")


def test_package_is_light() -> None:
    assert not heavy_modules_after("import napari_mpt_deblur")


@pytest.mark.parametrize("target", [*manifest_targets(), *command_line_targets()])
def test_target_is_light(target: str) -> None:
    module, _, name = target.partition(":")
    assert not heavy_modules_after(f"from {module} import {name}")


def test_a_training_is_asked_for_without_torch() -> None:
    rooms = ("config", "events", "folders", "request")
    assert not heavy_modules_after("; ".join(f"import napari_mpt_deblur.training.{room}" for room in rooms))


def test_manifest_and_command_line_name_something() -> None:
    assert manifest_targets()
    assert command_line_targets()
