"""Keeps the work queue consistent with the log: one message per queued job, lost ones re-sent.

A message is sent right after the command was accepted. If that fails (a crash; a purged, deleted or restored queue), it
is repaired by comparing unfinished jobs with the queue, at start and every few seconds: the log is the outbox.
A running job may lose its message: a fenced worker's late ack removes the message of the worker that holds the job now.
Nothing is re-sent while that worker publishes its presence, because a second worker would fence it without need.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec
import structlog

from catalog.cancellations import Cancellations, CancelTiming
from catalog.store import Store
from catalog.views import work
from contracts.aggregates import REGISTRY, WORK_KINDS
from contracts.commits import RecordedCommit
from contracts.errors import Unavailable
from contracts.events.work import Cancelled, CancelRequested, Queued
from contracts.retry import repeat
from contracts.subjects import PRIORITIES, Priority, WorkClass
from contracts.telemetry import Presence
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import subscribe, wake
from contracts.wire.workers.queue import QueueMessage, WorkQueue

_log = structlog.get_logger()


class DispatchTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds."""

    reconcile_interval: float = 5.0
    presence_timeout: float = 10.0
    """A worker publishes every second which job it holds; after this long without a message it no longer holds it."""
    cancel: CancelTiming = CancelTiming()


class Dispatcher:
    """Enqueues jobs, removes their messages, and reconciles the queue with the log."""

    def __init__(self, bus: Bus, store: Store, log: EventLog, timing: DispatchTiming) -> None:
        """`log` is fenced by the single-writer lease."""
        self._bus, self._store, self._log, self._timing = bus, store, log, timing
        self._last_seen: dict[str, float] = {}
        """When a worker last published that it holds a job, by job id, in seconds of the event loop's clock."""
        self._listening_since = self._now
        self.cancellations = Cancellations(bus, log, self._silence_of, timing.cancel)
        self.queue_depth: dict[tuple[WorkClass, Priority], int] = {}
        """Messages in the queue at the last reconciliation."""

    async def on_appended(self, commits: Sequence[RecordedCommit]) -> None:
        """Update the queue, or wake the worker, after the catalog appended these commits.

        If the queue is unavailable, the next reconciliation repairs it.
        """
        for recorded in commits:
            kind = REGISTRY.by_name[recorded.commit.aggregate_kind].work
            if kind is None:
                continue
            try:
                await self._propagate(kind.work_class, recorded)
            except Unavailable as error:
                _log.warning("queue_message_not_sent", job_id=recorded.commit.aggregate_id, error=error.detail)

    async def _propagate(self, work_class: WorkClass, recorded: RecordedCommit) -> None:
        job_id, queue = recorded.commit.aggregate_id, WorkQueue(self._bus, work_class)
        is_new = recorded.commit.version == len(recorded.commit.events)
        for event in recorded.commit.events:
            match event:
                case Queued(priority=priority):
                    if not is_new:  # it may wait with another priority
                        await queue.remove(job_id)
                    await queue.put(QueueMessage(id=job_id, dispatch=recorded.sequence), priority)
                case Cancelled():
                    await queue.remove(job_id)
                case CancelRequested():
                    self.cancellations.add(work_class, job_id)
                    await wake(self._bus, work_class, job_id)
                case _:
                    pass

    async def run(self) -> None:
        """Reconcile at start and every `reconcile_interval` seconds, and see to cancellations, until cancelled."""
        self._listening_since = self._now
        await subscribe(self._bus, Presence, self.record_presence)
        every = self._timing.reconcile_interval
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.cancellations.run())
            tasks.create_task(repeat(self._reconcile_all, every=every, on=Unavailable, warn="queue_unavailable"))

    async def _reconcile_all(self) -> None:
        self._log.fence()  # only the catalog that holds the lease dispatches
        for work_class in WORK_KINDS:
            await self.reconcile(work_class)
        self._last_seen = {job_id: at for job_id, at in self._last_seen.items() if self._is_held(job_id)}

    async def reconcile(self, work_class: WorkClass) -> None:
        """Re-send messages of jobs that no worker holds. Unavailable: there is no queue; `admin` recreates it."""
        queue = WorkQueue(self._bus, work_class)
        # The queue is read first: a job enqueued between the two reads is then sent twice rather than never.
        queued = await queue.queued()
        counts = Counter(queued.values())
        self.queue_depth |= {(work_class, priority): counts[priority] for priority in PRIORITIES}
        unfinished = await self._store.read(lambda connection: work.list_unfinished(connection, work_class))
        for job in unfinished:
            if job.state == "cancelling":
                self.cancellations.add(work_class, job.id)
            elif job.id not in queued and (job.state == "queued" or not self._is_held(job.id)):
                _log.warning("queue_message_resent", job_id=job.id, dispatch=job.dispatch)
                await queue.put(QueueMessage(id=job.id, dispatch=job.dispatch), job.priority)

    def _is_held(self, job_id: str) -> bool:
        """Whether a worker holds the job, or may not have had the time to say so since the subscription began."""
        return self._silence_of(job_id) < self._timing.presence_timeout

    def _silence_of(self, job_id: str) -> float:
        """Seconds since a worker said that it holds this job, or since it could have been received."""
        return self._now - self._last_seen.get(job_id, self._listening_since)

    async def record_presence(self, presence: Presence) -> None:
        if presence.holds is not None and presence.state != "stopping":
            self._last_seen[presence.holds] = self._now

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()
