"""Numbers in words, the same wherever they are said."""

from __future__ import annotations


def describe_seconds(seconds: float) -> str:
    """A duration for people: ``"about 40 s"``, ``"about 3 min"``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
