"""Every stream and subject name; no other module spells out a subject."""

from typing import Literal

EVENTS = "EVT"
"""The event log: `evt.<aggregate kind>.<aggregate id>`."""
QUEUE = "JOBS"
"""The work queue: `jobs.<class>.<priority>.<id>`."""
METRICS = "MET"
"""Loss curves in blocks: `met.job.<id>`."""
LEASES = "KV_catalog"
"""The stream behind the catalog's key-value bucket."""
WRITER = "$KV.catalog.writer"
"""The key of the single-writer lease."""

ALL_EVENTS = "evt.>"
ALL_QUEUED = "jobs.>"
ALL_METRICS = "met.>"
ALL_LEASES = "$KV.catalog.>"
ALL_PROGRESS = "prog.>"
ALL_PRESENCE = "wrk.>"
APPLIED = "news.applied"
"""The catalog's announcement of the sequence its read model has applied (core publish)."""

ERASED = "news.erased"
"""The catalog's announcement that images were erased; holders of copies delete them (core publish)."""

AggregateKind = Literal["dataset", "job", "tagging", "preset", "log"]
WorkClass = Literal["train", "tag"]
Priority = Literal["high", "normal", "low"]
Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
"""The status of a job or tagging run as clients see it; `contracts.jobs` has the states behind it."""

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
CLASS_OF: dict[str, WorkClass] = {"job": "train", "tagging": "tag"}
KIND_OF: dict[WorkClass, AggregateKind] = {"train": "job", "tag": "tagging"}


def aggregate(kind: AggregateKind, aggregate_id: str) -> str:
    """The subject that holds the history of one aggregate."""
    return f"evt.{kind}.{aggregate_id}"


def aggregate_of(subject: str) -> tuple[str, str]:
    """`evt.<kind>.<id>` → (aggregate kind, aggregate id)."""
    _, kind, aggregate_id = subject.split(".")
    return kind, aggregate_id


def queued(work: WorkClass, priority: Priority, work_id: str) -> str:
    return f"jobs.{work}.{priority}.{work_id}"


def queue_filter(work: WorkClass, priority: Priority) -> str:
    return f"jobs.{work}.{priority}.*"


def queue_consumer(work: WorkClass, priority: Priority) -> str:
    """The durable consumer shared by all workers of a class, one for each priority."""
    return f"{work}-{priority}"


def command(service: str, family: str) -> str:
    return f"cmd.{service}.{family}"


def query(service: str, name: str) -> str:
    return f"qry.{service}.{name}"


def wake(work: WorkClass, work_id: str) -> str:
    """Asks the worker that holds this work to read the log now; the message has no content."""
    return f"ctl.{work}.{work_id}"


def progress(work: WorkClass, work_id: str) -> str:
    return f"prog.{work}.{work_id}"


def presence(service: str, worker_id: str) -> str:
    return f"wrk.{service}.{worker_id}"


def metrics(job_id: str) -> str:
    return f"met.job.{job_id}"
