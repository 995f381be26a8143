"""Files that were refused (skipped) by imports, and the reasons."""

from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.rows import fetch
from catalog.views.batch import CommitBatch
from contracts.events.base import Sealed
from contracts.events.datasets import DatasetErased, ImageRefused
from contracts.ids import ImageId

TABLES = """
CREATE TABLE IF NOT EXISTS refusal (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    image_id TEXT NOT NULL,
    name BLOB NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    size INTEGER NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, sequence, event_index)
) WITHOUT ROWID;
"""

# Between the index and the time: the fields of ImageRefused in their order.
ADD = "INSERT OR IGNORE INTO refusal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
ERASE = "DELETE FROM refusal WHERE dataset_id = ?"
PAGE = """
SELECT sequence, event_index, image_id, name, reason, detail, size, at FROM refusal
WHERE dataset_id = ? AND (sequence, event_index) > (?, ?) ORDER BY sequence, event_index LIMIT ?
"""


class RefusalRow(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is sealed under the key of `image_id`; `event_index` is the position in the commit."""

    sequence: int
    event_index: int
    image_id: ImageId
    name: Sealed
    reason: str
    detail: str
    size: int
    at: datetime


def apply(connection: Connection, batch: CommitBatch) -> None:
    for index, recorded, event in batch.indexed_events(ImageRefused):
        row = (recorded.commit.aggregate_id, recorded.sequence, index, *msgspec.structs.astuple(event))
        connection.execute(ADD, (*row, recorded.commit.at.isoformat()))
    for recorded, _ in batch.events(DatasetErased):
        connection.execute(ERASE, (recorded.commit.aggregate_id,))


def page(connection: Connection, dataset_id: str, after: tuple[int, int], limit: int) -> list[RefusalRow]:
    """In log order, those after (sequence, event index)."""
    return fetch(connection, RefusalRow, PAGE, (dataset_id, *after, limit))
