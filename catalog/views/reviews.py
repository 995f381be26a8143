"""Which images were marked as reviewed: a set of each data set, and its history, from which an undo finds it again."""

from collections import defaultdict
from collections.abc import Container

from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array
from catalog.views import columns, erasures, sets, undos
from catalog.views.batch import CommitBatch, Toggle
from contracts.events.datasets import DatasetErased, ImageErased, ImagesReviewed

TABLES = """
CREATE TABLE IF NOT EXISTS review (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    reviewed INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence, event_index)
);
"""

ADD = "INSERT OR IGNORE INTO review VALUES (?, ?, ?, ?, ?)"
REVIEWS = """
SELECT sequence, reviewed, images FROM review WHERE dataset_id = ? AND sequence <= ? ORDER BY sequence, event_index
"""
REVIEWS_IN = "SELECT images FROM review WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))"
DELETE = "DELETE FROM review WHERE dataset_id = ?"


def apply(connection: Connection, batch: CommitBatch) -> None:
    """An image whose state changes gets a new ETag. The sets of erased data sets are deleted by `images`."""
    _apply_reviews(connection, batch)
    for toggle in batch.toggles:
        _review_again(connection, toggle)
    for recorded, erased in batch.events(ImageErased):
        dataset_id = recorded.commit.aggregate_id
        reviewed = sets.load(connection, dataset_id, "reviewed")
        reviewed.discard(erased.ordinal)
        sets.save(connection, dataset_id, "reviewed", reviewed)
    for recorded, _ in batch.events(DatasetErased):
        connection.execute(DELETE, (recorded.commit.aggregate_id,))


def reviewed_at(connection: Connection, dataset_id: str, images: BitMap, until: int) -> BitMap:
    """Those of these images that were marked as reviewed as of a sequence."""
    return _fold(connection, dataset_id, images, until, undos.voided(connection, dataset_id, until))


def _apply_reviews(connection: Connection, batch: CommitBatch) -> None:
    changes: defaultdict[str, list[tuple[int, ImagesReviewed]]] = defaultdict(list)
    for index, recorded, event in batch.indexed_events(ImagesReviewed):
        dataset_id = recorded.commit.aggregate_id
        connection.execute(ADD, (dataset_id, recorded.sequence, index, event.reviewed, event.images.bitmap))
        changes[dataset_id].append((recorded.sequence, event))
    for dataset_id, events in changes.items():
        reviewed = sets.load(connection, dataset_id, "reviewed")
        for sequence, event in events:
            named = BitMap(batch.ordinals(event.images))
            changed = named - reviewed if event.reviewed else named & reviewed
            reviewed ^= changed
            columns.mark_changed(connection, dataset_id, changed, sequence)
        sets.save(connection, dataset_id, "reviewed", reviewed)


def _review_again(connection: Connection, toggle: Toggle) -> None:
    """The latest reviews that count now, of the images in the toggled ones. The undo itself changes their ETags."""
    dataset_id = toggle.dataset_id
    toggled = connection.execute(REVIEWS_IN, (dataset_id, json_array(toggle.commits))).fetchall()
    affected = BitMap.union(BitMap(), *(BitMap.deserialize(row["images"]) for row in toggled))
    affected -= erasures.ordinals(connection, dataset_id)
    if not affected:
        return
    found = _fold(connection, dataset_id, affected, MAX_SEQUENCE, undos.voided(connection, dataset_id))
    reviewed = sets.load(connection, dataset_id, "reviewed")
    sets.save(connection, dataset_id, "reviewed", (reviewed - affected) | found)


def _fold(connection: Connection, dataset_id: str, images: BitMap, until: int, voided: Container[int]) -> BitMap:
    found = BitMap()
    for row in connection.execute(REVIEWS, (dataset_id, until)):
        if row["sequence"] not in voided:
            named = BitMap.deserialize(row["images"]) & images
            found = found | named if row["reviewed"] else found - named
    return found
