"""Frozen versions of data sets."""

from dataclasses import dataclass
from datetime import datetime

from catalog.database import Connection, Row
from catalog.views.batch import CommitBatch
from contracts.events import VersionFrozen
from contracts.ids import DatasetId, Digest, VersionId

TABLES = """
CREATE TABLE IF NOT EXISTS version (
    version_id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    as_of INTEGER NOT NULL,
    images INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    trigger TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS version_by_number ON version (dataset_id, number);
"""

ADD = """
INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
SET_LATEST = "UPDATE dataset SET latest_version = MAX(IFNULL(latest_version, 0), ?) WHERE id = ?"
BY_NUMBER = "SELECT * FROM version WHERE dataset_id = ? AND number = ?"
BY_ID = "SELECT * FROM version WHERE version_id = ?"
LATEST = "SELECT * FROM version WHERE dataset_id = ? ORDER BY number DESC LIMIT 1"
PAGE = "SELECT * FROM version WHERE dataset_id = ? AND number > ? ORDER BY number LIMIT ?"
COUNT = "SELECT COUNT(*) FROM version WHERE dataset_id = ?"


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """`number` identifies it to users; `sequence` is that of the commit that froze it."""

    version_id: VersionId
    dataset_id: DatasetId
    number: int
    as_of: int
    images: int
    manifest: Digest
    trigger: str
    sequence: int
    created_at: datetime


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, frozen in batch.events(VersionFrozen):
        commit = recorded.commit
        content = (frozen.as_of, frozen.images, frozen.manifest, frozen.trigger)
        row = (frozen.version_id, commit.aggregate_id, frozen.version, *content)
        connection.execute(ADD, (*row, recorded.sequence, commit.at.isoformat()))
        connection.execute(SET_LATEST, (frozen.version, commit.aggregate_id))


def find(connection: Connection, dataset_id: str, number: int) -> VersionRow | None:
    return _row(connection.execute(BY_NUMBER, (dataset_id, number)).fetchone())


def by_id(connection: Connection, version_id: str) -> VersionRow | None:
    return _row(connection.execute(BY_ID, (version_id,)).fetchone())


def find_latest(connection: Connection, dataset_id: str) -> VersionRow | None:
    return _row(connection.execute(LATEST, (dataset_id,)).fetchone())


def page(connection: Connection, dataset_id: str, after: int, limit: int) -> list[VersionRow]:
    """Oldest first, those after a number."""
    rows = connection.execute(PAGE, (dataset_id, after, limit))
    return [row for raw in rows if (row := _row(raw)) is not None]


def count(connection: Connection, dataset_id: str) -> int:
    return int(connection.execute(COUNT, (dataset_id,)).fetchone()[0])


def _row(row: Row | None) -> VersionRow | None:
    if row is None:
        return None
    columns = dict(row)
    return VersionRow(**columns | {"created_at": datetime.fromisoformat(columns["created_at"])})
