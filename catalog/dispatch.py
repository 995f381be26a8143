"""Keeps the work queue consistent with the log: one message per queued job, lost ones re-sent.

A message is sent right after the command was accepted. If that fails (a crash; a purged, deleted or restored queue), it
is repaired by comparing unfinished jobs with the queue, at start and every few seconds: the log is the outbox.
A running job may lose its message: a fenced worker's late ack removes the message of the worker that holds the job now.
Nothing is re-sent while that worker publishes its presence, because a second worker would fence it without need.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import structlog

from catalog.store import Store
from catalog.views import work
from contracts import jobs, subjects
from contracts.commands import CommandMetadata
from contracts.errors import Conflict, Unavailable
from contracts.events import AnyEvent, Cancelled, CancelRequested, Queued
from contracts.ids import new_command_id
from contracts.subjects import CLASS_OF, KIND_OF, Priority, WorkClass
from contracts.telemetry import Presence
from contracts.wire.bus import Bus
from contracts.wire.cancellation import not_cancelled
from contracts.wire.log import EventLog, build_commit
from contracts.wire.queue import QueueMessage, WorkQueue
from contracts.wire.telemetry_bus import subscribe, wake

RECONCILE_INTERVAL_SECONDS = 5.0
CANCEL_TIMEOUT_SECONDS = 30.0
"""A worker stops within two seconds of a cancel request; after this long it is dead, disconnected or stalled."""
PRESENCE_TIMEOUT_SECONDS = 10.0
"""A worker publishes every second which job it holds; after this long without a message it no longer holds it."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Dispatcher:
    """Enqueues jobs, removes their messages, and reconciles the queue with the log."""

    bus: Bus
    store: Store
    log: EventLog
    """Fenced by the single-writer lease."""
    lease: float
    """Seconds without contact to its worker after which a job is redelivered; used when the queue must be recreated."""
    cancel_timeout: float = CANCEL_TIMEOUT_SECONDS
    _last_seen: dict[str, float] = field(default_factory=dict)
    """When a worker last published that it holds a job, by job id, in seconds of the event loop's clock."""

    async def enqueue(self, work_class: WorkClass, job_id: str, dispatch: int, priority: Priority) -> None:
        """Send the job's message. If the queue is unavailable, the next reconciliation sends it."""
        try:
            await WorkQueue(self.bus, work_class).put(QueueMessage(id=job_id, dispatch=dispatch), priority)
        except Unavailable as error:
            _log.warning("queue_message_not_sent", job_id=job_id, error=error.detail)

    async def propagate(self, work_class: WorkClass, job_id: str, events: Sequence[AnyEvent], sequence: int) -> None:
        """Update the queue, or wake the worker, after the catalog appended these events as commit `sequence`."""
        try:
            for event in events:
                match event:
                    case Queued(priority=priority):
                        await WorkQueue(self.bus, work_class).remove(job_id)
                        await self.enqueue(work_class, job_id, sequence, priority)
                    case Cancelled():
                        await WorkQueue(self.bus, work_class).remove(job_id)
                    case CancelRequested():
                        await wake(self.bus, work_class, job_id)
                    case _:
                        pass
        except Unavailable as error:
            _log.warning("queue_unavailable", job_id=job_id, error=error.detail)

    async def run(self) -> None:
        """Reconcile at start and every RECONCILE_INTERVAL_SECONDS, until cancelled."""
        warned = False
        listening_since = self._now
        await subscribe(self.bus, subjects.ALL_PRESENCE, Presence, self._record_presence)
        while not_cancelled():
            try:
                self.log.fence()  # only the catalog that holds the lease dispatches
                for work_class in CLASS_OF.values():
                    await self._reconcile(work_class, listening_since)
                self._forget_silent()
                warned = False
            except Unavailable as error:
                if not warned:  # once per outage
                    _log.warning("queue_unavailable", error=error.detail)
                warned = True
            await asyncio.sleep(RECONCILE_INTERVAL_SECONDS)

    async def _reconcile(self, work_class: WorkClass, listening_since: float) -> None:
        """Repair the queue and re-send messages of jobs that no worker holds.

        A worker counts as absent only PRESENCE_TIMEOUT_SECONDS after `listening_since`, when the subscription began.
        """
        queue = WorkQueue(self.bus, work_class)
        if await queue.repair(self.lease):
            _log.warning("queue_recreated")
        # The queue is read first: a job enqueued between the two reads is then sent twice rather than never.
        queued = await queue.queued_ids()
        unfinished = await self.store.read(lambda connection: work.list_unfinished(connection, work_class))
        for job in unfinished:
            if job.state == "cancelling" and await self._end_abandoned(work_class, job.id):
                continue
            held = (
                job.state != "queued"
                and self._now - self._last_seen.get(job.id, listening_since) < PRESENCE_TIMEOUT_SECONDS
            )
            if job.id not in queued and not held:
                _log.warning("queue_message_resent", job_id=job.id, dispatch=job.dispatch)
                await self.enqueue(work_class, job.id, job.dispatch, job.priority)

    async def _end_abandoned(self, work_class: WorkClass, job_id: str) -> bool:
        """End a cancelled job whose worker does not stop in time; if it comes back, this event fences it.

        False: not long enough ago, or the worker made progress meanwhile.
        """
        history = await self.log.load(KIND_OF[work_class], job_id)
        work = jobs.fold(history.events())
        requests = [
            recorded
            for recorded in history.commits
            if any(isinstance(f, CancelRequested) for f in recorded.commit.events)
        ]
        if (
            work.state != "cancelling"
            or (datetime.now(UTC) - requests[-1].recorded_at).total_seconds() < self.cancel_timeout
        ):
            return False
        metadata = CommandMetadata(
            command_id=new_command_id(),
            actor="svc:catalog",
            at=datetime.now(UTC),
            correlation_id=requests[-1].commit.correlation_id,
            causation_id=requests[-1].commit.id,
        )
        event = cast("AnyEvent", jobs.cancelled(work_class, attempt=work.attempt, step=work.completed_units))
        commit = build_commit(
            KIND_OF[work_class], job_id, [event], expected_revision=history.revision, metadata=metadata
        )
        try:
            await self.log.append(commit, history.revision)
        except Conflict:
            return False  # the worker appended an event after all
        _log.warning("cancelled_without_worker", job_id=job_id, attempt=work.attempt)
        await WorkQueue(self.bus, work_class).remove(job_id)
        return True

    async def _record_presence(self, presence: Presence) -> None:
        if presence.holds is not None and presence.state != "stopping":
            self._last_seen[presence.holds] = self._now

    def _forget_silent(self) -> None:
        for job_id in [job_id for job_id, at in self._last_seen.items() if self._now - at >= PRESENCE_TIMEOUT_SECONDS]:
            del self._last_seen[job_id]

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()
