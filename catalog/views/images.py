"""Images: metadata and captions; their tags are in `edits`, `predictions` and `tags`, their comings in `presence`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import Parameters, fetch, fetch_value, json_array
from catalog.views import sets
from catalog.views.batch import BULK, CommitBatch, delete_erased, is_bulk
from contracts.commits import RecordedCommit
from contracts.events.base import Event, Sealed
from contracts.events.datasets import CaptionSet, DatasetErased, ImageAdded, ImageErased, TagsEdited
from contracts.ids import DatasetId, Digest, ImageId

TABLES = """
CREATE TABLE IF NOT EXISTS image (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    picture TEXT NOT NULL,
    thumbnail TEXT NOT NULL,
    pixels TEXT NOT NULL,
    dhash TEXT NOT NULL,
    format TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    size INTEGER NOT NULL,
    name BLOB NOT NULL,
    animated INTEGER NOT NULL,
    caption BLOB,
    caption_source TEXT,
    caption_sequence INTEGER NOT NULL DEFAULT 0,
    removed_sequence INTEGER NOT NULL DEFAULT 0,
    added_sequence INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS image_by_id ON image (id);
CREATE INDEX IF NOT EXISTS image_by_pixels ON image (dataset_id, pixels) WHERE removed_sequence = 0;
CREATE INDEX IF NOT EXISTS image_by_age ON image (added_sequence, ordinal) WHERE removed_sequence = 0;
CREATE TABLE IF NOT EXISTS image_change (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bulk_change (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence)
);
"""

# The columns after the first are the fields of ImageAdded in their order.
ADD = """
INSERT INTO image (dataset_id, ordinal, id, source, picture, thumbnail, pixels, dhash, format, width, height, size,
    name, animated, added_sequence, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
MARK_CHANGED = """
INSERT INTO image_change VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence
"""
BULK_CHANGES = "SELECT sequence, images FROM bulk_change WHERE dataset_id = ? ORDER BY sequence DESC"
SET_BULK_CHANGE = "INSERT OR REPLACE INTO bulk_change VALUES (?, ?, ?)"
DELETE_BULK_CHANGE = "DELETE FROM bulk_change WHERE dataset_id = ? AND sequence = ?"
DELETE_BULK_CHANGES = "DELETE FROM bulk_change WHERE dataset_id = ?"

# The ETag is the sequence of the last change. An image shows its data set's name, so a rename is a change too.
SELECT_IMAGE = """
SELECT image.*, dataset.name AS dataset, MAX(
    image.added_sequence, image.removed_sequence, image.caption_sequence, dataset.name_sequence,
    IFNULL((SELECT MAX(sequence) FROM decision WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT MAX(sequence) FROM tag_order WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT MAX(sequence) FROM prediction WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT sequence FROM image_change WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0)
) AS etag
FROM image JOIN dataset ON dataset.id = image.dataset_id
"""
BY_ID = SELECT_IMAGE + "WHERE image.id = ?"
BY_PIXELS = (
    SELECT_IMAGE
    + "WHERE image.dataset_id = ? AND image.pixels = ? AND image.removed_sequence = 0 ORDER BY ordinal LIMIT 1"
)
BY_ORDINALS = (
    SELECT_IMAGE + "WHERE image.dataset_id = ? AND image.ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal"  # noqa: S608 - constants
)
IDS = """
SELECT ordinal, id FROM image WHERE dataset_id = :dataset AND ordinal IN (SELECT value FROM json_each(:ordinals))
UNION ALL
SELECT ordinal, image_id AS id FROM erased
WHERE dataset_id = :dataset AND ordinal IN (SELECT value FROM json_each(:ordinals))
"""
COVER = "SELECT id FROM image WHERE dataset_id = ? AND ordinal = ?"
SEALED_NAMES = "SELECT id, name FROM image UNION ALL SELECT image_id, name FROM refusal"


KEPT_SETS: tuple[sets.SetName, ...] = ("live", "removed", "captioned")


class ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """`name` and `caption` are sealed. `etag` is the last sequence that changed what clients see of the image."""

    id: ImageId
    dataset_id: DatasetId
    dataset: str
    ordinal: int
    source: Digest
    picture: Digest
    thumbnail: Digest
    pixels: Digest
    dhash: str
    format: str
    width: int
    height: int
    size: int
    name: Sealed
    animated: bool
    caption: Sealed | None
    caption_source: str | None
    caption_sequence: int
    removed_sequence: int
    added_sequence: int
    etag: int
    created_at: datetime

    @property
    def removed(self) -> bool:
        return self.removed_sequence > 0


def apply(connection: Connection, batch: CommitBatch) -> None:
    _add(connection, batch.events(ImageAdded))
    for recorded, edit in batch.events(TagsEdited):
        if is_bulk(edit.images):
            ordinals = BitMap(batch.ordinals(edit.images))
            mark_changed(connection, recorded.commit.aggregate_id, ordinals, recorded.sequence)
    _update_sets(connection, batch)
    delete_erased(connection, batch, "image", "image_change")
    for recorded, _ in batch.events(DatasetErased):
        sets.delete_all(connection, recorded.commit.aggregate_id)
        connection.execute(DELETE_BULK_CHANGES, (recorded.commit.aggregate_id,))


def _add(connection: Connection, added: Sequence[tuple[RecordedCommit, ImageAdded]]) -> None:
    rows = (
        (
            recorded.commit.aggregate_id,
            *msgspec.structs.astuple(image),
            recorded.sequence,
            recorded.commit.at.isoformat(),
        )
        for recorded, image in added
    )
    connection.executemany(ADD, rows)


def mark_changed(connection: Connection, dataset_id: str, ordinals: BitMap, sequence: int) -> None:
    """Give images a new ETag because of an event that does not name them alone.

    Each image is in one set of many images at most: that of the latest change.
    """
    if len(ordinals) <= BULK:
        connection.executemany(MARK_CHANGED, [(dataset_id, ordinal, sequence) for ordinal in ordinals])
        return
    changes = _bulk_changes(connection, dataset_id)
    ordinals = ordinals | changes.pop(sequence, BitMap())  # one commit may change several sets
    for earlier, images in changes.items():
        left = images - ordinals
        if not left:
            connection.execute(DELETE_BULK_CHANGE, (dataset_id, earlier))
        elif len(left) < len(images):
            connection.execute(SET_BULK_CHANGE, (dataset_id, earlier, sets.serialize(left)))
    connection.execute(SET_BULK_CHANGE, (dataset_id, sequence, sets.serialize(ordinals)))


def _bulk_changes(connection: Connection, dataset_id: str) -> dict[int, BitMap]:
    rows = connection.execute(BULK_CHANGES, (dataset_id,))
    return {row["sequence"]: BitMap.deserialize(row["images"]) for row in rows}


def bulk_changed_since(connection: Connection, dataset_id: str, sequence: int) -> BitMap:
    """The images that a change of many images changed after a sequence."""
    found = (images for at, images in _bulk_changes(connection, dataset_id).items() if at > sequence)
    return BitMap.union(BitMap(), *found)


def _update_sets(connection: Connection, batch: CommitBatch) -> None:
    """Keep the sets of live images and of those with a written caption."""
    changes: defaultdict[str, list[Event]] = defaultdict(list)
    for recorded, event in batch.events(ImageAdded, ImageErased, CaptionSet):
        changes[recorded.commit.aggregate_id].append(event)
    for dataset_id, events in changes.items():
        live, removed, captioned = (sets.load(connection, dataset_id, name) for name in KEPT_SETS)
        for event in events:
            match event:
                case ImageAdded(ordinal=ordinal):
                    live.add(ordinal)
                case ImageErased(ordinal=ordinal):
                    for images in (live, removed, captioned):
                        images.discard(ordinal)
                case CaptionSet(ordinal=ordinal, caption=None):
                    captioned.discard(ordinal)
                case CaptionSet(ordinal=ordinal):
                    captioned.add(ordinal)
                case _:
                    pass
        for name, images in zip(KEPT_SETS, (live, removed, captioned), strict=True):
            sets.save(connection, dataset_id, name, images)


def fetch_rows(connection: Connection, query: str, parameters: Parameters = ()) -> list[ImageRow]:
    """The rows that a query finds, with their ETags."""
    rows = fetch(connection, ImageRow, query, parameters)
    bulk = {dataset: _bulk_changes(connection, dataset) for dataset in {row.dataset_id for row in rows}}
    return [_with_etag(row, bulk[row.dataset_id]) if bulk[row.dataset_id] else row for row in rows]


def _with_etag(row: ImageRow, bulk: dict[int, BitMap]) -> ImageRow:
    changed = next((sequence for sequence, images in bulk.items() if row.ordinal in images), 0)
    return msgspec.structs.replace(row, etag=changed) if changed > row.etag else row


def find(connection: Connection, image_id: str) -> ImageRow | None:
    """Also a removed one."""
    return next(iter(fetch_rows(connection, BY_ID, (image_id,))), None)


def find_duplicate(connection: Connection, dataset_id: str, pixels: str) -> ImageRow | None:
    """The live image of the data set with exactly these pixels."""
    return next(iter(fetch_rows(connection, BY_PIXELS, (dataset_id, pixels))), None)


def by_ordinals(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> list[ImageRow]:
    """In ascending order; includes removed images."""
    return fetch_rows(connection, BY_ORDINALS, (dataset_id, json_array(ordinals)))


def ids_by_ordinal(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> dict[int, ImageId]:
    """Also of removed and erased images."""
    rows = connection.execute(IDS, {"dataset": dataset_id, "ordinals": json_array(ordinals)})
    return {row["ordinal"]: row["id"] for row in rows}


def live_ordinals(connection: Connection, dataset_id: str) -> list[int]:
    """The ordinals of the images that were not removed, ascending."""
    return list(sets.load(connection, dataset_id, "live"))


def first_image(connection: Connection, dataset_id: str) -> ImageId | None:
    """The cover of a data set."""
    live = sets.load(connection, dataset_id, "live")
    return fetch_value(connection, COVER, (dataset_id, live[0])) if live else None


def sealed_names(connection: Connection) -> dict[ImageId, bytes]:
    """The file names of all images that were not erased, and of refused files: each needs its key."""
    return {row["id"]: row["name"] for row in connection.execute(SEALED_NAMES)}
