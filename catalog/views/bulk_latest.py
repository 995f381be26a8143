"""Of each tag and image the latest edit of many images that counts, ready: no history is read to know it.

It is kept by tag, and by image: where an edit holds for many images of 1,024 once for these, else for each image. So
what is read for an image follows what it shows, and what an edit writes follows the number of its images.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

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
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, span, first, tag_id, sequence, event_index)
) WITHOUT ROWID;
"""

OF_TAG = "SELECT sequence, event_index, images FROM bulk_latest WHERE dataset_id = ? AND tag_id = ?"
SAVE = "INSERT INTO bulk_latest VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET images = excluded.images"
DELETE = "DELETE FROM bulk_latest WHERE dataset_id = ? AND tag_id = ? AND sequence = ? AND event_index = ?"
OF_SPANS = """
SELECT first, tag_id, sequence, event_index, images FROM bulk_latest_of_images
WHERE dataset_id = ? AND span = ? AND first IN (SELECT value FROM json_each(?))
"""
SAVE_SPAN = """
INSERT INTO bulk_latest_of_images VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET images = excluded.images
"""
DELETE_SPAN = """
DELETE FROM bulk_latest_of_images
WHERE (dataset_id, span, first, tag_id, sequence, event_index) = (?, ?, ?, ?, ?, ?)
"""
PART = 1024
"""Images that an edit is kept once for, by consecutive ordinals from a multiple of this on."""
MANY = 32
"""An edit that holds for fewer images of a part is kept with each of them."""
NO_IMAGES = b""
"""Kept of an edit that is kept with one image; of a part a bit for each image, the first of them in the highest bit."""

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
    saved, deleted = [], []
    saved_spans, deleted_spans = [], []
    for place in {**before, **after}:
        was, now = before.get(place, BitMap()), after.get(place, BitMap())
        if was == now:
            continue
        if now:
            saved.append((dataset_id, tag, *place, serialize(now)))
        else:
            deleted.append((dataset_id, tag, *place))
        parts = _parts_of(was ^ now)
        spans_before, spans = _spans(was, parts), _spans(now, parts)
        for span, images in spans.items():
            if spans_before.pop(span, None) != images:
                saved_spans.append((dataset_id, *span, tag, *place, images))
        deleted_spans += [(dataset_id, *span, tag, *place) for span in spans_before]
    connection.executemany(SAVE, saved)
    connection.executemany(DELETE, deleted)
    connection.executemany(DELETE_SPAN, deleted_spans)
    connection.executemany(SAVE_SPAN, saved_spans)


def _parts_of(images: BitMap) -> NDArray[np.uint32]:
    return np.unique(to_array(images) // PART)


def _spans(images: BitMap, parts: NDArray[np.uint32]) -> dict[tuple[int, int], bytes]:
    """How images in these parts are kept: which of so many consecutive ones, by the number and the first of them."""
    ordinals = to_array(images)
    among = ordinals[np.isin(ordinals // PART, parts)]
    bits = np.zeros((len(parts), PART), dtype=np.bool_)
    bits[np.searchsorted(parts, among // PART), among % PART] = True
    is_part = bits.sum(axis=1) >= MANY
    packed = np.packbits(bits[is_part], axis=1)
    found = {(PART, part * PART): row.tobytes() for part, row in zip(parts[is_part].tolist(), packed, strict=True)}
    single = among[~is_part[np.searchsorted(parts, among // PART)]]
    return found | {(1, ordinal): NO_IMAGES for ordinal in single.tolist()}


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
    of_part: defaultdict[int, list[tuple[int, Place, bytes]]] = defaultdict(list)
    starts = (_parts_of(page) * PART).tolist()
    for first, tag, *place, bits in connection.execute(OF_SPANS, (dataset_id, PART, json_array(starts))):
        of_part[first].append((tag, (place[0], place[1]), bits))
    found: dict[int, Rows] = {}
    for first, rows in of_part.items():
        found |= _rows_by_image(rows, first, page)
    for ordinal, tag, *place, _ in connection.execute(OF_SPANS, (dataset_id, 1, json_array(page))):
        found[ordinal] = (*found.get(ordinal, ()), (tag, (place[0], place[1])))
    return found


def _rows_by_image(rows: Sequence[tuple[int, Place, bytes]], first: int, page: BitMap) -> dict[int, Rows]:
    """Of one part. Images that are in the same rows share the result."""
    ordinals = to_array(page & BitMap(range(first, first + PART)))
    at = ordinals - np.uint32(first)
    octets = np.frombuffer(b"".join(bits for _, _, bits in rows), dtype=np.uint8).reshape(len(rows), -1)
    is_in = (octets[:, at >> 3] >> (7 - (at & 7)).astype(np.uint8) & 1).T
    same: dict[bytes, Rows] = {}
    for of_image in is_in:
        if (key := of_image.tobytes()) not in same:
            same[key] = tuple(rows[row][:2] for row in np.flatnonzero(of_image).tolist())
    shared = (same[of_image.tobytes()] for of_image in is_in)
    return {ordinal: some for ordinal, some in zip(ordinals.tolist(), shared, strict=True) if some}
