"""Why does it wait? Worked out from who is there and the place in the queue. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from contracts.queries import JobView, TaggingView
from contracts.telemetry import Presence, Progress, TaggingProgress, TrainingProgress


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """`why` is for people, `code` for programs; `position` in the queue of its class (1 = next)."""

    why: str
    code: Literal["no-worker", "worker-starting", "no-model", "queued"]
    position: int | None
    since: datetime | None


class LiveJob(msgspec.Struct, frozen=True, kw_only=True):
    """What is true now and kept nowhere: the last progress told by the trainer, and why a pending job waits."""

    progress: TrainingProgress | None = None
    waiting: Waiting | None = None


class LiveTagging(msgspec.Struct, frozen=True, kw_only=True):
    """What is true now and kept nowhere: the last progress told by the tagger, and why a pending run waits."""

    progress: TaggingProgress | None = None
    waiting: Waiting | None = None


class JobNow(JobView, frozen=True, kw_only=True):
    """A job as the log knows it; `live` is what is only true now."""

    live: LiveJob


class TaggingNow(TaggingView, frozen=True, kw_only=True):
    """A tagging run as the log knows it; `live` is what is only true now."""

    live: LiveTagging


def waiting(view: JobView | TaggingView, workers: Sequence[Presence], without: datetime | None) -> Waiting | None:
    """Nothing for what does not wait (it runs, has ended, or was never started). `workers`: those of its class."""
    if view.status != "pending" or view.phase == "draft":
        return None
    service = "trainer" if isinstance(view, JobView) else "tagger"
    if not workers:
        since = f" since {without:%Y-%m-%d %H:%M:%S} UTC" if without else ""
        return Waiting(why=f"no {service} connected{since}", code="no-worker", position=view.position, since=without)
    if all(worker.state == "starting" for worker in workers):
        return Waiting(why=f"{service} starting", code="worker-starting", position=view.position, since=None)
    if isinstance(view, TaggingView) and not any(view.model in worker.models for worker in workers):
        why = f"no tagger here has the model {view.model!r}"
        return Waiting(why=why, code="no-model", position=view.position, since=None)
    return Waiting(why=f"position {view.position or 1}", code="queued", position=view.position, since=view.created_at)


def job_now(view: JobView, progress: Progress | None, workers: Sequence[Presence], without: datetime | None) -> JobNow:
    told = progress if isinstance(progress, TrainingProgress) and view.status == "running" else None
    trainers = [worker for worker in workers if worker.service == "trainer"]
    live = LiveJob(progress=told, waiting=waiting(view, trainers, without))
    return JobNow(**msgspec.structs.asdict(view), live=live)


def tagging_now(
    view: TaggingView, progress: Progress | None, workers: Sequence[Presence], without: datetime | None
) -> TaggingNow:
    told = progress if isinstance(progress, TaggingProgress) and view.status == "running" else None
    taggers = [worker for worker in workers if worker.service == "tagger"]
    live = LiveTagging(progress=told, waiting=waiting(view, taggers, without))
    return TaggingNow(**msgspec.structs.asdict(view), live=live)
