"""Numbers and records in words."""

from __future__ import annotations

from typing import Any


def summary(record: dict[str, Any]) -> str:
    """What the user should know about a finished run: the device used, and what had to be given up."""
    done = f"Done in {record['seconds']:.1f} s on {record['device']} ({record['precision']})."
    return " ".join([done, *record["notes"]])
