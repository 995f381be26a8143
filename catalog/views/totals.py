"""Totals over the rows of other views, for metrics."""

import msgspec

from catalog.database import Connection
from catalog.rows import fetch
from contracts.subjects import PRIORITIES, Priority, WorkClass

# Over the index `work_in_queue_order`.
WORK_BY_STATE = "SELECT class AS work_class, state, COUNT(*) AS count FROM work GROUP BY class, state"
QUEUED = """
SELECT class AS work_class, priority_rank, MIN(dispatch) AS oldest FROM work
WHERE state = 'queued' GROUP BY class, priority_rank
"""
ATTEMPTS = "SELECT class AS work_class, IFNULL(ended, '') AS state, COUNT(*) AS count FROM attempt GROUP BY 1, 2"
BLOBS = """
SELECT 'source' AS kind, COUNT(*) AS count, IFNULL(SUM(size), 0) AS bytes FROM image
UNION ALL SELECT 'checkpoint', COUNT(*), IFNULL(SUM(size), 0) FROM checkpoint_of_job
UNION ALL SELECT 'lora', COUNT(*), IFNULL(SUM(json_extract(value, '$.size')), 0)
    FROM job, json_each(CAST(job.artifacts AS TEXT))
UNION ALL SELECT 'sample', COUNT(*), NULL FROM sample
"""


class WorkTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs (or attempts) of a class in a state; of attempts, the state is how they ended, empty while they run."""

    work_class: WorkClass
    state: str
    count: int


class OldestQueued(msgspec.Struct, frozen=True, kw_only=True):
    """The dispatch number of the job that has been queued for the longest time; it is a sequence of the log."""

    work_class: WorkClass
    priority_rank: int
    oldest: int

    @property
    def priority(self) -> Priority:
        return PRIORITIES[self.priority_rank]


class BlobTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Blobs that events name; `bytes` is none where events do not say it."""

    kind: str
    count: int
    bytes: int | None


def work_by_state(connection: Connection) -> list[WorkTotal]:
    return fetch(connection, WorkTotal, WORK_BY_STATE)


def oldest_queued(connection: Connection) -> list[OldestQueued]:
    return fetch(connection, OldestQueued, QUEUED)


def attempts_by_end(connection: Connection) -> list[WorkTotal]:
    return fetch(connection, WorkTotal, ATTEMPTS)


def blobs(connection: Connection) -> list[BlobTotal]:
    """Reads all rows of images and jobs: not for every request."""
    return fetch(connection, BlobTotal, BLOBS)
