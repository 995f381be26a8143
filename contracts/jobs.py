"""The state machine of work: jobs (training) and tagging runs move by the same rules. Pure.

Two services write here: the catalog says what is asked, the worker that holds the attempt says what happened. The
attempt is the fence: a worker's fact that names another attempt than the current one, or comes after the end, is
refused by `admit`, whatever the log's sequence says.
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
    Fact,
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
from contracts.subjects import Priority, WorkClass

State = Literal["absent", "draft", "queued", "running", "cancelling", "completed", "failed", "cancelled", "removed"]
Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"completed", "failed", "cancelled", "removed"})
FRUITLESS_LIMIT = 3
"""So many attempts in a row that died without keeping anything new, and the work is failed: it would go on for ever."""

OfWorker = (
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
    """What the rules need to know of one job or tagging run."""

    state: State = "absent"
    priority: Priority = "normal"
    dispatch: int = 0
    """Sequence of the newest Queued fact: the number a queue message must carry to be current."""
    attempt: int = 0
    """Sequence of the newest AttemptStarted fact; 0 before the first."""
    attempts: int = 0
    open: bool = False
    """Is the attempt without an end of its own? (Its worker may be dead.)"""
    kept: int = 0
    """Steps (images) that a next attempt need not do again."""
    kept_before: int = 0
    """The same, when the current attempt started."""
    checkpoint: Digest | None = None
    fruitless: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def evolve(work: Work, fact: Fact, sequence: int) -> Work:  # noqa: PLR0911, PLR0912 - one arm for each kind of fact
    """The work after a fact. It never refuses: the fact has already happened."""
    match fact:
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
                _closed(work),
                state="running",
                attempt=sequence,
                attempts=work.attempts + 1,
                open=True,
                kept_before=work.kept,
            )
        case JobCheckpointed(step=step, checkpoint=checkpoint):
            return replace(work, kept=step, checkpoint=checkpoint)
        case TaggingPredicted(images=images):
            return replace(work, kept=work.kept + len(images))
        case Interrupted():
            fruitless = 0 if work.kept > work.kept_before else work.fruitless
            return replace(work, state=_waiting(work.state), open=False, fruitless=fruitless)
        case AttemptFailed():
            return replace(_closed(work), state=_waiting(work.state))
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


def _waiting(state: State) -> State:
    """Without a worker, what ran waits again; what was to be cancelled still is."""
    return "queued" if state == "running" else state


def _closed(work: Work) -> Work:
    """The current attempt is over by a crash, if it was still open: did it keep anything?"""
    if not work.open:
        return work
    return replace(work, open=False, fruitless=0 if work.kept > work.kept_before else work.fruitless + 1)


def fold(history: Iterable[tuple[Fact, int]], start: Work | None = None) -> Work:
    """The work after a history of (fact, sequence of its commit)."""
    work = start or Work()
    for fact, sequence in history:
        work = evolve(work, fact, sequence)
    return work


def admit(work: Work, fact: Fact, attempt: int) -> None:
    """May the worker that holds `attempt` append this now? Fenced if it holds the work no longer."""
    if work.ended:
        raise Fenced(f"the work has ended ({work.state})")
    if attempt != work.attempt or not work.open:
        raise Fenced(f"attempt {work.attempt} holds the work now, not {attempt}")
    if not isinstance(fact, OfWorker | Cancelled | Failed) or fact.attempt != attempt:
        raise Fenced(f"{type(fact).__name__} is not a fact of attempt {attempt}")


def opening(work: Work, work_class: WorkClass, *, dispatch: int, worker: WorkerId, boot: str) -> Fact | None:
    """A worker has taken the hint with this dispatch number: what happens? None: the hint is out of date, drop it."""
    if work.state in ("absent", "draft") or work.ended or dispatch != work.dispatch:
        return None
    crashed = _closed(work)
    if work.state == "cancelling":
        return (JobCancelled if work_class == "train" else TaggingCancelled)(attempt=work.attempt, step=work.kept)
    if crashed.fruitless >= FRUITLESS_LIMIT:
        reason = f"{crashed.fruitless} attempts in a row died without keeping anything new; see the worker's log"
        return failed(work_class, attempt=work.attempt, code="poison", reason=reason)
    start = JobAttemptStarted if work_class == "train" else TaggingAttemptStarted
    return start(worker=worker, boot=boot, resumes=work.kept)


def queue_up(work: Work, work_class: WorkClass, priority: Priority | None = None) -> Fact | None:
    """Somebody wants it done: a new dispatch number, or nothing where it already waits or runs."""
    match work.state:
        case "absent" | "removed":
            raise NotFound("there is no such work")
        case "draft":
            return (JobQueued if work_class == "train" else TaggingQueued)(priority=priority or work.priority)
        case "queued" | "running":
            return None
        case state:
            raise IllegalTransition(f"it is {_said(state)} and cannot be started", state=state, allowed=_allowed(state))


def cancel(work: Work, work_class: WorkClass, reason: str = "") -> list[Fact]:
    """Somebody wants it stopped. What nobody holds ends at once; what runs is asked to stop; twice is no news."""
    asked = (JobCancelRequested if work_class == "train" else TaggingCancelRequested)(reason=reason)
    match work.state:
        case "absent" | "removed":
            raise NotFound("there is no such work")
        case "draft" | "queued":
            return [asked, (JobCancelled if work_class == "train" else TaggingCancelled)()]
        case "running":
            return [asked]
        case "cancelling" | "cancelled":
            return []
        case state:
            raise IllegalTransition(
                f"it is {_said(state)} and cannot be cancelled", state=state, allowed=_allowed(state)
            )


def interrupted(work_class: WorkClass, *, attempt: int, step: int, reason: str) -> Fact:
    return (JobInterrupted if work_class == "train" else TaggingInterrupted)(attempt=attempt, step=step, reason=reason)


def attempt_failed(work_class: WorkClass, *, attempt: int, step: int, reason: str) -> Fact:
    return (JobAttemptFailed if work_class == "train" else TaggingAttemptFailed)(
        attempt=attempt, step=step, reason=reason
    )


def cancelled(work_class: WorkClass, *, attempt: int, step: int) -> Fact:
    return (JobCancelled if work_class == "train" else TaggingCancelled)(attempt=attempt, step=step)


def failed(work_class: WorkClass, *, attempt: int, code: str, reason: str) -> Fact:
    return (JobFailed if work_class == "train" else TaggingFailed)(attempt=attempt, code=code, reason=reason)


def status_of(state: State) -> Status:
    """The word on the wire (the seed's six); finer detail is in `phase`."""
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


def _said(state: State) -> str:
    return {"cancelling": "being cancelled", "completed": "completed already"}.get(state, state)


def _allowed(state: State) -> list[str]:
    """What may still be done; told to those who asked for something else."""
    return [] if state == "cancelling" else ["delete"]
