"""What became of each command, so that one sent again is answered and not done again."""

from dataclasses import dataclass

from catalog.database import Connection
from catalog.views.batch import Batch

TABLES = """
CREATE TABLE IF NOT EXISTS command (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    thing TEXT NOT NULL,
    answer BLOB NOT NULL
) WITHOUT ROWID;
"""

# Some commands write two things (a version and a job); the commit that holds the answer says what the command made.
KEEP = """
INSERT INTO command VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    fingerprint = excluded.fingerprint, sequence = excluded.sequence, kind = excluded.kind, thing = excluded.thing,
    answer = excluded.answer
WHERE command.answer = X'6E756C6C' AND excluded.answer != X'6E756C6C'
"""
ANSWERED = "SELECT fingerprint, sequence, kind, thing, answer FROM command WHERE id = ?"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """`answer` is JSON as stored, `null` where the commit that holds the answer is not there yet."""

    fingerprint: str
    sequence: int
    kind: str
    thing: str
    answer: bytes


def apply(connection: Connection, batch: Batch) -> None:
    connection.executemany(
        KEEP,
        [
            (commit.command, commit.fingerprint, stored.sequence, commit.kind, commit.thing, bytes(commit.answer))
            for stored in batch.commits
            for commit in (stored.commit,)
        ],
    )


def answered(connection: Connection, command_id: str) -> Answered | None:
    """What this command did before; none = it never changed anything."""
    row = connection.execute(ANSWERED, (command_id,)).fetchone()
    return None if row is None else Answered(**dict(row))
