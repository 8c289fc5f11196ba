"""The project's own files agree with each other and with the code."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from npe2 import PluginManifest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(number) for name, number in pairs}


def imported_packages() -> set[str]:
    """Top-level packages that the code imports, anywhere in a file."""
    names: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"napari_mpt_deblur"}


def test_tensorflow_is_imported_in_one_place_and_only_when_it_is_called() -> None:
    """Through `stardist.models`, for models that only StarDist itself can run."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(re.match(r"(tensorflow|keras|csbdeep|stardist\.models)\b", name) for name in names):
                found.append((path.name, node in tree.body))
    assert found == [("through_tensorflow.py", False)]


def test_every_import_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    optional = {"dask", "zarr"}  # recognised when the user's layer brings them; napari brings dask
    optional |= {"bioimageio", "spandrel", "spandrel_extra_arches"}  # extras of their own
    providers = packages_distributions()
    undeclared = {
        package
        for package in imported_packages() - optional
        if not declared & {canonicalize_name(name) for name in providers.get(package, [package])}
    }
    assert not undeclared


def test_every_declared_dependency_is_used() -> None:
    indirectly = {
        "imagecodecs",  # tifffile decodes with it
        "stardist",  # its sample image is read, without importing it
    }
    providers = packages_distributions()
    used = {canonicalize_name(name) for package in imported_packages() for name in providers.get(package, [])}
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert declared - indirectly <= used


@pytest.mark.parametrize(
    "line",
    [
        *PROJECT["dependencies"],
        *(line for extra in ("all", "bioimageio", "spandrel", "test") for line in EXTRAS[extra]),
        EXTRAS["spandrel-extra"][1],
    ],
)
def test_tested_version_is_within_the_bounds(line: str) -> None:
    requirement = Requirement(line)
    tested = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(tested)
    assert all(bound.operator == ">=" for bound in requirement.specifier), "lower bounds only"


def test_versions_agree() -> None:
    assert version("napari-mpt-deblur") == PROJECT["version"]
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_manifest_is_valid_and_its_targets_exist() -> None:
    manifest = PluginManifest.from_distribution("napari-mpt-deblur")
    manifest.validate_imports()
    assert manifest.contributions.widgets
    assert manifest.contributions.sample_data


def test_readme_names_the_scripts_that_ci_runs() -> None:

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in ("scripts/demo.sh", "scripts/test.sh"):
        assert script in readme
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} is not executable"
    assert "scripts/test.sh" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
