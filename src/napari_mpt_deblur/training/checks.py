"""Checks that the configurations of a training run share; each names what is wrong. No torch."""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Real
from typing import Any, TypeVar

from napari_mpt_deblur.errors import TrainingError

Config = TypeVar("Config")


def whole(value: Any, name: str, least: int) -> int:
    """The value, a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TrainingError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return value


def number(value: Any, name: str, least: float = -math.inf) -> float:
    """The value, finite and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise TrainingError(f"{name} must be a finite number; got {value!r}.")
    if value < least:
        raise TrainingError(f"{name} must be at least {least:g}; got {value!r}.")
    return float(value)


def sequence(value: Any) -> tuple[Any, ...]:
    """The values, as a tuple; one that stands alone is the only one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def share(value: Any, name: str) -> float:
    """The value, between 0 and 1."""
    if not 0 <= number(value, name) <= 1:
        raise TrainingError(f"{name} is a share between 0 and 1; got {value}.")
    return float(value)


def one_of(value: Any, name: str, choices: tuple[str, ...]) -> None:
    """The value is one of these words."""
    if value not in choices:
        raise TrainingError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}; got {value!r}.")


def build(kind: type[Config], values: Any) -> Config:
    """A frozen configuration from a table; a name that it does not have is refused."""
    if not isinstance(values, dict):
        raise TrainingError(f"The training configuration needs a table of names and values, not {str(values)[:40]!r}.")
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise TrainingError(f"Unknown setting {unknown[0]!r} in the training configuration; known: {', '.join(known)}.")
    return kind(**values)
