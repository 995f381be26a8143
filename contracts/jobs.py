"""The state machine of work: jobs (training) and tagging runs follow the same rules. Pure.

Two services write to these aggregates: the catalog appends what is requested, the worker that holds the attempt appends
what happened. The attempt is the fencing token: `check_fencing_token` refuses a worker's event that names another
attempt than the current one or comes after the end, whatever the log's sequence says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from contracts.errors import Fenced, IllegalTransition, NotFound
from contracts.events import (
    AttemptFailed,
    AttemptStarted,
    Cancelled,
    CancelRequested,
    Event,
    Failed,
    Interrupted,
    JobAttemptFailed,
    JobAttemptStarted,
    JobCancelled,
    JobCancelRequested,
    JobCheckpointed,
    JobCreated,
    JobFailed,
    JobInterrupted,
    JobPlanned,
    JobPrioritised,
    JobQueued,
    JobRemoved,
    JobSampled,
    JobSucceeded,
    Queued,
    TaggingAttemptFailed,
    TaggingAttemptStarted,
    TaggingCancelled,
    TaggingCancelRequested,
    TaggingFailed,
    TaggingInterrupted,
    TaggingModelLoaded,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
    TaggingSucceeded,
)
from contracts.ids import Digest, WorkerId
from contracts.subjects import Priority, Status, WorkClass

State = Literal["absent", "draft", "queued", "running", "cancelling", "completed", "failed", "cancelled", "removed"]
ENDED: frozenset[State] = frozenset({"completed", "failed", "cancelled", "removed"})
MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
"""Consecutive attempts that crashed without progress, after which the work fails instead of being retried for ever."""

WorkerEvent = (
    Interrupted
    | AttemptFailed
    | JobPlanned
    | JobCheckpointed
    | JobSampled
    | JobSucceeded
    | TaggingModelLoaded
    | TaggingPredicted
    | TaggingSucceeded
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the rules need of one job or tagging run."""

    state: State = "absent"
    priority: Priority = "normal"
    dispatch: int = 0
    """Sequence of the newest Queued event: a queue message must carry this number to be current."""
    attempt: int = 0
    """Sequence of the newest AttemptStarted event; 0 before the first."""
    attempts: int = 0
    open: bool = False
    """Whether the attempt has no end event of its own. (Its worker may be dead.)"""
    completed_units: int = 0
    """Steps (images of a tagging run) that the next attempt need not repeat."""
    completed_units_at_start: int = 0
    """The same, when the current attempt started."""
    checkpoint: Digest | None = None
    attempts_without_progress: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def evolve(work: Work, event: Event, sequence: int) -> Work:  # noqa: PLR0911, PLR0912 - one arm for each kind of event
    """The work after an event. It never refuses: the event has already happened."""
    match event:
        case JobCreated(priority=priority) | TaggingRequested(priority=priority):
            return replace(work, state="draft", priority=priority)
        case Queued(priority=priority):
            return replace(
                work, state="queued" if work.state == "draft" else work.state, priority=priority, dispatch=sequence
            )
        case JobPrioritised(priority=priority):
            return replace(work, priority=priority)
        case AttemptStarted():
            return replace(
                _close_attempt(work),
                state="running",
                attempt=sequence,
                attempts=work.attempts + 1,
                open=True,
                completed_units_at_start=work.completed_units,
            )
        case JobCheckpointed(step=step, checkpoint=checkpoint):
            return replace(work, completed_units=step, checkpoint=checkpoint)
        case TaggingPredicted(images=images):
            return replace(work, completed_units=work.completed_units + len(images))
        case Interrupted():
            attempts_without_progress = (
                0 if work.completed_units > work.completed_units_at_start else work.attempts_without_progress
            )
            return replace(
                work,
                state=_state_without_worker(work.state),
                open=False,
                attempts_without_progress=attempts_without_progress,
            )
        case AttemptFailed():
            return replace(_close_attempt(work), state=_state_without_worker(work.state))
        case CancelRequested():
            return replace(work, state="cancelling")
        case Cancelled():
            return replace(work, state="cancelled", open=False)
        case Failed():
            return replace(work, state="failed", open=False)
        case JobSucceeded() | TaggingSucceeded():
            return replace(work, state="completed", open=False)
        case JobRemoved():
            return replace(work, state="removed", open=False)
        case _:
            return work


def _state_without_worker(state: State) -> State:
    """The state without a worker: running work is queued again, a requested cancellation stays requested."""
    return "queued" if state == "running" else state


def _close_attempt(work: Work) -> Work:
    """Ends an attempt that is still open as crashed, and counts it if it made no progress."""
    if not work.open:
        return work
    return replace(
        work,
        open=False,
        attempts_without_progress=0
        if work.completed_units > work.completed_units_at_start
        else work.attempts_without_progress + 1,
    )


def fold(history: Iterable[tuple[Event, int]], start: Work | None = None) -> Work:
    """The work after a history of (event, sequence of its commit)."""
    work = start or Work()
    for event, sequence in history:
        work = evolve(work, event, sequence)
    return work


def check_fencing_token(work: Work, event: Event, attempt: int) -> None:
    """Fenced unless the worker that holds `attempt` may append this event now."""
    if work.ended:
        raise Fenced(f"the work has ended ({work.state})")
    if attempt != work.attempt or not work.open:
        raise Fenced(f"attempt {work.attempt} holds the work now, not {attempt}")
    if not isinstance(event, WorkerEvent | Cancelled | Failed) or event.attempt != attempt:
        raise Fenced(f"{type(event).__name__} is not an event of attempt {attempt}")


def open_attempt(work: Work, work_class: WorkClass, *, dispatch: int, worker: WorkerId, boot: str) -> Event | None:
    """The event to append when a worker fetches the message with this dispatch number; None: the message is stale."""
    if work.state in ("absent", "draft") or work.ended or dispatch != work.dispatch:
        return None
    crashed = _close_attempt(work)
    if work.state == "cancelling":
        return (JobCancelled if work_class == "train" else TaggingCancelled)(
            attempt=work.attempt, step=work.completed_units
        )
    if crashed.attempts_without_progress >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        count = crashed.attempts_without_progress
        reason = f"{count} consecutive attempts crashed without progress; see the log of the worker"
        return failed(work_class, attempt=work.attempt, code="poison", reason=reason)
    start = JobAttemptStarted if work_class == "train" else TaggingAttemptStarted
    return start(worker=worker, boot=boot, resumes=work.completed_units)


def enqueue(work: Work, work_class: WorkClass, priority: Priority | None = None) -> Event | None:
    """The event that queues the work with a new dispatch number; None where it is already queued or running."""
    match work.state:
        case "absent" | "removed":
            raise NotFound("this job or tagging run does not exist")
        case "draft":
            return (JobQueued if work_class == "train" else TaggingQueued)(priority=priority or work.priority)
        case "queued" | "running":
            return None
        case state:
            raise IllegalTransition(
                f"it is {_describe_state(state)} and cannot be started", state=state, allowed=_allowed_actions(state)
            )


def cancel(work: Work, work_class: WorkClass, reason: str = "") -> list[Event]:
    """The events of a cancellation: queued work ends at once, running work is asked to stop; repeating is a no-op."""
    requested = (JobCancelRequested if work_class == "train" else TaggingCancelRequested)(reason=reason)
    match work.state:
        case "absent" | "removed":
            raise NotFound("this job or tagging run does not exist")
        case "draft" | "queued":
            return [requested, (JobCancelled if work_class == "train" else TaggingCancelled)()]
        case "running":
            return [requested]
        case "cancelling" | "cancelled":
            return []
        case state:
            raise IllegalTransition(
                f"it is {_describe_state(state)} and cannot be cancelled", state=state, allowed=_allowed_actions(state)
            )


def interrupted(work_class: WorkClass, *, attempt: int, step: int, reason: str) -> Event:
    return (JobInterrupted if work_class == "train" else TaggingInterrupted)(attempt=attempt, step=step, reason=reason)


def attempt_failed(work_class: WorkClass, *, attempt: int, step: int, reason: str) -> Event:
    return (JobAttemptFailed if work_class == "train" else TaggingAttemptFailed)(
        attempt=attempt, step=step, reason=reason
    )


def cancelled(work_class: WorkClass, *, attempt: int, step: int) -> Event:
    return (JobCancelled if work_class == "train" else TaggingCancelled)(attempt=attempt, step=step)


def failed(work_class: WorkClass, *, attempt: int, code: str, reason: str) -> Event:
    return (JobFailed if work_class == "train" else TaggingFailed)(attempt=attempt, code=code, reason=reason)


def status_of(state: State) -> Status:
    """The status shown to clients, one of six; `phase` has the details."""
    match state:
        case "draft" | "queued" | "absent":
            return "pending"
        case "running" | "cancelling":
            return "running"
        case "completed":
            return "completed"
        case "failed":
            return "failed"
        case "cancelled" | "removed":
            return "cancelled"


def _describe_state(state: State) -> str:
    return {"cancelling": "being cancelled", "completed": "completed already"}.get(state, state)


def _allowed_actions(state: State) -> list[str]:
    """The actions that are still possible, for the error's `allowed` member."""
    return [] if state == "cancelling" else ["delete"]
