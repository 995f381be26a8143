"""Job and tagging run views with their live state: the last progress, and why pending work waits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from contracts.queries.jobs import JobView
from contracts.queries.tagging import TaggingView
from contracts.telemetry import Presence, TaggingProgress, TrainingProgress
from gateway.live.feed import LiveFeed


class WaitReason(msgspec.Struct, frozen=True, kw_only=True):
    """`why` is for people, `code` for programs; `position` is that in the queue of its work class (1 = next)."""

    why: str
    code: Literal["no-worker", "worker-starting", "no-model", "queued", "freezing"]
    position: int | None
    since: datetime | None


class JobLiveState(msgspec.Struct, frozen=True, kw_only=True):
    """State that is not stored: the trainer's last progress message, and why a pending job waits."""

    progress: TrainingProgress | None = None
    waiting: WaitReason | None = None


class TaggingRunLiveState(msgspec.Struct, frozen=True, kw_only=True):
    """State that is not stored: the tagger's last progress message, and why a pending run waits."""

    progress: TaggingProgress | None = None
    waiting: WaitReason | None = None


class JobProgress(NamedTuple):
    """In the words of progress frames; of a job that has ended, `completed_at` is when."""

    progress_percentage: float
    current_step: int
    total_steps: int | None
    completed_at: datetime | None


class JobWithLiveState(JobView, frozen=True, kw_only=True):
    """A job as recorded in the log; `live` is its current, unrecorded state.

    `current_step` of `total_steps` is `progress_percentage` of 100, with steps that are not recorded yet.
    `completed_at` is `ended_at`.
    """

    live: JobLiveState
    progress_percentage: float
    current_step: int
    total_steps: int | None
    completed_at: datetime | None


class TaggingRunWithLiveState(TaggingView, frozen=True, kw_only=True):
    """A tagging run as recorded in the log; `live` is its current, unrecorded state."""

    live: TaggingRunLiveState


def explain_wait(
    view: JobView | TaggingView, workers: Sequence[Presence], absent_since: datetime | None
) -> WaitReason | None:
    """None unless it waits (it runs, has ended, or was never started). `workers`: those of its work class."""
    if view.status != "pending" or view.phase == "draft":
        return None
    if view.phase == "freezing":
        why = "the data set is being frozen"
        return WaitReason(why=why, code="freezing", position=None, since=view.created_at)
    service = "trainer" if isinstance(view, JobView) else "tagger"
    if not workers:
        since = f" since {absent_since:%Y-%m-%d %H:%M:%S} UTC" if absent_since else ""
        return WaitReason(
            why=f"no {service} connected{since}", code="no-worker", position=view.position, since=absent_since
        )
    if all(worker.state == "starting" for worker in workers):
        return WaitReason(why=f"{service} starting", code="worker-starting", position=view.position, since=None)
    if isinstance(view, TaggingView) and not any(view.model in worker.models for worker in workers):
        why = f"no connected tagger has the model {view.model!r}"
        return WaitReason(why=why, code="no-model", position=view.position, since=None)
    return WaitReason(
        why=f"position {view.position or 1}", code="queued", position=view.position, since=view.created_at
    )


def add_job_live_state(feed: LiveFeed, view: JobView) -> JobWithLiveState:
    """The job with its progress while it runs, and the reason while it waits."""
    progress = feed.progress_of(view.id, TrainingProgress) if view.status == "running" else None
    waiting = explain_wait(view, feed.workers("trainer"), feed.absent_since("trainer"))
    return with_live_state(view, JobLiveState(progress=progress, waiting=waiting))


def with_live_state(view: JobView, live: JobLiveState) -> JobWithLiveState:
    progress = job_progress(view, live.progress)
    return JobWithLiveState(**msgspec.structs.asdict(view), live=live, **progress._asdict())


def job_progress(view: JobView, live: TrainingProgress | None) -> JobProgress:
    """A completed job is at 100 percent, whatever its steps."""
    step = view.step if live is None else max(view.step, live.step)
    done = 100.0 if view.status == "completed" else 100.0 * step / view.steps if view.steps else 0.0
    return JobProgress(round(min(done, 100.0), 2), step, view.steps, view.ended_at)


def add_tagging_live_state(feed: LiveFeed, view: TaggingView) -> TaggingRunWithLiveState:
    """The tagging run with its progress while it runs, and the reason while it waits."""
    progress = feed.progress_of(view.id, TaggingProgress) if view.status == "running" else None
    waiting = explain_wait(view, feed.workers("tagger"), feed.absent_since("tagger"))
    live = TaggingRunLiveState(progress=progress, waiting=waiting)
    return TaggingRunWithLiveState(**msgspec.structs.asdict(view), live=live)
