"""Fixtures: model folders as StarDist writes them, and an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection.keras_files import write_folder


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a model folder: ``make_folder(grid=[1, 1], thresholds={"prob": 0.6, "nms": 0.3})``."""

    def make(name: str = "tiny", thresholds: Mapping[str, Any] | None = None, seed: int = 0, **changes: Any) -> Path:
        return write_folder(tmp_path / name, thresholds, seed, **changes)

    return make


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    return make_folder(thresholds={"prob": 0.6, "nms": 0.3})


@pytest.fixture
def image() -> np.ndarray:
    """(75, 61) smooth noise from 0 to 1."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(3).random((75, 61)), 2)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
