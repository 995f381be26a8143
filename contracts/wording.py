"""Wording of the sentences that describe events (`Event.describe`). Pure."""

import struct
from collections.abc import Sequence

MAX_LISTED = 8
"""Maximum number of tags or file names in one sentence; the rest are counted."""

_NO_RUNS, _WITH_RUNS = 12346, 12347
"""Cookies of the two serialised forms of a Roaring bitmap (https://github.com/RoaringBitmap/RoaringFormatSpec)."""


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


def image_count(images: bytes) -> str:
    number = _cardinality(images)
    return "some images" if number is None else count(number, "image")


def _cardinality(ordinals: bytes) -> int | None:
    """How many ordinals a serialised Roaring bitmap holds, from its header alone; None if it is not one.

    Not with pyroaring: only catalog and gateway have that dependency.
    """
    try:
        (cookie,) = struct.unpack_from("<I", ordinals)
        if cookie == _NO_RUNS:
            (containers,) = struct.unpack_from("<I", ordinals, 4)
            start = 8
        elif cookie & 0xFFFF == _WITH_RUNS:
            containers = (cookie >> 16) + 1
            start = 4 + (containers + 7) // 8  # one bit a container: is it a run?
        else:
            return None
        header = struct.unpack_from(f"<{2 * containers}H", ordinals, start)  # (key, cardinality - 1) of each container
    except struct.error:
        return None
    return int(sum(header[1::2]) + containers)
