"""Jobs as asked for, and what came of them: plan, checkpoints, samples, artifacts. Their state stands in `work`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from catalog.database import Connection
from catalog.views import work
from catalog.views.batch import Batch
from catalog.views.work import WorkRow
from contracts.events import (
    Artifact,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobPlanned,
    JobSampled,
    JobSucceeded,
)
from contracts.ids import Digest, JobId
from contracts.queries import CheckpointView

TABLES = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    asked BLOB NOT NULL,
    planned BLOB,
    artifacts BLOB NOT NULL DEFAULT X'5B5D',
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_by_age ON job (created);
CREATE TABLE IF NOT EXISTS checkpoint_of_job (
    job_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    checkpoint TEXT NOT NULL,
    size INTEGER NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (job_id, step)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sample (
    job_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    number INTEGER NOT NULL,
    picture TEXT NOT NULL,
    seed INTEGER NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (job_id, step, number)
) WITHOUT ROWID;
"""

CREATE = "INSERT OR IGNORE INTO job (id, dataset_id, asked, created) VALUES (?, ?, ?, ?)"
EDIT = "UPDATE job SET asked = ? WHERE id = ?"
PLAN = "UPDATE job SET planned = ? WHERE id = ?"
FINISH = "UPDATE job SET artifacts = ? WHERE id = ?"
# A later attempt that passes the same step again replaces what an earlier one kept there.
CHECKPOINT = "INSERT OR REPLACE INTO checkpoint_of_job VALUES (?, ?, ?, ?, ?, ?)"
SAMPLE = "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?)"

FIND = "SELECT * FROM job WHERE id = ?"
LISTED = """
FROM job JOIN work ON work.class = 'train' AND work.id = job.id
WHERE work.state != 'removed' AND (:status IS NULL OR work.status = :status)
    AND (:dataset IS NULL OR job.dataset_id = :dataset)
"""
PAGE = "SELECT job.* " + LISTED + " AND created < :before ORDER BY created DESC LIMIT :limit"
COUNT = "SELECT COUNT(*) " + LISTED
OF_JOB = """
SELECT (SELECT COUNT(*) FROM checkpoint_of_job WHERE job_id = :id) AS checkpoints,
    (SELECT COUNT(*) FROM sample WHERE job_id = :id) AS samples
"""
CHECKPOINTS = """
SELECT step, attempt, checkpoint, size, at FROM checkpoint_of_job WHERE job_id = ? AND step > ? ORDER BY step LIMIT ?
"""
SAMPLES = """
SELECT step, number, picture, seed, at FROM sample
WHERE job_id = ? AND (step, number) > (?, ?) ORDER BY step, number LIMIT ?
"""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """`asked` with later edits of name, description and labels; its priority is in the work. `created`: a sequence."""

    id: JobId
    asked: JobCreated
    planned: JobPlanned | None
    artifacts: tuple[Artifact, ...]
    created: int


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    step: int
    number: int
    picture: Digest
    seed: int
    at: datetime


def apply(connection: Connection, batch: Batch) -> None:
    for stored, fact in batch.facts(JobCreated, JobEdited, JobPlanned, JobCheckpointed, JobSampled, JobSucceeded):
        thing, at = stored.commit.thing, stored.commit.at.isoformat()
        match fact:
            case JobCreated(dataset_id=dataset_id):
                connection.execute(CREATE, (thing, dataset_id, _encode(fact), stored.sequence))
            case JobEdited():
                _edit(connection, thing, fact)
            case JobPlanned():
                connection.execute(PLAN, (_encode(fact), thing))
            case JobCheckpointed():
                row = (fact.step, fact.attempt, fact.checkpoint, fact.size, at)
                connection.execute(CHECKPOINT, (thing, *row))
            case JobSampled():
                connection.execute(SAMPLE, (thing, fact.step, fact.index, fact.picture, fact.seed, at))
            case JobSucceeded(artifacts=artifacts):
                connection.execute(FINISH, (_encode(artifacts), thing))


def _edit(connection: Connection, thing: str, fact: JobEdited) -> None:
    row = connection.execute(FIND, (thing,)).fetchone()
    changes = {name: value for name, value in msgspec.structs.asdict(fact).items() if value is not None}
    if row is not None and changes:
        asked = msgspec.json.decode(row["asked"], type=JobCreated)
        connection.execute(EDIT, (_encode(msgspec.structs.replace(asked, **changes)), thing))


def find(connection: Connection, job_id: str) -> tuple[JobRow, WorkRow] | None:
    """Also one that was removed (the state says so)."""
    row = connection.execute(FIND, (job_id,)).fetchone()
    held = work.find(connection, "train", job_id)
    return None if row is None or held is None else (_row(dict(row)), held)


def page(connection: Connection, status: str | None, dataset_id: str | None, before: int, limit: int) -> list[JobRow]:
    """The newest first, those created before a sequence."""
    wanted = {"status": status, "dataset": dataset_id, "before": before, "limit": limit}
    return [_row(dict(row)) for row in connection.execute(PAGE, wanted)]


def count(connection: Connection, status: str | None, dataset_id: str | None) -> int:
    return int(connection.execute(COUNT, {"status": status, "dataset": dataset_id}).fetchone()[0])


def kept(connection: Connection, job_id: str) -> tuple[int, int]:
    """How many checkpoints and samples there are."""
    row = connection.execute(OF_JOB, {"id": job_id}).fetchone()
    return row["checkpoints"], row["samples"]


def checkpoints(connection: Connection, job_id: str, after: int, limit: int) -> list[CheckpointView]:
    rows = (dict(row) for row in connection.execute(CHECKPOINTS, (job_id, after, limit)))
    return [CheckpointView(**row | {"at": datetime.fromisoformat(row["at"])}) for row in rows]


def samples(connection: Connection, job_id: str, after: tuple[int, int], limit: int) -> list[SampleRow]:
    rows = (dict(row) for row in connection.execute(SAMPLES, (job_id, *after, limit)))
    return [SampleRow(**row | {"at": datetime.fromisoformat(row["at"])}) for row in rows]


def _row(row: dict[str, Any]) -> JobRow:
    planned = row["planned"]
    return JobRow(
        id=row["id"],
        asked=msgspec.json.decode(row["asked"], type=JobCreated),
        planned=None if planned is None else msgspec.json.decode(planned, type=JobPlanned),
        artifacts=msgspec.json.decode(row["artifacts"], type=tuple[Artifact, ...]),
        created=row["created"],
    )
