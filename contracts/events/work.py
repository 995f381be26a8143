"""Events that jobs and tagging runs share. `attempt` is the sequence of the attempt's AttemptStarted event."""

from contracts.events.base import Event
from contracts.ids import WorkerId
from contracts.subjects import Priority


class Queued(Event, frozen=True):
    """Queued for workers. The sequence of this event is the dispatch number; only the newest is current."""

    priority: Priority


class AttemptStarted(Event, frozen=True):
    """An attempt started, resuming after `resumes` completed steps (images). Its sequence identifies the attempt."""

    worker: WorkerId
    boot: str
    resumes: int


class Interrupted(Event, frozen=True):
    """The worker released the work in an orderly way; another continues. Never counted as a failure."""

    attempt: int
    step: int
    reason: str


class AttemptFailed(Event, frozen=True):
    """The worker's child process crashed or stalled. Another attempt follows, up to a limit."""

    attempt: int
    step: int
    reason: str


class CancelRequested(Event, frozen=True):
    """Cancellation was requested; the worker that holds the work stops."""

    reason: str = ""


class Cancelled(Event, frozen=True):
    """It was cancelled; `attempt` is 0 when no worker held it."""

    attempt: int = 0
    step: int = 0


class Failed(Event, frozen=True):
    """It failed for good. `code` is stable, `reason` a sentence that says what to do."""

    attempt: int
    code: str
    reason: str
