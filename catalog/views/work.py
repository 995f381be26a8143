"""Work of both classes, jobs and tagging runs: its state by the machine in `contracts.jobs`, its attempts, its turn."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.views.batch import Batch
from contracts.events import (
    AttemptFailed,
    AttemptStarted,
    Cancelled,
    Failed,
    Interrupted,
    JobSucceeded,
    Stored,
    TaggingSucceeded,
)
from contracts.ids import WorkerId
from contracts.jobs import Work, evolve, status_of
from contracts.queries import AttemptView
from contracts.subjects import CLASS_OF, PRIORITIES, Priority, WorkClass

TABLES = """
CREATE TABLE IF NOT EXISTS work (
    class TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL,
    rank INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    work BLOB NOT NULL,
    worker TEXT,
    error_code TEXT,
    error TEXT,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL,
    started_at TEXT,
    ended_at TEXT,
    touched INTEGER NOT NULL,
    PRIMARY KEY (class, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS work_in_line ON work (class, state, rank, dispatch);
CREATE TABLE IF NOT EXISTS attempt (
    class TEXT NOT NULL,
    id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    resumes INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    ended TEXT,
    reason TEXT,
    PRIMARY KEY (class, id, attempt)
) WITHOUT ROWID;
"""

BEGIN = """
INSERT OR IGNORE INTO work (class, id, state, status, rank, dispatch, work, actor, created_at, touched)
VALUES (?, ?, 'absent', 'pending', 1, 0, ?, ?, ?, 0)
"""
MOVE = """
UPDATE work SET state = ?, status = ?, rank = ?, dispatch = ?, work = ?, touched = ? WHERE class = ? AND id = ?
"""
START = "UPDATE work SET worker = ?, started_at = IFNULL(started_at, ?) WHERE class = ? AND id = ?"
END = "UPDATE work SET ended_at = ?, error_code = ?, error = ? WHERE class = ? AND id = ?"
START_ATTEMPT = "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)"
END_ATTEMPT = "UPDATE attempt SET ended = ?, reason = ? WHERE class = ? AND id = ? AND ended IS NULL"

FIND = "SELECT * FROM work WHERE class = ? AND id = ?"
ATTEMPTS = """
SELECT attempt, worker, resumes, started_at, ended, reason FROM attempt WHERE class = ? AND id = ? ORDER BY attempt
"""
WAITING = """
SELECT id, state, rank, dispatch FROM work
WHERE class = ? AND state IN ('queued', 'running', 'cancelling') ORDER BY rank, dispatch
"""
NOT_SETTLED = "SELECT id FROM work WHERE class = ? AND (state = 'queued' OR touched > ?) ORDER BY id"
POSITION = "SELECT COUNT(*) FROM work WHERE class = ? AND state = 'queued' AND (rank, dispatch) <= (?, ?)"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Work).decode


@dataclass(frozen=True, kw_only=True)
class WorkRow:
    """`work` is what the rules know of it; `touched` the sequence of its last commit."""

    work: Work
    worker: WorkerId | None
    error_code: str | None
    error: str | None
    actor: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    touched: int


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Work that has not ended and needs a hint in the queue with this dispatch number."""

    id: str
    state: str
    priority: Priority
    dispatch: int


def apply(connection: Connection, batch: Batch) -> None:
    of_thing: defaultdict[tuple[WorkClass, str], list[Stored]] = defaultdict(list)
    for stored in batch.commits:
        work_class = CLASS_OF.get(stored.commit.kind)
        if work_class is not None:
            of_thing[work_class, stored.commit.thing].append(stored)
    for key, commits in of_thing.items():
        first = commits[0].commit
        connection.execute(BEGIN, (*key, _encode(Work()), first.actor, first.at.isoformat()))
        work = _decode(connection.execute(FIND, key).fetchone()["work"])
        for stored in commits:
            work = _evolved(connection, key, work, stored)
        place = (work.state, status_of(work.state), PRIORITIES.index(work.priority), work.dispatch)
        connection.execute(MOVE, (*place, _encode(work), commits[-1].sequence, *key))


def _evolved(connection: Connection, key: tuple[WorkClass, str], work: Work, stored: Stored) -> Work:
    """The work after a commit; its attempts and its end are written as they come."""
    at = stored.commit.at.isoformat()
    for fact in stored.commit.facts:
        work = evolve(work, fact, stored.sequence)
        match fact:
            case AttemptStarted(worker=worker, resumes=resumes):
                connection.execute(END_ATTEMPT, ("crashed", None, *key))
                connection.execute(START_ATTEMPT, (*key, stored.sequence, worker, resumes, at))
                connection.execute(START, (worker, at, *key))
            case Interrupted(reason=reason):
                connection.execute(END_ATTEMPT, ("interrupted", reason, *key))
            case AttemptFailed(reason=reason):
                connection.execute(END_ATTEMPT, ("crashed", reason, *key))
            case Cancelled():
                _end(connection, key, "cancelled", at)
            case Failed(code=code, reason=reason):
                _end(connection, key, "failed", at, (code, reason))
            case JobSucceeded() | TaggingSucceeded():
                _end(connection, key, "succeeded", at)
            case _:
                pass
    return work


def _end(
    connection: Connection,
    key: tuple[str, str],
    how: str,
    at: str,
    error: tuple[str | None, str | None] = (None, None),
) -> None:
    connection.execute(END_ATTEMPT, (how, error[1], *key))
    connection.execute(END, (at, *error, *key))


def find(connection: Connection, work_class: WorkClass, thing: str) -> WorkRow | None:
    row = connection.execute(FIND, (work_class, thing)).fetchone()
    if row is None:
        return None
    return WorkRow(
        work=_decode(row["work"]),
        worker=row["worker"],
        error_code=row["error_code"],
        error=row["error"],
        actor=row["actor"],
        created_at=datetime.fromisoformat(row["created_at"]),
        started_at=moment(row["started_at"]),
        ended_at=moment(row["ended_at"]),
        touched=row["touched"],
    )


def queued(connection: Connection, work_class: WorkClass) -> list[Waiting]:
    """All work that has not ended, in the order it is taken: for the dispatcher."""
    return [
        Waiting(id=row["id"], state=row["state"], priority=PRIORITIES[row["rank"]], dispatch=row["dispatch"])
        for row in connection.execute(WAITING, (work_class,))
    ]


def not_settled(connection: Connection, work_class: WorkClass, sequence: int) -> list[str]:
    """The ids of work that may have waited at a sequence: what waits now, or has moved since. The rest had ended."""
    return [row["id"] for row in connection.execute(NOT_SETTLED, (work_class, sequence))]


def position(connection: Connection, work_class: WorkClass, work: Work) -> int | None:
    """Its place among those that wait (1 = next); none when it does not wait."""
    if work.state != "queued":
        return None
    rank = PRIORITIES.index(work.priority)
    return int(connection.execute(POSITION, (work_class, rank, work.dispatch)).fetchone()[0])


def attempts(connection: Connection, work_class: WorkClass, thing: str) -> tuple[AttemptView, ...]:
    """The oldest first."""
    rows = (dict(row) for row in connection.execute(ATTEMPTS, (work_class, thing)))
    return tuple(AttemptView(**row | {"started_at": datetime.fromisoformat(row["started_at"])}) for row in rows)


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
