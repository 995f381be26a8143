"""Requested cancellations: a worker carries them out within a second; where none does, the catalog ends the job.

The end fences a worker that comes back, so it may come early: nothing is lost but the worker's own account of the end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import structlog

from contracts import jobs
from contracts.aggregates import WORK_KINDS
from contracts.commands.base import CommandMetadata
from contracts.commits import AggregateHistory, RecordedCommit, build_commit
from contracts.errors import Conflict, Unavailable
from contracts.events.base import Event
from contracts.events.work import AttemptStarted, CancelRequested
from contracts.ids import new_command_id
from contracts.retry import repeat
from contracts.subjects import WorkClass
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import wake
from contracts.wire.workers.queue import WorkQueue

_log = structlog.get_logger()


class CancelTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. `interval` of looking at cancellations that were not carried out yet.

    `silence`: a worker that has not said for this long that it holds the job is dead or disconnected, and not waited
    for. `timeout`: after this long a worker that is there hangs.
    """

    interval: float = 0.5
    silence: float = 3.0
    timeout: float = 5.0


@dataclass
class _Cancellation:
    work_class: WorkClass
    history: AggregateHistory
    """The history of the job as far as it was read."""


class Cancellations:
    """Those that were requested and, as far as is known, not carried out."""

    def __init__(self, bus: Bus, log: EventLog, silence_of: Callable[[str], float], timing: CancelTiming) -> None:
        """`log` is fenced by the single-writer lease. `silence_of`: seconds since a worker said that it holds a job."""
        self._bus, self._log, self._silence_of, self._timing = bus, log, silence_of, timing
        self._requested: dict[str, _Cancellation] = {}
        self._changed = asyncio.Event()

    def add(self, work_class: WorkClass, job_id: str) -> None:
        self._requested.setdefault(job_id, _Cancellation(work_class, AggregateHistory()))
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        every = self._timing.interval
        await repeat(self.end_abandoned, every=every, on=Unavailable, warn="log_unavailable", wake=self._changed)

    async def end_abandoned(self) -> None:
        """End the jobs whose worker does not end them."""
        for job_id, cancellation in list(self._requested.items()):
            self._log.fence()
            if await self._is_settled(job_id, cancellation):
                del self._requested[job_id]

    async def _is_settled(self, job_id: str, cancellation: _Cancellation) -> bool:
        """Whether the job no longer waits to be cancelled; it is ended here if no worker does that."""
        kind = WORK_KINDS[cancellation.work_class]
        history = await self._log.load(kind.aggregate_kind, job_id, since=cancellation.history)
        cancellation.history = history
        work = jobs.fold(history.events())
        if work.state != "cancelling":
            return True
        requested = _newest(history, CancelRequested)
        if requested is None or (work.open and self._may_respond(job_id, history, requested)):
            return False
        metadata = CommandMetadata(
            command_id=new_command_id(),
            actor="svc:catalog",
            at=datetime.now(UTC),
            correlation_id=requested.commit.correlation_id,
            causation_id=requested.commit.id,
            traceparent=requested.commit.traceparent,
        )
        event = kind.cancelled(attempt=work.attempt, step=work.completed_units)
        revision = history.revision
        commit = build_commit(kind.aggregate_kind, job_id, [event], expected_revision=revision, metadata=metadata)
        try:
            await self._log.append(commit, revision)
        except Conflict:
            return False  # the worker appended an event after all
        _log.warning("cancelled_without_worker", job_id=job_id, attempt=work.attempt)
        await wake(self._bus, cancellation.work_class, job_id)
        await WorkQueue(self._bus, cancellation.work_class).remove(job_id)
        return True

    def _may_respond(self, job_id: str, history: AggregateHistory, requested: RecordedCommit) -> bool:
        """Whether the worker that holds the job is there, and has not had its time to stop yet."""
        silence, started = self._silence_of(job_id), _newest(history, AttemptStarted)
        if started is not None:  # it may not have had the time to say that it holds the job
            silence = min(silence, _age(started))
        return silence < self._timing.silence and _age(requested) < self._timing.timeout


def _newest(history: AggregateHistory, kind: type[Event]) -> RecordedCommit | None:
    """The newest commit with an event of this type."""
    found = (one for one in reversed(history.commits) if any(isinstance(event, kind) for event in one.commit.events))
    return next(found, None)


def _age(recorded: RecordedCommit) -> float:
    return (datetime.now(UTC) - recorded.recorded_at).total_seconds()
