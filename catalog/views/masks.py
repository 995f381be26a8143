"""Masks of images, with their history: an undo brings back what held before. The row of an image has the current one.

All blobs in the history stay until the image is erased: `live_blobs` names them.
"""

from collections.abc import Collection, Container

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array
from catalog.views import undos
from catalog.views.batch import CommitBatch, Toggle, delete_erased
from contracts.events.datasets import MaskSet
from contracts.ids import Digest

TABLES = """
CREATE TABLE IF NOT EXISTS mask (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    mask TEXT,
    PRIMARY KEY (dataset_id, ordinal, sequence, event_index)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mask_by_commit ON mask (dataset_id, sequence);
"""

ADD = "INSERT OR REPLACE INTO mask VALUES (?, ?, ?, ?, ?)"
SET = "UPDATE image SET mask = ? WHERE dataset_id = ? AND ordinal = ?"
HISTORY = """
SELECT ordinal, sequence, mask FROM mask
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ? ORDER BY sequence, event_index
"""
IMAGES_OF = "SELECT ordinal FROM mask WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))"


def apply(connection: Connection, batch: CommitBatch) -> None:
    for index, recorded, event in batch.indexed_events(MaskSet):
        dataset_id = recorded.commit.aggregate_id
        connection.execute(ADD, (dataset_id, event.ordinal, recorded.sequence, index, event.mask))
        connection.execute(SET, (event.mask, dataset_id, event.ordinal))
    for toggle in batch.toggles:
        _set_again(connection, toggle)
    delete_erased(connection, batch, "mask")


def of_images_at(
    connection: Connection, dataset_id: str, ordinals: Collection[int], until: int
) -> dict[int, Digest | None]:
    """The masks of these images as of a sequence, by ordinal."""
    return _fold(connection, dataset_id, ordinals, until, undos.voided(connection, dataset_id, until))


def _set_again(connection: Connection, toggle: Toggle) -> None:
    """The latest that count now, of the images in the toggled commits. The undo itself changes their ETags."""
    dataset_id = toggle.dataset_id
    ordinals = {row[0] for row in connection.execute(IMAGES_OF, (dataset_id, json_array(toggle.commits)))}
    found = _fold(connection, dataset_id, ordinals, MAX_SEQUENCE, undos.voided(connection, dataset_id))
    connection.executemany(SET, [(mask, dataset_id, ordinal) for ordinal, mask in found.items()])


def _fold(
    connection: Connection, dataset_id: str, ordinals: Collection[int], until: int, voided: Container[int]
) -> dict[int, Digest | None]:
    rows = connection.execute(HISTORY, (dataset_id, json_array(ordinals), until))
    counting = {ordinal: mask for ordinal, sequence, mask in rows if sequence not in voided}
    return {ordinal: counting.get(ordinal) for ordinal in ordinals}
