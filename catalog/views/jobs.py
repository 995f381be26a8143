"""Jobs as requested, and their outputs: plan, checkpoints, samples, artifacts. Their state is in `work`."""

import msgspec

from catalog.database import Connection
from catalog.rows import fetch, fetch_number, fetch_one
from catalog.views.batch import CommitBatch
from contracts.events.jobs import (
    Artifact,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobPlanned,
    JobSampled,
    JobSucceeded,
    JobVersionSet,
)
from contracts.ids import JobId
from contracts.queries.jobs import CheckpointView, SampleView

TABLES = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    request BLOB NOT NULL,
    version BLOB,
    plan BLOB,
    artifacts BLOB NOT NULL DEFAULT X'5B5D',
    created_sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_by_age ON job (created_sequence);
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

CREATE = "INSERT OR IGNORE INTO job (id, dataset_id, request, created_sequence) VALUES (?, ?, ?, ?)"
SET_REQUEST = "UPDATE job SET request = ? WHERE id = ?"
SET_VERSION = "UPDATE job SET version = ? WHERE id = ?"
SET_PLAN = "UPDATE job SET plan = ? WHERE id = ?"
SET_ARTIFACTS = "UPDATE job SET artifacts = ? WHERE id = ?"
# A later attempt that repeats a step replaces what an earlier one saved there.
ADD_CHECKPOINT = "INSERT OR REPLACE INTO checkpoint_of_job VALUES (?, ?, ?, ?, ?, ?)"
ADD_SAMPLE = "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?)"

FIND = "SELECT * FROM job WHERE id = ?"
FILTERED = """
FROM job JOIN work ON work.class = 'train' AND work.id = job.id
WHERE work.state != 'removed' AND (:status IS NULL OR work.status = :status)
    AND (:dataset IS NULL OR job.dataset_id = :dataset)
"""
PAGE = "SELECT job.* " + FILTERED + " AND created_sequence < :before ORDER BY created_sequence DESC LIMIT :limit"
COUNT = "SELECT COUNT(*) " + FILTERED
COUNT_OUTPUTS = """
SELECT (SELECT COUNT(*) FROM checkpoint_of_job WHERE job_id = :id) AS checkpoints,
    (SELECT COUNT(*) FROM sample WHERE job_id = :id) AS samples
"""
CHECKPOINTS = """
SELECT step, attempt, checkpoint, size, at FROM checkpoint_of_job WHERE job_id = ? AND step > ? ORDER BY step LIMIT ?
"""
SAMPLES = """
SELECT step, number AS "index", '' AS prompt, seed, picture, at FROM sample
WHERE job_id = ? AND (step, number) > (?, ?) ORDER BY step, number LIMIT ?
"""

_encode = msgspec.json.Encoder().encode


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """`request` includes later edits of name, description and labels; the current priority is in the work.

    `version` is none until the data set is frozen for it.
    """

    id: JobId
    request: JobCreated
    version: JobVersionSet | None
    plan: JobPlanned | None
    artifacts: tuple[Artifact, ...]
    created_sequence: int


def apply(connection: Connection, batch: CommitBatch) -> None:
    types = (JobCreated, JobVersionSet, JobEdited, JobPlanned, JobCheckpointed, JobSampled, JobSucceeded)
    for recorded, event in batch.events(*types):
        job_id, at = recorded.commit.aggregate_id, recorded.commit.at.isoformat()
        match event:
            case JobCreated(dataset_id=dataset_id):
                connection.execute(CREATE, (job_id, dataset_id, _encode(event), recorded.sequence))
            case JobVersionSet():
                connection.execute(SET_VERSION, (_encode(event), job_id))
            case JobEdited():
                _edit(connection, job_id, event)
            case JobPlanned():
                connection.execute(SET_PLAN, (_encode(event), job_id))
            case JobCheckpointed():
                row = (event.step, event.attempt, event.checkpoint, event.size, at)
                connection.execute(ADD_CHECKPOINT, (job_id, *row))
            case JobSampled():
                connection.execute(ADD_SAMPLE, (job_id, event.step, event.index, event.picture, event.seed, at))
            case JobSucceeded(artifacts=artifacts):
                connection.execute(SET_ARTIFACTS, (_encode(artifacts), job_id))


def _edit(connection: Connection, job_id: str, edit: JobEdited) -> None:
    job = find(connection, job_id)
    changes = {name: value for name, value in msgspec.structs.asdict(edit).items() if value is not None}
    if job is not None and changes:
        connection.execute(SET_REQUEST, (_encode(msgspec.structs.replace(job.request, **changes)), job_id))


def find(connection: Connection, job_id: str) -> JobRow | None:
    """Also a removed one (the state of its work says so)."""
    return fetch_one(connection, JobRow, FIND, (job_id,))


def page(connection: Connection, status: str | None, dataset_id: str | None, before: int, limit: int) -> list[JobRow]:
    """Newest first, those created before a sequence."""
    parameters = {"status": status, "dataset": dataset_id, "before": before, "limit": limit}
    return fetch(connection, JobRow, PAGE, parameters)


def count(connection: Connection, status: str | None, dataset_id: str | None) -> int:
    return fetch_number(connection, COUNT, {"status": status, "dataset": dataset_id})


def count_outputs(connection: Connection, job_id: str) -> tuple[int, int]:
    """The numbers of checkpoints and samples."""
    row = connection.execute(COUNT_OUTPUTS, {"id": job_id}).fetchone()
    return row["checkpoints"], row["samples"]


def checkpoints(connection: Connection, job_id: str, after: int, limit: int) -> list[CheckpointView]:
    """By step, those after a step."""
    return fetch(connection, CheckpointView, CHECKPOINTS, (job_id, after, limit))


def samples(connection: Connection, job_id: str, after: tuple[int, int], limit: int) -> list[SampleView]:
    """By step, those after (step, number); their prompts are not known here."""
    return fetch(connection, SampleView, SAMPLES, (job_id, *after, limit))
