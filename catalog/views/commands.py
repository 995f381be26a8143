"""The result of each command, so that a repeated command is answered without being executed again."""

import msgspec

from catalog.database import Connection
from catalog.rows import fetch_one
from catalog.views.batch import CommitBatch

TABLES = """
CREATE TABLE IF NOT EXISTS command (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    aggregate_kind TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    result BLOB NOT NULL
) WITHOUT ROWID;
"""

# A command may write commits of two aggregates (a version and a job); the row is that of the commit with the result.
# X'6E756C6C' is the JSON null of the other one.
UPSERT = """
INSERT INTO command VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    fingerprint = excluded.fingerprint, sequence = excluded.sequence, aggregate_kind = excluded.aggregate_kind,
    aggregate_id = excluded.aggregate_id, result = excluded.result
WHERE command.result = X'6E756C6C' AND excluded.result != X'6E756C6C'
"""
FIND = "SELECT fingerprint, sequence, aggregate_kind, aggregate_id, result FROM command WHERE id = ?"


class CommandRow(msgspec.Struct, frozen=True, kw_only=True):
    """`result` is JSON as stored, `null` while the commit that holds the result has not been applied."""

    fingerprint: str
    sequence: int
    aggregate_kind: str
    aggregate_id: str
    result: bytes


def apply(connection: Connection, batch: CommitBatch) -> None:
    connection.executemany(
        UPSERT,
        [
            (
                *(commit.command_id, commit.fingerprint, recorded.sequence),
                *(commit.aggregate_kind, commit.aggregate_id, bytes(commit.result)),
            )
            for recorded in batch.commits
            for commit in (recorded.commit,)
        ],
    )


def find(connection: Connection, command_id: str) -> CommandRow | None:
    """What the command did; none if it never changed anything."""
    return fetch_one(connection, CommandRow, FIND, (command_id,))
