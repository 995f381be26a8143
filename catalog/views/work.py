"""Work of both classes (jobs and tagging runs): state machine state (`contracts.jobs`), attempts, queue order."""

from collections import defaultdict
from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.rows import fetch, fetch_number, fetch_one
from catalog.views.batch import CommitBatch
from contracts.aggregates import REGISTRY
from contracts.commits import RecordedCommit
from contracts.events.jobs import JobSucceeded
from contracts.events.tagging import TaggingSucceeded
from contracts.events.work import AttemptFailed, AttemptStarted, Cancelled, Failed, Interrupted
from contracts.ids import JobId, WorkerId
from contracts.jobs import Work, evolve, status_of
from contracts.queries.jobs import AttemptView
from contracts.subjects import PRIORITIES, Priority, WorkClass

TABLES = """
CREATE TABLE IF NOT EXISTS work (
    class TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL,
    priority_rank INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    work BLOB NOT NULL,
    worker TEXT,
    error_code TEXT,
    error TEXT,
    actor TEXT NOT NULL,
    created_at TEXT NOT NULL,
    started_at TEXT,
    ended_at TEXT,
    etag INTEGER NOT NULL,
    PRIMARY KEY (class, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS work_in_queue_order ON work (class, state, priority_rank, dispatch);
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

CREATE = """
INSERT OR IGNORE INTO work (class, id, state, status, priority_rank, dispatch, work, actor, created_at, etag)
VALUES (?, ?, 'absent', 'pending', 1, 0, ?, ?, ?, 0)
"""
UPDATE = """
UPDATE work SET state = ?, status = ?, priority_rank = ?, dispatch = ?, work = ?, etag = ? WHERE class = ? AND id = ?
"""
START = "UPDATE work SET worker = ?, started_at = IFNULL(started_at, ?) WHERE class = ? AND id = ?"
END = "UPDATE work SET ended_at = ?, error_code = ?, error = ? WHERE class = ? AND id = ?"
START_ATTEMPT = "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)"
END_ATTEMPT = "UPDATE attempt SET ended = ?, reason = ? WHERE class = ? AND id = ? AND ended IS NULL"

FIND = """
SELECT work, worker, error_code, error, actor, created_at, started_at, ended_at, etag FROM work
WHERE class = ? AND id = ?
"""
ATTEMPTS = """
SELECT attempt, worker, resumes, started_at, ended, reason FROM attempt WHERE class = ? AND id = ? ORDER BY attempt
"""
UNFINISHED = """
SELECT id, state, priority_rank, dispatch FROM work
WHERE class = ? AND state IN ('queued', 'running', 'cancelling') ORDER BY priority_rank, dispatch
"""
FREEZING = "SELECT id FROM work WHERE class = 'train' AND state = 'freezing' ORDER BY priority_rank, etag, id"
UNFINISHED_SINCE = "SELECT id FROM work WHERE class = ? AND (state = 'queued' OR etag > ?) ORDER BY id"
POSITION = "SELECT COUNT(*) FROM work WHERE class = ? AND state = 'queued' AND (priority_rank, dispatch) <= (?, ?)"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Work).decode


WORK_CLASSES: dict[str, WorkClass] = {kind.name: kind.work.work_class for kind in REGISTRY.kinds if kind.work}
"""By kind of aggregate."""
WorkKey = tuple[WorkClass, str]
WorkError = tuple[str | None, str | None]
"""Code and reason."""


class WorkRow(msgspec.Struct, frozen=True, kw_only=True):
    """`work` is the state machine's state; `etag` the sequence of the last commit."""

    work: Work
    worker: WorkerId | None
    error_code: str | None
    error: str | None
    actor: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    etag: int


class UnfinishedWork(msgspec.Struct, frozen=True, kw_only=True):
    """Work that has not ended and needs a message in the queue with this dispatch number."""

    id: str
    state: str
    priority_rank: int
    dispatch: int

    @property
    def priority(self) -> Priority:
        return PRIORITIES[self.priority_rank]


def apply(connection: Connection, batch: CommitBatch) -> None:
    by_work: defaultdict[WorkKey, list[RecordedCommit]] = defaultdict(list)
    for recorded in batch.commits:
        if (work_class := WORK_CLASSES.get(recorded.commit.aggregate_kind)) is not None:
            by_work[work_class, recorded.commit.aggregate_id].append(recorded)
    for key, commits in by_work.items():
        first = commits[0].commit
        connection.execute(CREATE, (*key, _encode(Work()), first.actor, first.at.isoformat()))
        work = _decode(connection.execute(FIND, key).fetchone()["work"])
        for recorded in commits:
            work = _apply_commit(connection, key, work, recorded)
        row = (work.state, status_of(work.state), PRIORITIES.index(work.priority), work.dispatch)
        connection.execute(UPDATE, (*row, _encode(work), commits[-1].sequence, *key))


def _apply_commit(connection: Connection, key: WorkKey, work: Work, recorded: RecordedCommit) -> Work:
    """The work after a commit; also writes the rows of its attempts and its end."""
    at = recorded.commit.at.isoformat()
    for event in recorded.commit.events:
        work = evolve(work, event, recorded.sequence)
        match event:
            case AttemptStarted(worker=worker, resumes=resumes):
                connection.execute(END_ATTEMPT, ("crashed", None, *key))
                connection.execute(START_ATTEMPT, (*key, recorded.sequence, worker, resumes, at))
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


def _end(connection: Connection, key: WorkKey, outcome: str, at: str, error: WorkError = (None, None)) -> None:
    connection.execute(END_ATTEMPT, (outcome, error[1], *key))
    connection.execute(END, (at, *error, *key))


def find(connection: Connection, work_class: WorkClass, work_id: str) -> WorkRow | None:
    return fetch_one(connection, WorkRow, FIND, (work_class, work_id))


def list_unfinished(connection: Connection, work_class: WorkClass) -> list[UnfinishedWork]:
    """All work that has not ended, in queue order: for the dispatcher."""
    return fetch(connection, UnfinishedWork, UNFINISHED, (work_class,))


def freezing_jobs(connection: Connection) -> list[JobId]:
    """The jobs whose data sets are to be frozen, in the order of their priorities and ages."""
    return [row["id"] for row in connection.execute(FREEZING)]


def unfinished_since(connection: Connection, work_class: WorkClass, sequence: int) -> list[str]:
    """The ids of work that may have been queued at a sequence: queued now, or changed since. The rest had ended."""
    return [row["id"] for row in connection.execute(UNFINISHED_SINCE, (work_class, sequence))]


def queue_position(connection: Connection, work_class: WorkClass, work: Work) -> int | None:
    """Its position in the queue (1 = next); none if it is not queued."""
    if work.state != "queued":
        return None
    rank = PRIORITIES.index(work.priority)
    return fetch_number(connection, POSITION, (work_class, rank, work.dispatch))


def attempts(connection: Connection, work_class: WorkClass, work_id: str) -> tuple[AttemptView, ...]:
    """Oldest first."""
    return tuple(fetch(connection, AttemptView, ATTEMPTS, (work_class, work_id)))
