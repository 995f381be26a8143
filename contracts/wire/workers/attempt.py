"""One attempt at a job or tagging run, from the side of the worker that holds it.

The log is the fence. Every report names the attempt and is appended on top of the newest commit of the work. If another
writer's commit came in between it is read and folded; only a newer attempt or an end stops this one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from contracts.cancellation import is_cancelled
from contracts.commands.base import CommandMetadata
from contracts.commits import AggregateHistory, CommitLog, RecordedCommit, build_commit
from contracts.errors import Conflict, Fenced, LogFull, LoratoryError, Unavailable
from contracts.events.base import Event
from contracts.events.work import WorkKind
from contracts.ids import CommandId, WorkerId, new_command_id
from contracts.jobs import Work, check_fencing_token, fold, with_completed_steps
from contracts.retry import Outage, RetryPolicy
from contracts.wire.service import tracing


class RedeliveryDelays(msgspec.Struct, frozen=True, kw_only=True):
    """The queue's retry policy: how long work waits until it is delivered again, by what happened to it."""

    crashed: float = 1.0
    transient_error: float = 2.0
    disk_full: float = 10.0
    """Possibly on another machine."""
    on_ended_failed: float = 10.0
    stopped: float = 0.0
    """The worker was stopped in an orderly way."""


class WorkerTimings(msgspec.Struct, frozen=True, kw_only=True):
    """`refresh`: interval at which an attempt reads the log, in case a wake message was lost.

    `release`: how long a stopping worker tries to release its work; otherwise the lease expires, which only takes
    longer. `reports`: how a report is retried while the log is unavailable: a job must survive a restart of the server.
    """

    poll: float = 0.25
    refresh: float = 2.0
    release: float = 5.0
    reports: RetryPolicy = RetryPolicy(first_delay=0.25, time_limit=600.0)
    redelivery: RedeliveryDelays = RedeliveryDelays()


DEFAULT_TIMINGS = WorkerTimings()


class CancelledOnRequest(LoratoryError, code="cancelled"):
    """Cancellation was requested; whatever the attempt was doing, it ends here."""


class Crash(LoratoryError, code="crashed"):
    """The process that does the work crashed; another attempt may succeed."""


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """A worker of a class, and one start of its process (`boot`). `lease` and `stall` in seconds.

    `lease`: a message that is not extended for this long is delivered to another worker. `stall`: work without progress
    for this long counts as stalled.
    """

    kind: WorkKind
    worker: WorkerId
    boot: str
    lease: float = 15.0
    stall: float = 600.0

    @property
    def actor(self) -> str:
        return f"svc:{self.kind.service}/{self.worker}"


def build_metadata(
    worker: WorkerIdentity, history: AggregateHistory, cause: int, command_id: CommandId | None = None
) -> CommandMetadata:
    """Metadata of a worker's commit: it correlates with its work, and its cause is the commit at that sequence."""
    created = history.commits[0].commit
    causes = (recorded for recorded in history.commits if recorded.sequence == cause)
    return CommandMetadata(
        command_id=command_id or new_command_id(),
        actor=worker.actor,
        at=datetime.now(UTC),
        correlation_id=created.correlation_id,
        causation_id=next(causes, history.commits[-1]).commit.id,
        traceparent=tracing.traceparent() or created.traceparent,
    )


class Attempt:
    """One attempt, from its start to its end."""

    def __init__(
        self,
        log: CommitLog,
        worker: WorkerIdentity,
        aggregate_id: str,
        history: AggregateHistory,
        retries: RetryPolicy = DEFAULT_TIMINGS.reports,
    ) -> None:
        """`retries` of reports while the log is unavailable."""
        self._log = log
        self._retries = retries
        self._worker = worker
        self.history = history
        """The history of the work as far as it was read."""
        self._unconfirmed: RecordedCommit | None = None
        """The newest report, until it is known that the catalog accepted it."""
        self._append_lock = asyncio.Lock()
        self._last_progress = asyncio.get_running_loop().time()
        self.aggregate_id = aggregate_id
        self.work: Work = fold(history.events())
        self.number = self.work.attempt
        self.last_step = self.work.completed_units
        """The last completed step (image), also one that no checkpoint contains; a cancellation names it."""
        self._stop_reason: asyncio.Future[LoratoryError] = asyncio.get_running_loop().create_future()
        self._has_ended = False
        """Whether this attempt has reported its end."""

    def touch(self, grace: float = 0.0) -> None:
        """Records progress; without it for `stall` seconds (plus `grace`, once) the attempt counts as stalled."""
        self._last_progress = asyncio.get_running_loop().time() + grace

    @property
    def is_stalled(self) -> bool:
        return asyncio.get_running_loop().time() - self._last_progress > self._worker.stall

    @property
    def is_current(self) -> bool:
        """Whether what it does still counts: not stopped, not stalled, and no other attempt holds the work."""
        holds_work = self.work.attempt == self.number and not self.work.ended
        return holds_work and not self._stop_reason.done() and not self.is_stalled

    def stop(self, reason: LoratoryError) -> None:
        """Cancels the task that runs the attempt, in whatever phase; it then ends as `reason` (the first one) says."""
        if not self._stop_reason.done():
            self._stop_reason.set_result(reason)

    async def raise_when_stopped(self) -> None:
        """Waits for `stop`."""
        raise await asyncio.shield(self._stop_reason)

    async def report(self, *events: Event) -> RecordedCommit:
        """Appends events as one commit. Fenced: another attempt holds the work or it has ended; stop."""
        metadata = build_metadata(self._worker, self.history, cause=self.number)
        outage = Outage("report_delayed", self._retries)
        async with self._append_lock:
            while True:
                try:
                    return await self._append(events, metadata)
                except (Unavailable, LogFull) as error:
                    if is_cancelled():
                        raise  # the worker is stopping, and reports once more that it releases the work
                    self.touch()  # waiting for the log, or for room in it, is no stall
                    await outage.wait(error)

    async def refresh(self) -> None:
        """Reads what other writers appended. Fenced: this attempt is over, or its reports are not accepted."""
        async with self._append_lock:
            await self._catch_up()
        if (reported := self._unconfirmed) is not None:
            await self._log.confirm(reported)
            self._unconfirmed = None if self._unconfirmed is reported else self._unconfirmed
        if self._has_ended:
            return
        if self.work.ended or self.work.attempt != self.number:
            raise Fenced(f"attempt {self.work.attempt} holds the work now, or it has ended ({self.work.state})")

    async def _append(self, events: Sequence[Event], metadata: CommandMetadata) -> RecordedCommit:
        """On top of the newest commit; if another writer's came first it is folded and the events are checked again."""
        while True:
            events = [with_completed_steps(self.work, event) for event in events]
            for event in events:
                check_fencing_token(self.work, event, self.number)
            revision = self.history.revision
            kind = self._worker.kind.aggregate_kind
            commit = build_commit(kind, self.aggregate_id, events, expected_revision=revision, metadata=metadata)
            try:
                recorded = self._fold(await self._log.append(commit, revision))
                self._unconfirmed = recorded
            except Conflict:
                await self._catch_up()
            else:
                self._has_ended = not self.work.open
                return recorded

    async def _catch_up(self) -> None:
        known_commits = len(self.history.commits)
        newer = await self._log.load(self._worker.kind.aggregate_kind, self.aggregate_id, since=self.history)
        self.history = replace(self.history, last_foreign=newer.last_foreign)
        for recorded in newer.commits[known_commits:]:
            self._fold(recorded)

    def _fold(self, recorded: RecordedCommit) -> RecordedCommit:
        self.history = self.history.with_commit(recorded)
        self.work = fold([(event, recorded.sequence) for event in recorded.commit.events], self.work)
        if self.work.state == "cancelling":
            self.stop(CancelledOnRequest())
        return recorded
