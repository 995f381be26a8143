"""Kohya's metadata, as `meta_cap.json` and `meta_lat.json`: path → caption and tags. Pure.

sd-scripts, `finetune/merge_captions_to_metadata.py`: a key is a whole path, or a file name without extension.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

import msgspec

from loratory.folders.places import Pictures
from loratory.folders.texts import Texts, from_fields

MAX_METADATA_BYTES = 128 << 20
MAX_NAMED_KEYS = 20


class Entry(msgspec.Struct, frozen=True):
    """Of one image. Other fields, as its size in training, are not of the image."""

    caption: object = None
    tags: object = None


def parse_metadata(content: bytes) -> dict[str, Entry] | None:
    """None: it is another JSON file. ValueError: it is no JSON."""
    try:
        entries = msgspec.json.decode(content, type=dict[str, Entry])
    except msgspec.ValidationError:
        return None
    if not any(entry.caption is not None or entry.tags is not None for entry in entries.values()):
        return None
    return entries


def match_entries(
    entries: dict[str, Entry], pictures: Pictures, folder: PurePosixPath, notes: list[str]
) -> Iterator[tuple[PurePosixPath, Texts]]:
    """The texts of these pictures; sentences about entries of which it is not known whose they are."""
    missing = 0
    for key, entry in entries.items():
        found = pictures.find(key, folder)
        if len(found) == 1:
            yield found[0], from_fields(caption=entry.caption, tags=entry.tags)
        elif (missing := missing + 1) <= MAX_NAMED_KEYS:
            notes.append(f"{key!r} {'may be one of several images' if found else 'is no image here'}")
    if missing > MAX_NAMED_KEYS:
        notes.append(f"{missing - MAX_NAMED_KEYS} more entries are of no image here, or of several")
