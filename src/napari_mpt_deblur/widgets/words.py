"""Numbers and records in words."""

from __future__ import annotations

from typing import Any


def summary(record: dict[str, Any]) -> str:
    """What the user should know about a finished run: model and device used, and what had to be given up."""
    model = record["model"]
    done = (
        f"Done in {record['seconds']:.1f} s on {record['device']} ({record['precision']}), "
        f"model {model['name']} ({model['sha256'][:8]})."
    )
    return " ".join([done, *record["notes"]])
