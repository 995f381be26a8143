"""The state machine of work: jobs (training) and tagging runs follow the same rules. Pure.

Two services write to these aggregates: the catalog appends what is requested, the worker that holds the attempt appends
what happened. The attempt is the fencing token: `check_fencing_token` refuses a worker's event that names another
attempt than the current one or comes after the end, whatever the log's sequence says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import msgspec

from contracts.errors import Fenced, IllegalTransition, NotFound
from contracts.events.base import Event
from contracts.events.jobs import (
    JobCheckpointed,
    JobCreated,
    JobPrioritised,
    JobRemoved,
    JobStartRequested,
    JobSucceeded,
    JobVersionSet,
)
from contracts.events.tagging import TaggingPredicted, TaggingRequested, TaggingSucceeded
from contracts.events.work import (
    AttemptEvent,
    AttemptFailed,
    AttemptStarted,
    Cancelled,
    CancelRequested,
    Failed,
    Interrupted,
    Queued,
    WorkKind,
)
from contracts.ids import Digest, WorkerId
from contracts.subjects import Priority, Status

State = Literal[
    "absent",
    "freezing",
    "draft",
    "queued",
    "running",
    "cancelling",
    "completed",
    "failed",
    "cancelled",
    "removed",
]
ENDED: frozenset[State] = frozenset({"completed", "failed", "cancelled", "removed"})
MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
"""Consecutive attempts that crashed without progress, after which the work fails instead of being retried for ever."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the rules need of one job or tagging run."""

    state: State = "absent"
    """`freezing`: a job whose data set is being frozen for it."""
    start_requested: bool = False
    """Whether a job that is `freezing` is to be queued afterwards."""
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

    @property
    def attempt_has_progressed(self) -> bool:
        return self.completed_units > self.completed_units_at_start


def evolve(work: Work, event: Event, sequence: int) -> Work:  # noqa: PLR0911, PLR0912 - one arm for each kind of event
    """The work after an event. It never refuses: the event has already happened."""
    match event:
        case JobCreated(priority=priority):
            return replace(work, state="freezing", priority=priority)
        case JobStartRequested():
            return replace(work, start_requested=True)
        case JobVersionSet():
            return replace(work, state="draft") if work.state == "freezing" else work
        case TaggingRequested(priority=priority):
            return replace(work, state="draft", priority=priority)
        case Queued(priority=priority):
            state = "queued" if work.state == "draft" else work.state
            return replace(work, state=state, priority=priority, dispatch=sequence)
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
            without_progress = 0 if work.attempt_has_progressed else work.attempts_without_progress
            work = replace(work, open=False, attempts_without_progress=without_progress)
            return replace(work, state=_state_without_worker(work.state))
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
    without_progress = 0 if work.attempt_has_progressed else work.attempts_without_progress + 1
    return replace(work, open=False, attempts_without_progress=without_progress)


def fold(history: Iterable[tuple[Event, int]], start: Work | None = None) -> Work:
    """The work after a history of (event, sequence of its commit)."""
    return reduce(lambda work, recorded: evolve(work, *recorded), history, start or Work())


def check_fencing_token(work: Work, event: Event, attempt: int) -> None:
    """Fenced unless the worker that holds `attempt` may append this event now."""
    if work.ended:
        raise Fenced(f"the work has ended ({work.state})")
    if attempt != work.attempt or not work.open:
        raise Fenced(f"attempt {work.attempt} holds the work now, not {attempt}")
    if not isinstance(event, AttemptEvent) or event.attempt != attempt:
        raise Fenced(f"{type(event).__name__} is not an event of attempt {attempt}")


def with_completed_steps(work: Work, event: Event) -> Event:
    """The end of an attempt, naming all completed steps, also those of a report whose confirmation was lost."""
    if isinstance(event, Interrupted | AttemptFailed | Cancelled) and event.step < work.completed_units:
        return msgspec.structs.replace(event, step=work.completed_units)
    return event


def open_attempt(work: Work, kind: WorkKind, *, dispatch: int, worker: WorkerId, boot: str) -> Event | None:
    """The event to append when a worker fetches the message with this dispatch number; None: the message is stale."""
    if work.state in ("absent", "freezing", "draft") or work.ended or dispatch != work.dispatch:
        return None
    crashed = _close_attempt(work)
    if work.state == "cancelling":
        return kind.cancelled(attempt=work.attempt, step=work.completed_units)
    if crashed.attempts_without_progress >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        count = crashed.attempts_without_progress
        reason = f"{count} consecutive attempts crashed without progress; see the log of the worker"
        return kind.failed(attempt=work.attempt, code="poison", reason=reason)
    return kind.attempt_started(worker=worker, boot=boot, resumes=work.completed_units)


def enqueue(work: Work, kind: WorkKind, priority: Priority | None = None) -> Event | None:
    """The event that queues the work with a new dispatch number; None where it is already queued or running.

    A job whose data set is still being frozen is queued afterwards, and the event says so.
    """
    match work.state:
        case "absent" | "removed":
            raise NotFound("this job or tagging run does not exist")
        case "freezing":
            return None if work.start_requested else JobStartRequested()
        case "draft":
            return kind.queued(priority=priority or work.priority)
        case "queued" | "running":
            return None
        case state:
            raise _illegal(state, "started")


def cancel(work: Work, kind: WorkKind, reason: str = "") -> list[Event]:
    """The events of a cancellation: queued work ends at once, running work is asked to stop; repeating is a no-op."""
    requested = kind.cancel_requested(reason=reason)
    match work.state:
        case "absent" | "removed":
            raise NotFound("this job or tagging run does not exist")
        case "freezing" | "draft" | "queued":
            return [requested, kind.cancelled()]
        case "running":
            return [requested]
        case "cancelling" | "cancelled":
            return []
        case state:
            raise _illegal(state, "cancelled")


def status_of(state: State) -> Status:
    """The status shown to clients, one of six; `phase` has the details."""
    match state:
        case "freezing" | "draft" | "queued" | "absent":
            return "pending"
        case "running" | "cancelling":
            return "running"
        case "completed" | "failed":
            return state
        case "cancelled" | "removed":
            return "cancelled"


def _illegal(state: State, action: str) -> IllegalTransition:
    """The error of an impossible action; its member `allowed` names the actions that are still possible."""
    described = {"cancelling": "being cancelled", "completed": "completed already"}.get(state, state)
    allowed = [] if state == "cancelling" else ["delete"]
    return IllegalTransition(f"it is {described} and cannot be {action}", state=state, allowed=allowed)
