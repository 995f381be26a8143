"""The worker loop shared by trainer and tagger: fetch a queue message, open an attempt, run it, report its end.

The message is extended while the work makes progress, and acked only after the end of the work is in the log. What an
attempt may still report is decided in `contracts.wire.attempt`.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from nats.aio.client import Client

from contracts import subjects
from contracts.commands import CommandMetadata
from contracts.errors import Behind, Conflict, Fenced, LogDamaged, LogFull, LoratoryError, Unavailable
from contracts.events import AttemptStarted
from contracts.ids import CommandId, new_command_id
from contracts.jobs import attempt_failed, failed, fold, interrupted, open_attempt
from contracts.subjects import KIND_OF
from contracts.wire.attempt import POLL_SECONDS, Attempt, Crash, WorkerIdentity
from contracts.wire.cancellation import not_cancelled
from contracts.wire.log import AggregateHistory, EventLog, build_commit
from contracts.wire.queue import Delivery, WorkQueue

__all__ = [
    "Attempt",
    "Crash",
    "NO_SPACE",
    "Worker",
    "WorkerIdentity",
]

REFRESH_SECONDS = 2.0
RELEASE_TIMEOUT_SECONDS = 5.0
"""How long a stopping worker tries to release its work; otherwise the lease expires, which only takes longer."""
ON_ENDED_RETRY_SECONDS = 10.0
TRANSIENT_ERRORS = (Unavailable, Behind, LogFull)
"""Transient errors: the work is released, which does not count as a crash."""
TRANSIENT_RETRY_SECONDS = 2.0
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_SPACE_RETRY_SECONDS = 10.0
"""Delay before work is tried again after a full disk, possibly on another machine."""
MAX_OPEN_CONFLICTS = 20
"""Maximum conflicts with other writers while opening an attempt."""

_log = structlog.get_logger()

Run = Callable[[Attempt], Awaitable[None]]
"""Runs an attempt and reports its success or cancellation. Crash: the work is retried; any other error: it fails."""
OnEnded = Callable[[AggregateHistory], Awaitable[None]]
"""Called with the history of work that has ended, before its message is acked; must be idempotent."""

OnStalled = Callable[[], Awaitable[None]]
"""Called after a stalled attempt was ended in the log: a thread can only be stopped with its process."""


class Worker:
    """Runs work of one class, one attempt at a time."""

    def __init__(
        self,
        bus: Client,
        identity: WorkerIdentity,
        run: Run,
        on_ended: OnEnded | None = None,
        on_stalled: OnStalled | None = None,
    ) -> None:
        self._bus = bus
        self._on_ended = on_ended
        self._on_stalled = on_stalled
        self._log = EventLog(bus)
        self._queue = WorkQueue(bus, identity.work)
        self._identity = identity
        self._run = run

    async def run(self) -> None:
        """Runs until cancelled; an attempt in progress is then released."""
        warned = False
        while not_cancelled():
            try:
                delivery = await self._queue.fetch()
                warned = False
                if delivery is not None:
                    await self._run_attempt(delivery)
                    continue
            except TRANSIENT_ERRORS as error:
                if not warned:  # once per outage, not every two seconds
                    _log.warning("queue_unavailable", error=error.detail)
                warned = True
            await asyncio.sleep(POLL_SECONDS)

    async def _run_attempt(self, delivery: Delivery) -> None:
        attempt = await self._open(delivery)
        if attempt is None:
            return
        with structlog.contextvars.bound_contextvars(aggregate_id=attempt.aggregate_id, attempt=attempt.number):
            _log.info("attempt_started", resumes=attempt.work.completed_units)
            try:
                await self._with_heartbeat(attempt, delivery)
            except (Fenced, LogDamaged) as error:
                _log.warning("attempt_fenced", error=error.detail)
                return
            except Crash as crash:
                await self._report_crash(attempt, delivery, crash)
            except asyncio.CancelledError:
                await self._release_on_shutdown(attempt, delivery)
                raise
            except TRANSIENT_ERRORS as error:
                await self._release(attempt, delivery, reason=error.detail, delay=TRANSIENT_RETRY_SECONDS)
            except LoratoryError as error:
                await self._report_failure(attempt, delivery, code=error.code, reason=error.detail)
            except Exception as error:  # noqa: BLE001 - the edge of the worker: whatever it was, the job must not stall
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    # A problem of the machine, not of the job: another machine has room, or this one will.
                    await self._release(attempt, delivery, reason=str(error.strerror), delay=NO_SPACE_RETRY_SECONDS)
                    return
                _log.exception("attempt_raised")
                await self._report_failure(
                    attempt, delivery, code="internal", reason=f"{type(error).__name__}; see the log of the worker"
                )
            else:
                _log.info("attempt_ended", state=attempt.work.state)
                await self._ack_after_finish(delivery, attempt.history)

    async def _open(self, delivery: Delivery) -> Attempt | None:
        """Reads the log, decides what the message means now and appends that. None: nothing to run, and acked."""
        aggregate_kind = KIND_OF[self._identity.work]
        command, history = new_command_id(), AggregateHistory()
        for _ in range(MAX_OPEN_CONFLICTS):
            history = await self._log.load(aggregate_kind, delivery.message.id, since=history)
            work = fold(history.events())
            event = open_attempt(
                work,
                self._identity.work,
                dispatch=delivery.message.dispatch,
                worker=self._identity.worker,
                boot=self._identity.boot,
            )
            if event is None:
                # The previous worker may have died between the end of the work and `on_ended`.
                await self._ack_after_finish(delivery, history)
                return None
            metadata = self._metadata(command, history, delivery.message.dispatch)
            commit = build_commit(
                aggregate_kind,
                delivery.message.id,
                [event],  # type: ignore[list-item]  # an event of that aggregate kind
                expected_revision=history.revision,
                metadata=metadata,
            )
            try:
                recorded = await self._log.append(commit, history.revision)
            except Conflict:
                continue
            if not isinstance(event, AttemptStarted):
                await delivery.ack()
                return None
            return Attempt(
                self._log, self._identity, delivery.message.id, AggregateHistory([*history.commits, recorded])
            )
        raise Unavailable("this work changes too fast for an attempt to be opened", service="nats")

    def _metadata(self, command: CommandId, history: AggregateHistory, dispatch: int) -> CommandMetadata:
        """Metadata of an attempt: it correlates with its work, and its cause is the commit that queued the work."""
        queued = next((recorded for recorded in history.commits if recorded.sequence == dispatch), history.commits[-1])
        return CommandMetadata(
            command_id=command,
            actor=self._identity.actor,
            at=datetime.now(UTC),
            correlation_id=history.commits[0].commit.correlation_id,
            causation_id=queued.commit.id,
        )

    async def _ack_after_finish(self, delivery: Delivery, history: AggregateHistory) -> None:
        """Acks the message after `on_ended`; if that fails the message is redelivered."""
        try:
            if self._on_ended is not None and fold(history.events()).ended:
                await self._on_ended(history)
        except (LoratoryError, OSError) as error:
            _log.warning("on_ended_failed", aggregate_id=delivery.message.id, error=str(error))
            await delivery.nak(ON_ENDED_RETRY_SECONDS)
        else:
            await delivery.ack()

    async def _with_heartbeat(self, attempt: Attempt, delivery: Delivery) -> None:
        """Runs the attempt while extending the message and watching the log; the first failure ends all three."""
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(self._extend(attempt, delivery), name="extend"),
                    tasks.create_task(self._watch(attempt), name="watch"),
                ]
                await self._run(attempt)
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _extend(self, attempt: Attempt, delivery: Delivery) -> None:
        while not_cancelled():
            if attempt.is_stalled:
                raise Crash(f"no progress for {self._identity.stall:g} s")
            try:
                await delivery.extend()
            except Exception as error:  # noqa: BLE001 - nats-py raises many kinds while it reconnects; the lease decides
                _log.warning("message_not_extended", error=repr(error))
            await asyncio.sleep(self._identity.lease / 5)

    async def _watch(self, attempt: Attempt) -> None:
        """Refreshes when woken; refreshing every two seconds as well covers a lost wake message."""
        woken, warned = asyncio.Event(), False

        async def on_wake(_: object) -> None:
            woken.set()

        subscription = await self._bus.subscribe(subjects.wake(self._identity.work, attempt.aggregate_id), cb=on_wake)
        try:
            while not_cancelled():
                try:
                    await attempt.refresh()
                    warned = False
                except Unavailable:
                    if not warned:
                        _log.warning("log_unavailable")
                    warned = True
                try:
                    async with asyncio.timeout(REFRESH_SECONDS):
                        await woken.wait()
                except TimeoutError:
                    continue
                woken.clear()
        finally:
            if not self._bus.is_closed and self._bus.is_connected:
                await subscription.unsubscribe()

    async def _report_crash(self, attempt: Attempt, delivery: Delivery, crash: Crash) -> None:
        _log.error("attempt_crashed", error=crash.detail)
        event = attempt_failed(
            self._identity.work, attempt=attempt.number, step=attempt.work.completed_units, reason=crash.detail
        )
        if await self._report(attempt, event):
            await delivery.nak(delay=1)
        if attempt.is_stalled and self._on_stalled is not None:
            await self._on_stalled()

    async def _report_failure(self, attempt: Attempt, delivery: Delivery, *, code: str, reason: str) -> None:
        _log.error("attempt_failed", code=code, error=reason)
        if await self._report(attempt, failed(self._identity.work, attempt=attempt.number, code=code, reason=reason)):
            await delivery.ack()

    async def _release(self, attempt: Attempt, delivery: Delivery, *, reason: str, delay: float = 0) -> None:
        event = interrupted(
            self._identity.work, attempt=attempt.number, step=attempt.work.completed_units, reason=reason
        )
        if await self._report(attempt, event):
            await delivery.nak(delay)

    async def _release_on_shutdown(self, attempt: Attempt, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_SECONDS):
                await self._release(attempt, delivery, reason="the worker was stopped")
        except (TimeoutError, Unavailable):
            _log.warning("release_failed", lease=self._identity.lease)

    async def _report(self, attempt: Attempt, event: object) -> bool:
        try:
            await attempt.report(event)  # type: ignore[arg-type]  # jobs.py builds events of the right kind
        except Fenced as error:
            _log.warning("attempt_fenced", error=error.detail)
            return False
        return True
