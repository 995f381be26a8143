"""Files that were not taken into a data set, and why."""

from dataclasses import dataclass
from datetime import datetime

from catalog.database import Connection
from catalog.views.batch import Batch
from contracts.events import DatasetErased, ImageRefused, Sealed
from contracts.ids import ImageId

TABLES = """
CREATE TABLE IF NOT EXISTS refusal (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    part INTEGER NOT NULL,
    image_id TEXT NOT NULL,
    name BLOB NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    size INTEGER NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, sequence, part)
) WITHOUT ROWID;
"""

REFUSE = "INSERT OR IGNORE INTO refusal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
ERASE = "DELETE FROM refusal WHERE dataset_id = ?"
PAGE = """
SELECT sequence, part, image_id, name, reason, detail, size, at FROM refusal
WHERE dataset_id = ? AND (sequence, part) > (?, ?) ORDER BY sequence, part LIMIT ?
"""


@dataclass(frozen=True, kw_only=True)
class RefusalRow:
    """`name` is sealed under the key of `image_id`; `part` counts within the commit."""

    sequence: int
    part: int
    image_id: ImageId
    name: Sealed
    reason: str
    detail: str
    size: int
    at: datetime


def apply(connection: Connection, batch: Batch) -> None:
    for part, stored, fact in batch.numbered(ImageRefused):
        commit = stored.commit
        words = (fact.image_id, fact.name, fact.reason, fact.detail, fact.size, commit.at.isoformat())
        connection.execute(REFUSE, (commit.thing, stored.sequence, part, *words))
    for stored, _ in batch.facts(DatasetErased):
        connection.execute(ERASE, (stored.commit.thing,))


def page(connection: Connection, dataset_id: str, after: tuple[int, int], limit: int) -> list[RefusalRow]:
    """In the order they were refused, those after a (sequence, part)."""
    rows = (dict(row) for row in connection.execute(PAGE, (dataset_id, *after, limit)))
    return [RefusalRow(**row | {"at": datetime.fromisoformat(row["at"])}) for row in rows]
