"""Every stream and subject name. Nobody else writes a dot."""

from typing import Literal

FACTS = "EVT"
"""The one log: `evt.<kind>.<id>`."""
QUEUE = "JOBS"
"""Hints that work waits: `jobs.<class>.<priority>.<id>`."""
METRICS = "MET"
"""Loss curves in blocks: `met.job.<id>`."""
LEASES = "KV_catalog"
"""The key-value bucket of the catalog."""
WRITER = "$KV.catalog.writer"
"""Held by the one catalog that writes."""

ALL_FACTS = "evt.>"
ALL_QUEUED = "jobs.>"
ALL_METRICS = "met.>"
ALL_LEASES = "$KV.catalog.>"
ALL_PROGRESS = "prog.>"
ALL_PRESENCE = "wrk.>"
NEWS = "news.applied"
"""The catalog's announcement of how far its read model has come (core publish)."""

ERASED = "news.erased"
"""The catalog's word that pictures were erased: whoever keeps copies of pictures drops them (core publish)."""

Kind = Literal["dataset", "job", "tagging", "preset", "log"]
WorkClass = Literal["train", "tag"]
Priority = Literal["high", "normal", "low"]

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
CLASS_OF: dict[str, WorkClass] = {"job": "train", "tagging": "tag"}
KIND_OF: dict[WorkClass, Kind] = {"train": "job", "tag": "tagging"}


def fact(kind: Kind, thing_id: str) -> str:
    """Where the history of one thing lies."""
    return f"evt.{kind}.{thing_id}"


def thing_of(subject: str) -> tuple[str, str]:
    """`evt.<kind>.<id>` → (kind, id)."""
    _, kind, thing_id = subject.split(".")
    return kind, thing_id


def queued(work: WorkClass, priority: Priority, thing_id: str) -> str:
    return f"jobs.{work}.{priority}.{thing_id}"


def queue_filter(work: WorkClass, priority: Priority) -> str:
    return f"jobs.{work}.{priority}.*"


def queue_consumer(work: WorkClass, priority: Priority) -> str:
    """The durable consumer that all workers of a class share for one priority."""
    return f"{work}-{priority}"


def command(service: str, family: str) -> str:
    return f"cmd.{service}.{family}"


def query(service: str, name: str) -> str:
    return f"qry.{service}.{name}"


def nudge(work: WorkClass, thing_id: str) -> str:
    """Says only: look at the log now."""
    return f"ctl.{work}.{thing_id}"


def progress(work: WorkClass, thing_id: str) -> str:
    return f"prog.{work}.{thing_id}"


def presence(service: str, worker_id: str) -> str:
    return f"wrk.{service}.{worker_id}"


def metrics(job_id: str) -> str:
    return f"met.job.{job_id}"
