"""Frozen versions of data sets."""

from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.domain.compose import compose
from catalog.rows import fetch, fetch_number, fetch_one
from catalog.views.batch import CommitBatch
from contracts.events.datasets import VersionFrozen
from contracts.ids import DatasetId, Digest, VersionId

TABLES = """
CREATE TABLE IF NOT EXISTS version (
    version_id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    as_of INTEGER NOT NULL,
    images INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    pages BLOB NOT NULL,
    trigger TEXT NOT NULL,
    captions_lost INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS version_by_number ON version (dataset_id, number);
"""

ADD = """
INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
SET_LATEST = "UPDATE dataset SET latest_version = MAX(IFNULL(latest_version, 0), ?) WHERE id = ?"
BY_NUMBER = "SELECT * FROM version WHERE dataset_id = ? AND number = ?"
BY_ID = "SELECT * FROM version WHERE version_id = ?"
LATEST = "SELECT * FROM version WHERE dataset_id = ? ORDER BY number DESC LIMIT 1"
PAGE = "SELECT * FROM version WHERE dataset_id = ? AND number > ? ORDER BY number LIMIT ?"
COUNT = "SELECT COUNT(*) FROM version WHERE dataset_id = ?"

_encode = msgspec.json.Encoder().encode


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """`number` identifies it to users; `sequence` is that of the commit that froze it."""

    version_id: VersionId
    dataset_id: DatasetId
    number: int
    as_of: int
    images: int
    manifest: Digest
    pages: tuple[Digest, ...]
    trigger: str
    captions_lost: int
    sequence: int
    created_at: datetime

    @property
    def event(self) -> VersionFrozen:
        """The event that froze it."""
        return compose(VersionFrozen, self, version=self.number)


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, frozen in batch.events(VersionFrozen):
        commit = recorded.commit
        content = (frozen.as_of, frozen.images, frozen.manifest, _encode(frozen.pages), frozen.trigger)
        row = (frozen.version_id, commit.aggregate_id, frozen.version, *content, frozen.captions_lost)
        connection.execute(ADD, (*row, recorded.sequence, commit.at.isoformat()))
        connection.execute(SET_LATEST, (frozen.version, commit.aggregate_id))


def find(connection: Connection, dataset_id: str, number: int) -> VersionRow | None:
    return fetch_one(connection, VersionRow, BY_NUMBER, (dataset_id, number))


def by_id(connection: Connection, version_id: str) -> VersionRow | None:
    return fetch_one(connection, VersionRow, BY_ID, (version_id,))


def find_latest(connection: Connection, dataset_id: str) -> VersionRow | None:
    return fetch_one(connection, VersionRow, LATEST, (dataset_id,))


def page(connection: Connection, dataset_id: str, after: int, limit: int) -> list[VersionRow]:
    """Oldest first, those after a number."""
    return fetch(connection, VersionRow, PAGE, (dataset_id, after, limit))


def count(connection: Connection, dataset_id: str) -> int:
    return fetch_number(connection, COUNT, (dataset_id,))
