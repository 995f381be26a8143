"""Every stream and subject name; those of telemetry stand with its types (`contracts.telemetry`)."""

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

ALL_EVENTS = "evt.*.*"
ALL_QUEUED = "jobs.>"
ALL_METRICS = "met.>"
ALL_LEASES = "$KV.catalog.>"
WorkClass = Literal["train", "tag"]
WorkerService = Literal["trainer", "tagger"]
Priority = Literal["high", "normal", "low"]
Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
"""The status of a job or tagging run as clients see it; `contracts.jobs` has the states behind it."""

STORE_API = "$JS.API"
"""Prefix of JetStream's API in the account that holds the streams."""
IMPORTED_API = "log.api"
"""Its prefix in the accounts of services, which import a part of it."""

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


def aggregate(kind: str, aggregate_id: str) -> str:
    """The subject that holds the history of one aggregate."""
    return f"evt.{kind}.{aggregate_id}"


def inbox(role: str) -> str:
    """The inbox prefix of a role; no other role may subscribe to it."""
    return f"_INBOX_{role}"


def jetstream_api(role: str) -> str:
    """The prefix of JetStream's API as a role's account knows it."""
    return STORE_API if role == "admin" else IMPORTED_API


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


def service_key(service: str) -> str:
    """Requests to register a signing key of this service; only its own account may send them."""
    return f"key.{service}"


def wake(work: WorkClass, work_id: str) -> str:
    """Asks the worker that holds this work to read the log now; the message has no content."""
    return f"ctl.{work}.{work_id}"


def metrics(job_id: str) -> str:
    return f"met.job.{job_id}"
