"""The worker loop shared by trainer and tagger: fetch a queue message, open an attempt, run it, report its end.

The message is extended while the work makes progress, and acked only after the end of the work is in the log. What an
attempt may still report is decided in `contracts.wire.workers.attempt`.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from contracts import subjects
from contracts.cancellation import not_cancelled
from contracts.commits import AggregateHistory, build_commit
from contracts.errors import Behind, Conflict, Fenced, LogDamaged, LogFull, LoratoryError, Unavailable
from contracts.events.base import Event
from contracts.events.work import AttemptStarted
from contracts.ids import new_command_id
from contracts.jobs import fold, open_attempt
from contracts.retry import repeat
from contracts.wire.log.event_log import EventLog
from contracts.wire.service import request_ids, tracing
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import set_on_message
from contracts.wire.system.files import NO_SPACE
from contracts.wire.workers.attempt import (
    DEFAULT_TIMINGS,
    Attempt,
    CancelledOnRequest,
    Crash,
    WorkerIdentity,
    WorkerTimings,
    build_metadata,
)
from contracts.wire.workers.queue import Delivery, WorkQueue

__all__ = ["Attempt", "Crash", "Worker", "WorkerIdentity"]

TRANSIENT_ERRORS = (Unavailable, Behind, LogFull)
"""Transient errors: the work is released, which does not count as a crash."""
MAX_OPEN_CONFLICTS = 20
"""Maximum conflicts with other writers while opening an attempt."""

_log = structlog.get_logger()

Run = Callable[[Attempt], Awaitable[None]]
"""Runs an attempt and reports its success. Crash: the work is retried; any other error: it fails.

It is cancelled when it must stop; it then stops what it started, and leaves nothing behind, within a second.
"""
OnEnded = Callable[[AggregateHistory], Awaitable[None]]
"""Called with the history of work that has ended, before its message is acked; must be idempotent."""
OnStalled = Callable[[], Awaitable[None]]
"""Called after a stalled attempt was ended in the log: a thread can only be stopped with its process."""


class Worker:
    """Runs work of one class, one attempt at a time."""

    def __init__(  # noqa: PLR0913 - what differs between workers, one keyword each
        self,
        bus: Bus,
        identity: WorkerIdentity,
        run: Run,
        *,
        log: EventLog | None = None,
        on_ended: OnEnded | None = None,
        on_stalled: OnStalled | None = None,
        timings: WorkerTimings = DEFAULT_TIMINGS,
    ) -> None:
        """`log`: signed and verified; by default one that is neither."""
        self._bus = bus
        self._on_ended = on_ended
        self._on_stalled = on_stalled
        self._log = log or EventLog(bus)
        self._queue = WorkQueue(bus, identity.kind.work_class)
        self._identity = identity
        self._run = run
        self._timings = timings

    async def run(self) -> None:
        """Runs until cancelled; an attempt in progress is then released."""
        await repeat(self._drain_queue, every=self._timings.poll, on=TRANSIENT_ERRORS, warn="queue_unavailable")

    async def _drain_queue(self) -> None:
        while not_cancelled() and (delivery := await self._queue.fetch()) is not None:
            await self._authorize(delivery)
            await self._run_attempt(delivery)

    async def _authorize(self, delivery: Delivery) -> None:
        """Before each attempt, since the signing key may have been rotated. Whatever is wrong, another may do it."""
        try:
            await self._log.authorize()
        except LoratoryError:
            await delivery.nak(self._timings.redelivery.transient_error)
            raise

    async def _run_attempt(self, delivery: Delivery) -> None:
        attempt = await self._open(delivery)
        if attempt is None:
            return
        created = attempt.history.commits[0].commit
        with (
            structlog.contextvars.bound_contextvars(aggregate_id=attempt.aggregate_id, attempt=attempt.number),
            request_ids.bind(created.correlation_id),
        ):
            _log.info("attempt_started", resumes=attempt.work.completed_units)
            try:
                with tracing.span(f"attempt {created.aggregate_kind}", "consumer", created.traceparent):
                    await self._with_heartbeat(attempt, delivery)
            except (Fenced, LogDamaged) as error:
                _log.warning("attempt_fenced", error=error.detail)
                return
            except CancelledOnRequest:
                await self._end_cancelled(attempt, delivery)
            except Crash as crash:
                await self._report_crash(attempt, delivery, crash)
            except asyncio.CancelledError:
                await self._release_on_shutdown(attempt, delivery)
                raise
            except TRANSIENT_ERRORS as error:
                delay = self._timings.redelivery.transient_error
                await self._release(attempt, delivery, reason=error.detail, delay=delay)
            except LoratoryError as error:
                await self._report_failure(attempt, delivery, code=error.code, reason=error.detail)
            except Exception as error:  # noqa: BLE001 - the edge of the worker: whatever it was, the job must not stall
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    # A problem of the machine, not of the job: another machine has room, or this one will.
                    delay = self._timings.redelivery.disk_full
                    await self._release(attempt, delivery, reason=str(error.strerror), delay=delay)
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
        aggregate_kind = self._identity.kind.aggregate_kind
        command, history = new_command_id(), AggregateHistory()
        for _ in range(MAX_OPEN_CONFLICTS):
            history = await self._log.load(aggregate_kind, delivery.message.id, since=history)
            work = fold(history.events())
            event = open_attempt(
                work,
                self._identity.kind,
                dispatch=delivery.message.dispatch,
                worker=self._identity.worker,
                boot=self._identity.boot,
            )
            if event is None:
                # The previous worker may have died between the end of the work and `on_ended`.
                await self._ack_after_finish(delivery, history)
                return None
            metadata = build_metadata(self._identity, history, delivery.message.dispatch, command)
            commit = build_commit(
                aggregate_kind, delivery.message.id, [event], expected_revision=history.revision, metadata=metadata
            )
            try:
                recorded = await self._log.append(commit, history.revision)
            except Conflict:
                continue
            if not isinstance(event, AttemptStarted):
                await delivery.ack()
                return None
            opened = history.with_commit(recorded)
            return Attempt(self._log, self._identity, delivery.message.id, opened, self._timings.reports)
        raise Unavailable("this work changes too fast for an attempt to be opened", service="nats")

    async def _ack_after_finish(self, delivery: Delivery, history: AggregateHistory) -> None:
        """Acks the message after `on_ended`, once the catalog accepted the end; if that fails it is redelivered."""
        try:
            await self._log.confirm(history.commits[-1])
            if self._on_ended is not None and fold(history.events()).ended:
                await self._on_ended(history)
        except (LoratoryError, OSError) as error:
            _log.warning("end_not_completed", aggregate_id=delivery.message.id, error=str(error))
            await delivery.nak(self._timings.redelivery.on_ended_failed)
        else:
            await delivery.ack()

    async def _with_heartbeat(self, attempt: Attempt, delivery: Delivery) -> None:
        """Runs the attempt, extends its message and watches the log; the first failure, or `Attempt.stop`, ends all."""
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(self._extend(attempt, delivery), name="extend"),
                    tasks.create_task(self._watch(attempt), name="watch"),
                    tasks.create_task(attempt.raise_when_stopped(), name="stop"),
                ]
                await self._run(attempt)
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _extend(self, attempt: Attempt, delivery: Delivery) -> None:
        async def extend() -> None:
            if attempt.is_stalled:
                raise Crash(f"no progress for {self._identity.stall:g} s")
            await delivery.extend()

        # While the connection is lost, the lease decides.
        await repeat(extend, every=self._identity.lease / 5, on=Unavailable, warn="message_not_extended")

    async def _watch(self, attempt: Attempt) -> None:
        """Refreshes when woken; refreshing at intervals as well covers a lost wake message."""
        subject, refresh = subjects.wake(self._identity.kind.work_class, attempt.aggregate_id), self._timings.refresh
        async with set_on_message(self._bus, subject) as woken:
            await repeat(attempt.refresh, every=refresh, on=Unavailable, warn="log_unavailable", wake=woken)

    async def _end_cancelled(self, attempt: Attempt, delivery: Delivery) -> None:
        """Reports that it was cancelled, unless a success was recorded first whose confirmation had not arrived."""
        event = self._identity.kind.cancelled(attempt=attempt.number, step=attempt.last_step)
        await self._report(attempt, event)
        if attempt.work.ended:
            _log.info("attempt_ended", state=attempt.work.state)
            await self._ack_after_finish(delivery, attempt.history)

    async def _report_crash(self, attempt: Attempt, delivery: Delivery, crash: Crash) -> None:
        _log.error("attempt_crashed", error=crash.detail)
        event = self._identity.kind.attempt_failed(
            attempt=attempt.number, step=attempt.work.completed_units, reason=crash.detail
        )
        if await self._report(attempt, event):
            await delivery.nak(self._timings.redelivery.crashed)
        if attempt.is_stalled and self._on_stalled is not None:
            await self._on_stalled()

    async def _report_failure(self, attempt: Attempt, delivery: Delivery, *, code: str, reason: str) -> None:
        _log.error("attempt_failed", code=code, error=reason)
        if await self._report(attempt, self._identity.kind.failed(attempt=attempt.number, code=code, reason=reason)):
            await delivery.ack()

    async def _release(self, attempt: Attempt, delivery: Delivery, *, reason: str, delay: float) -> None:
        event = self._identity.kind.interrupted(
            attempt=attempt.number, step=attempt.work.completed_units, reason=reason
        )
        if await self._report(attempt, event):
            await delivery.nak(delay)

    async def _release_on_shutdown(self, attempt: Attempt, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(self._timings.release):
                delay = self._timings.redelivery.stopped
                await self._release(attempt, delivery, reason="the worker was stopped", delay=delay)
        except (TimeoutError, Unavailable):
            _log.warning("release_failed", lease=self._identity.lease)

    async def _report(self, attempt: Attempt, event: Event) -> bool:
        try:
            await attempt.report(event)
        except Fenced as error:
            _log.warning("attempt_fenced", error=error.detail)
            return False
        return True
