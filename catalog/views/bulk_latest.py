"""Of each tag and image the latest edit of many images that counts, ready: no history is read to know it.

It is kept by tag, and by image: where an edit holds for many images of 1,024 once for these, else for each image. So
what is read for an image follows what it shows, and what an edit writes follows the number of its images.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.edits import Edit, Place, only_tags
from catalog.rows import json_array
from catalog.views.batch import CommitBatch, DeleteRows
from catalog.views.bitmaps import serialize, to_array

TABLES = """
CREATE TABLE IF NOT EXISTS bulk_latest (
    dataset_id TEXT NOT NULL,
    tag_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, tag_id, sequence, event_index)
);
CREATE TABLE IF NOT EXISTS bulk_latest_of_images (
    dataset_id TEXT NOT NULL,
    span INTEGER NOT NULL,
    first INTEGER NOT NULL,
    tag_id INTEGER NOT NULL,
    edits BLOB NOT NULL,
    PRIMARY KEY (dataset_id, span, first, tag_id)
) WITHOUT ROWID;
"""

OF_TAG = "SELECT sequence, event_index, images FROM bulk_latest WHERE dataset_id = ? AND tag_id = ?"
SAVE = "INSERT INTO bulk_latest VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET images = excluded.images"
DELETE = "DELETE FROM bulk_latest WHERE dataset_id = ? AND tag_id = ? AND sequence = ? AND event_index = ?"
OF_SPANS = """
SELECT first, tag_id, edits FROM bulk_latest_of_images
WHERE dataset_id = ? AND span = ? AND first IN (SELECT value FROM json_each(?))
"""
SAVE_SPAN = """
INSERT INTO bulk_latest_of_images VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET edits = excluded.edits
"""
DELETE_SPAN = "DELETE FROM bulk_latest_of_images WHERE (dataset_id, span, first, tag_id) = (?, ?, ?, ?)"
PART = 1024
"""Images that an edit is kept once for, by consecutive ordinals from a multiple of this on."""
MANY = 32
"""An edit that holds for fewer images of a part is kept with each of them."""
PLACE = Struct("<qi")
"""All that is kept of an edit that is kept with one image."""
OF_PART = np.dtype([("sequence", "<i8"), ("index", "<i4"), ("bits", "u1", PART // 8)])
"""What is kept of one for a part: a bit for each image, the first of them in the highest bit."""

Rows = tuple[tuple[int, Place], ...]
"""Of one image, tags with the place of the latest edit of each."""
Latest = Mapping[Place, BitMap]
"""Of one tag, the images for which each edit is the latest: no image is in two of the sets, none is empty."""


def of_tag(connection: Connection, dataset_id: str, tag: int) -> dict[Place, BitMap]:
    rows = connection.execute(OF_TAG, (dataset_id, tag))
    return {(sequence, index): BitMap.deserialize(images) for sequence, index, images in rows}


def add(connection: Connection, dataset_id: str, edit: Edit, images: BitMap) -> None:
    """An edit that is newer than all others."""
    for tag in edit.tags:
        before = of_tag(connection, dataset_id, tag)
        _save(connection, dataset_id, tag, before, _decided(before, images, [(edit, images)]))


def decide_again(
    connection: Connection, dataset_id: str, tag: int, images: BitMap, newer: Iterable[tuple[Edit, BitMap]]
) -> None:
    """After an undo, for the images that it concerns. `newer`: the edits about the tag that count, the newest first."""
    before = of_tag(connection, dataset_id, tag)
    _save(connection, dataset_id, tag, before, _decided(before, images, newer))


def delete(batch: CommitBatch, dataset_id: str) -> None:
    """Everything of a data set."""
    batch.steps.append(DeleteRows(dataset_id=dataset_id, tables=("bulk_latest",), column="tag_id"))
    batch.steps.append(DeleteRows(dataset_id=dataset_id, tables=("bulk_latest_of_images",), column="first"))


def _decided(before: Latest, images: BitMap, newer: Iterable[tuple[Edit, BitMap]]) -> Latest:
    """What is the latest after it was found anew for these images, from edits with their images, the newest first."""
    after = {place: rest for place, some in before.items() if (rest := some - images)}
    left = images
    for edit, edited in newer:
        if holds := left & edited:
            after[edit.place] = after.get(edit.place, BitMap()) | holds
            left = left - holds
        if not left:
            break
    return after


def _save(connection: Connection, dataset_id: str, tag: int, before: Latest, after: Latest) -> None:
    changed = [
        (place, was, now)
        for place in {**before, **after}
        if (was := before.get(place, BitMap())) != (now := after.get(place, BitMap()))
    ]
    saved = [(dataset_id, tag, *place, serialize(now)) for place, _, now in changed if now]
    connection.executemany(SAVE, saved)
    connection.executemany(DELETE, [(dataset_id, tag, *place) for place, _, now in changed if not now])
    parts = _parts_of(BitMap.union(BitMap(), *(was ^ now for _, was, now in changed)))
    spans_before, spans = _spans(before, parts), _spans(after, parts)
    gone = [(dataset_id, *span, tag) for span in spans_before.keys() - spans.keys()]
    connection.executemany(DELETE_SPAN, gone)
    new = [(dataset_id, *span, tag, kept) for span, kept in spans.items() if spans_before.get(span) != kept]
    connection.executemany(SAVE_SPAN, new)


def _parts_of(images: BitMap) -> NDArray[np.uint32]:
    """Ascending, each once."""
    parts = to_array(images) // PART
    return parts[np.append(True, parts[1:] != parts[:-1])] if len(parts) else parts


def _spans(latest: Latest, parts: NDArray[np.uint32]) -> dict[tuple[int, int], bytes]:
    """How edits are kept in these parts, by number and first of the images."""
    found: defaultdict[tuple[int, int], bytes] = defaultdict(bytes)
    starts = (parts * PART).tolist()
    window = BitMap.union(BitMap(), *(BitMap(range(start, start + PART)) for start in starts))
    for place in sorted(latest):
        images = to_array(latest[place] & window)
        if len(images):
            bits = np.zeros((int(parts[-1] - parts[0]) + 1, PART), dtype=np.bool_)
            bits.ravel()[images - starts[0]] = True
            bits = bits[parts - parts[0]]
            is_part, packed, kept = bits.sum(axis=1) >= MANY, np.packbits(bits, axis=1), PLACE.pack(*place)
            for at in np.flatnonzero(is_part).tolist():
                found[PART, starts[at]] += kept + packed[at].tobytes()
            for at in np.flatnonzero(~is_part & bits.any(axis=1)).tolist():
                found |= {(1, starts[at] + place_in): kept for place_in in np.flatnonzero(bits[at]).tolist()}
    return found


def cut(rows: Mapping[int, Rows], edits: Mapping[Place, Edit]) -> dict[int, list[Edit]]:
    """By image the edits, oldest first, each cut down to the tags of which it is the latest. `edits`: those named."""
    found: dict[Rows, list[Edit]] = {}
    for some in rows.values():
        if some not in found:
            found[some] = _cut(some, edits)
    return {ordinal: found[some] for ordinal, some in rows.items()}


def _cut(rows: Rows, edits: Mapping[Place, Edit]) -> list[Edit]:
    tags: defaultdict[Place, set[int]] = defaultdict(set)
    for tag, place in rows:
        tags[place].add(tag)
    return [only_tags(edits[place], tags[place]) for place in sorted(tags)]


def of_images(connection: Connection, dataset_id: str, page: BitMap) -> dict[int, Rows]:
    """By ordinal; images that have none are left out."""
    of_part: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
    starts = sorted({ordinal // PART * PART for ordinal in page})
    for first, tag, kept in connection.execute(OF_SPANS, (dataset_id, PART, json_array(starts))):
        of_part[first].append((tag, kept))
    found: dict[int, Rows] = {}
    for first, rows in of_part.items():
        found |= _rows_by_image(rows, first, page)
    for ordinal, tag, kept in connection.execute(OF_SPANS, (dataset_id, 1, json_array(page))):
        sequence, index = PLACE.unpack(kept)
        found[ordinal] = (*found.get(ordinal, ()), (tag, (sequence, index)))
    return found


def _rows_by_image(kept: Sequence[tuple[int, bytes]], first: int, page: BitMap) -> dict[int, Rows]:
    """Of one part, from what is kept of each tag. Images that are in the same edits share the result."""
    ordinals = to_array(page & BitMap(range(first, first + PART)))
    at = ordinals - np.uint32(first)
    edits = np.frombuffer(b"".join(some for _, some in kept), dtype=OF_PART)
    tags = [tag for tag, some in kept for _ in range(len(some) // OF_PART.itemsize)]
    rows = list(zip(tags, zip(edits["sequence"].tolist(), edits["index"].tolist(), strict=True), strict=True))
    is_in = (edits["bits"][:, at >> 3] >> (7 - (at & 7)).astype(np.uint8) & 1).T
    same: dict[bytes, Rows] = {}
    for of_image in is_in:
        if (key := of_image.tobytes()) not in same:
            same[key] = tuple(rows[row] for row in np.flatnonzero(of_image).tolist())
    shared = (same[of_image.tobytes()] for of_image in is_in)
    return {ordinal: some for ordinal, some in zip(ordinals.tolist(), shared, strict=True) if some}
