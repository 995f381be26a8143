"""Events that jobs and tagging runs share. `attempt` is the sequence of the attempt's AttemptStarted event."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from contracts.events.base import Event
from contracts.ids import WorkerId
from contracts.subjects import Priority, WorkClass, WorkerService
from contracts.wording import count

E = TypeVar("E", bound=Event)


class AttemptEvent(Event, frozen=True):
    """Appended by the worker that holds the attempt."""

    attempt: int


class Queued(Event, frozen=True):
    """Queued for workers. The sequence of this event is the dispatch number; only the newest is current."""

    priority: Priority

    def describe(self) -> str:
        return f"Queued with {self.priority} priority"


class AttemptStarted(Event, frozen=True):
    """An attempt started, resuming after `resumes` completed steps (images). Its sequence identifies the attempt."""

    worker: WorkerId
    boot: str
    resumes: int

    def describe(self) -> str:
        resuming = f" (resuming {_after(self, self.resumes)})" if self.resumes else ""
        return f"{_work(self)} started on worker {self.worker}{resuming}"


class Interrupted(AttemptEvent, frozen=True):
    """The worker released the work in an orderly way; another continues. Never counted as a failure."""

    step: int
    reason: str

    def describe(self) -> str:
        return f"{_work(self)} interrupted {_after(self, self.step)}: {self.reason}"


class AttemptFailed(AttemptEvent, frozen=True):
    """The worker's child process crashed or stalled. Another attempt follows, up to a limit."""

    step: int
    reason: str

    def describe(self) -> str:
        return f"{_work(self)} attempt failed {_after(self, self.step)}: {self.reason}"


class CancelRequested(Event, frozen=True):
    """Cancellation was requested; the worker that holds the work stops."""

    reason: str = ""

    def describe(self) -> str:
        return "Cancellation requested" + (f": {self.reason}" if self.reason else "")


class Cancelled(AttemptEvent, frozen=True):
    """It was cancelled; `attempt` is 0 when no worker held it."""

    attempt: int = 0
    step: int = 0

    def describe(self) -> str:
        return f"{_work(self)} cancelled" + (f" {_after(self, self.step)}" if self.step else "")


class Failed(AttemptEvent, frozen=True):
    """It failed for good. `code` is stable, `reason` a sentence that says what to do.

    `attempt` is 0 when it failed before any worker held it.
    """

    code: str
    reason: str

    def describe(self) -> str:
        return f"{_work(self)} failed ({self.code}): {self.reason}"


def may_append(event: type[Event], *, as_worker: bool) -> bool:
    """Workers append what happened in an attempt, the catalog what was requested; either may end it without success.

    The catalog ends what no worker holds: work that was cancelled, or that could not be prepared.
    """
    is_report = issubclass(event, (AttemptStarted, AttemptEvent))
    return is_report if as_worker else not is_report or issubclass(event, (Cancelled, Failed))


def _work(event: Event) -> str:
    return "Tagging" if event.type_name.startswith("tagging.") else "Training"


def _after(event: Event, completed: int) -> str:
    """Completed units are steps of a job and images of a tagging run."""
    return f"after {count(completed, 'image')}" if _work(event) == "Tagging" else f"after step {completed}"


@dataclass(frozen=True)
class WorkKind:
    """One kind of work: the class it is queued in, the service whose workers fetch it, and its own event types."""

    aggregate_kind: str
    work_class: WorkClass
    service: WorkerService
    queued: type[Queued]
    attempt_started: type[AttemptStarted]
    interrupted: type[Interrupted]
    attempt_failed: type[AttemptFailed]
    cancel_requested: type[CancelRequested]
    cancelled: type[Cancelled]
    failed: type[Failed]


def define_work(aggregate_kind: str, work_class: WorkClass, service: WorkerService, module: str) -> WorkKind:
    """A kind of work with event types of its own: `job.queued` in the log is JobQueued of its `module`."""

    def define(event: type[E], tag: str) -> type[E]:
        name, doc = f"{aggregate_kind.title()}{event.__name__}", {"__doc__": event.__doc__}
        tag = f"{aggregate_kind}.{tag}"
        own: type[Any] = msgspec.defstruct(name, (), bases=(event,), module=module, namespace=doc, tag=tag)
        return own

    return WorkKind(
        aggregate_kind,
        work_class,
        service,
        queued=define(Queued, "queued"),
        attempt_started=define(AttemptStarted, "attempt_started"),
        interrupted=define(Interrupted, "interrupted"),
        attempt_failed=define(AttemptFailed, "attempt_failed"),
        cancel_requested=define(CancelRequested, "cancel_requested"),
        cancelled=define(Cancelled, "cancelled"),
        failed=define(Failed, "failed"),
    )
