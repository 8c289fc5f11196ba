"""Numbers and records in words."""

from __future__ import annotations

from typing import Any


def describe_seconds(seconds: float) -> str:
    """A duration for people: ``"about 40 s"``, ``"about 3 min"``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def summary(record: dict[str, Any]) -> str:
    """What the user should know about a finished run: the device used, and what had to be given up."""
    done = f"Done in {record['seconds']:.1f} s on {record['device']} ({record['precision']})."
    return " ".join([done, *record["notes"]])
