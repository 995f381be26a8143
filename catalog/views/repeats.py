"""How often images are seen in an epoch: a column of numbers, and its history, from which an undo finds them again."""

from collections.abc import Collection, Container

import numpy as np
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array
from catalog.views import columns, erasures, undos
from catalog.views.batch import CommitBatch, Toggle
from contracts.events.datasets import DatasetErased, RepeatsSet

TABLES = """
CREATE TABLE IF NOT EXISTS repeats (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    repeats INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence, event_index)
);
"""

ADD = "INSERT OR IGNORE INTO repeats VALUES (?, ?, ?, ?, ?)"
HISTORY = """
SELECT sequence, repeats, images FROM repeats WHERE dataset_id = ? AND sequence <= ? ORDER BY sequence, event_index
"""
IMAGES_OF = "SELECT images FROM repeats WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))"
DELETE = "DELETE FROM repeats WHERE dataset_id = ?"


def apply(connection: Connection, batch: CommitBatch) -> None:
    """The columns of erased images and data sets are `image_columns`'."""
    for index, recorded, event in batch.indexed_events(RepeatsSet):
        dataset_id, images = recorded.commit.aggregate_id, batch.ordinals(event.images)
        connection.execute(ADD, (dataset_id, recorded.sequence, index, event.repeats, event.images.bitmap))
        columns.store_for(connection, dataset_id, "repeats", images, event.repeats)
        columns.mark_changed(connection, dataset_id, images, recorded.sequence)
    for toggle in batch.toggles:
        _set_again(connection, toggle)
    for recorded, _ in batch.events(DatasetErased):
        connection.execute(DELETE, (recorded.commit.aggregate_id,))


def of_images(connection: Connection, dataset_id: str, ordinals: Collection[int]) -> dict[int, int]:
    """By ordinal; 1 where they were never set."""
    found = columns.load_few(connection, dataset_id, "repeats", ordinals)
    return {ordinal: repeats or 1 for ordinal, repeats in found.items()}


def of_images_at(connection: Connection, dataset_id: str, ordinals: Collection[int], until: int) -> dict[int, int]:
    """The same as of a sequence."""
    images = BitMap(ordinals)
    found = _fold(connection, dataset_id, images, until, undos.voided(connection, dataset_id, until))
    return {ordinal: repeats or 1 for ordinal, repeats in zip(images, found.tolist(), strict=True)}


def _set_again(connection: Connection, toggle: Toggle) -> None:
    """The latest that count now, of the images in the toggled commits. The undo itself changes their ETags."""
    dataset_id = toggle.dataset_id
    toggled = connection.execute(IMAGES_OF, (dataset_id, json_array(toggle.commits))).fetchall()
    affected = BitMap.union(BitMap(), *(BitMap.deserialize(row["images"]) for row in toggled))
    affected -= erasures.ordinals(connection, dataset_id)
    if affected:
        found = _fold(connection, dataset_id, affected, MAX_SEQUENCE, undos.voided(connection, dataset_id))
        columns.store(connection, dataset_id, "repeats", columns.ordinals_of(affected), found)


def _fold(
    connection: Connection, dataset_id: str, images: BitMap, until: int, voided: Container[int]
) -> columns.Numbers:
    """The numbers of these images, by ascending ordinal; 0 where none counts."""
    ordinals = columns.ordinals_of(images)
    found = np.zeros(len(ordinals), dtype=np.int64)
    for sequence, repeats, named in connection.execute(HISTORY, (dataset_id, until)):
        if sequence not in voided:
            found[np.searchsorted(ordinals, columns.ordinals_of(BitMap.deserialize(named) & images))] = repeats
    return found
