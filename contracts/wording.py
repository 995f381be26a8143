"""Wording of the sentences that describe events (`Event.describe`). Pure."""

from collections.abc import Sequence

MAX_LISTED = 8
"""Maximum number of tags or file names in one sentence; the rest are counted."""


def by_source(source: str, action: str) -> str:
    """The actor is shown beside the sentence; only an import is named in it."""
    return f"The import {action}" if source == "import" else action[0].upper() + action[1:]


def tag_list(tags: Sequence[str]) -> str:
    return f"tag{'' if len(tags) == 1 else 's'} {listed(tags)}" if tags else ""


def listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def enumerated(names: Sequence[str]) -> str:
    """`name, description and labels`."""
    *first, last = names or ["details"]
    return f"{', '.join(first)} and {last}" if first else last


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def size_of(size: int) -> str:
    """Bytes in decimal units, three digits: `12.3 MB`."""
    scaled, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if scaled < 1000:
            break
        scaled, unit = scaled / 1000, larger
    return f"{scaled:.3g} {unit}"
