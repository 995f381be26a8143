"""Foreign messages of the log: what nobody known appended, on whose subject it landed, and why it was not accepted."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.rows import fetch, fetch_number
from contracts.commits import ForeignMessage

TABLES = """
CREATE TABLE IF NOT EXISTS foreign_message (
    sequence INTEGER PRIMARY KEY,
    aggregate_kind TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    size INTEGER NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS foreign_of_aggregate ON foreign_message (aggregate_kind, aggregate_id, sequence);
"""

ADD = "INSERT OR IGNORE INTO foreign_message VALUES (?, ?, ?, ?, ?, ?)"
HEADS = "SELECT aggregate_kind, aggregate_id, MAX(sequence) FROM foreign_message GROUP BY aggregate_kind, aggregate_id"
COUNT = "SELECT COUNT(*) FROM foreign_message"
PAGE = """
SELECT * FROM foreign_message WHERE sequence > :after AND sequence <= :last
AND (:kind IS NULL OR aggregate_kind = :kind) AND (:id IS NULL OR aggregate_id = :id) ORDER BY sequence LIMIT :limit
"""


BETWEEN = """
SELECT sequence FROM foreign_message WHERE aggregate_kind = ? AND aggregate_id = ? AND sequence > ? AND sequence <= ?
"""


class ForeignRow(msgspec.Struct, frozen=True, kw_only=True):
    """`size` in bytes."""

    sequence: int
    aggregate_kind: str
    aggregate_id: str
    recorded_at: datetime
    size: int
    reason: str


def add(connection: Connection, messages: Sequence[ForeignMessage]) -> None:
    rows = [(one.sequence, *one.aggregate, one.recorded_at.isoformat(), len(one.body), one.reason) for one in messages]
    connection.executemany(ADD, rows)


def heads(connection: Connection) -> dict[tuple[str, str], int]:
    """The newest foreign message on the subject of each aggregate (kind, id) that has any."""
    return {(kind, aggregate_id): sequence for kind, aggregate_id, sequence in connection.execute(HEADS)}


def between(connection: Connection, kind: str, aggregate_id: str, after: int, to: int) -> frozenset[int]:
    """The sequences of those on one aggregate's subject, after one sequence and up to another."""
    return frozenset(row[0] for row in connection.execute(BETWEEN, (kind, aggregate_id, after, to)))


def count(connection: Connection) -> int:
    return fetch_number(connection, COUNT)


def page(  # noqa: PLR0913 - a range and two filters
    connection: Connection,
    after: int,
    last: int,
    limit: int,
    *,
    kind: str | None = None,
    aggregate_id: str | None = None,
) -> list[ForeignRow]:
    """Those after one sequence and up to another, oldest first; `kind` and `aggregate_id` None: of all aggregates."""
    parameters = {"after": after, "last": last, "limit": limit, "kind": kind, "id": aggregate_id}
    return fetch(connection, ForeignRow, PAGE, parameters)
