"""Which commits the read model has taken in and not applied completely; `catalog.views` says what is left to do."""

from catalog.database import Connection
from catalog.pending import Pending
from catalog.rows import fetch_number, fetch_value
from contracts.commits import Aggregate, RecordedCommit

TABLES = """
CREATE TABLE IF NOT EXISTS pending (
    sequence INTEGER PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    aggregate_kind TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    steps BLOB
);
CREATE INDEX IF NOT EXISTS pending_by_dataset ON pending (dataset_id, sequence);
"""

ADD = "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?)"
STEPS = "SELECT steps FROM pending WHERE sequence = ?"
SET_STEPS = "UPDATE pending SET steps = ? WHERE sequence = ?"
DELETE = "DELETE FROM pending WHERE sequence = ?"
DATASETS = "SELECT DISTINCT dataset_id FROM pending"
DATASET_OF = "SELECT dataset_id FROM pending WHERE (aggregate_kind, aggregate_id) = (?, ?)"
FIRST = "SELECT MIN(sequence) FROM pending"
FIRST_OF_DATASET = "SELECT MIN(sequence) FROM pending WHERE dataset_id = ?"
FIRST_OF_EACH = """
SELECT aggregate_kind, aggregate_id, MIN(sequence) FROM pending GROUP BY aggregate_kind, aggregate_id
UNION ALL SELECT 'dataset', dataset_id, MIN(sequence) FROM pending GROUP BY dataset_id
"""
COUNT = "SELECT COUNT(*) FROM pending"
# The steps that were begun first, before commits that have not been begun yet.
NEXT = "SELECT sequence, dataset_id, steps FROM pending ORDER BY steps IS NULL, sequence LIMIT 1"
WAITING = "SELECT sequence FROM pending WHERE dataset_id = ? ORDER BY sequence LIMIT ?"


def read(connection: Connection) -> Pending:
    first: dict[Aggregate, int] = {}
    for kind, aggregate_id, sequence in connection.execute(FIRST_OF_EACH):
        first[kind, aggregate_id] = min(sequence, first.get((kind, aggregate_id), sequence))
    return Pending(first, fetch_number(connection, COUNT))


def first_pending(connection: Connection) -> int | None:
    """The first commit of all that is not applied completely."""
    found: int | None = fetch_value(connection, FIRST)
    return found


def first_of_dataset(connection: Connection, dataset_id: str) -> int | None:
    """The first commit that concerns a data set and is not applied completely."""
    found: int | None = fetch_value(connection, FIRST_OF_DATASET, (dataset_id,))
    return found


def datasets(connection: Connection) -> set[str]:
    """The data sets that commits are pending of."""
    return {row["dataset_id"] for row in connection.execute(DATASETS)}


def dataset_of(connection: Connection, kind: str, aggregate_id: str) -> str | None:
    """The data set that the pending commits of an aggregate concern."""
    found: str | None = fetch_value(connection, DATASET_OF, (kind, aggregate_id))
    return found


def add(connection: Connection, recorded: RecordedCommit, dataset_id: str, steps: bytes | None) -> None:
    """`steps`: what is left to do; None: it has not been begun."""
    commit = recorded.commit
    connection.execute(ADD, (recorded.sequence, dataset_id, commit.aggregate_kind, commit.aggregate_id, steps))


def delete(connection: Connection, sequence: int) -> None:
    connection.execute(DELETE, (sequence,))


def next_one(connection: Connection) -> tuple[int, str, bytes | None] | None:
    """The commit that is next, as (sequence, data set, steps); None: nothing is pending."""
    row = connection.execute(NEXT).fetchone()
    return None if row is None else tuple(row)


def waiting(connection: Connection, dataset_id: str, limit: int) -> list[int]:
    """The first pending commits of a data set."""
    return [sequence for (sequence,) in connection.execute(WAITING, (dataset_id, limit))]


def steps_of(connection: Connection, sequence: int) -> bytes:
    found: bytes = fetch_value(connection, STEPS, (sequence,))
    return found


def set_steps(connection: Connection, sequence: int, steps: bytes) -> None:
    connection.execute(SET_STEPS, (steps, sequence))
