"""Holding work: what trainer and tagger have in common. A hint is taken, an attempt opened, and its end reported.

The hint is kept by saying so while the work moves, and spent only after the end stands in the log. What an attempt may
still report is its own matter: `contracts.wire.attempt`.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from nats.aio.client import Client

from contracts import subjects
from contracts.commands import Origin
from contracts.errors import Behind, Conflict, Fenced, LogDamaged, LogFull, LoratoryError, Unavailable
from contracts.events import AttemptStarted
from contracts.ids import CommandId, new_command_id
from contracts.jobs import attempt_failed, failed, fold, interrupted, opening
from contracts.subjects import KIND_OF
from contracts.wire.attempt import POLL_SECONDS, Attempt, Crash, Holder
from contracts.wire.log import EventLog, History, draw_up
from contracts.wire.queue import Taken, WorkQueue
from contracts.wire.tasks import wanted

__all__ = ["NO_SPACE", "Attempt", "Crash", "Holder", "Worker"]

WATCH_SECONDS = 2.0
GOODBYE_SECONDS = 5.0
"""So long a worker that is stopped tries to say so; without it the lease runs out, which is only slower."""
SETTLE_AGAIN_SECONDS = 10.0
AWAY = (Unavailable, Behind, LogFull)
"""What passes by itself and is nobody's fault: the work is handed back, and that counts as no crash."""
AWAY_SECONDS = 2.0
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_SPACE_SECONDS = 10.0
"""So long work rests before it is tried again, elsewhere perhaps."""
TRIES = 20
"""So often an attempt is opened again after losing a race for the same work."""

_log = structlog.get_logger()

Run = Callable[[Attempt], Awaitable[None]]
"""Does the work of an attempt and reports its success or cancellation. Crash: try again; any other error: it failed."""
Settle = Callable[[History], Awaitable[None]]
"""Called with the history of work that has ended, before its hint is spent; must bear being called again."""

AfterHang = Callable[[], Awaitable[None]]
"""Called when an attempt that hung was ended in the log: what ran in a thread can only be ended with its process."""


class Worker:
    """Takes work of one class, one piece at a time, for as long as it lives."""

    def __init__(
        self, bus: Client, holder: Holder, run: Run, settle: Settle | None = None, after_hang: AfterHang | None = None
    ) -> None:
        self._bus = bus
        self._settle = settle
        self._after_hang = after_hang
        self._log = EventLog(bus)
        self._queue = WorkQueue(bus, holder.work)
        self._holder = holder
        self._run = run

    async def work_off(self) -> None:
        """Ends only when it is cancelled; then the attempt under way is handed back politely."""
        told = False
        while wanted():
            try:
                taken = await self._queue.take()
                told = False
                if taken is not None:
                    await self._hold(taken)
                    continue
            except AWAY as error:
                if not told:  # once for each time it is away, not every two seconds
                    _log.warning("queue_away", error=error.detail)
                told = True
            await asyncio.sleep(POLL_SECONDS)

    async def _hold(self, taken: Taken) -> None:
        attempt = await self._open(taken)
        if attempt is None:
            return
        with structlog.contextvars.bound_contextvars(thing=attempt.thing, attempt=attempt.number):
            _log.info("attempt_started", resumes=attempt.work.kept)
            try:
                await self._attended(attempt, taken)
            except (Fenced, LogDamaged) as error:
                _log.warning("attempt_fenced", error=error.detail)
                return
            except Crash as crash:
                await self._crashed(attempt, taken, crash)
            except asyncio.CancelledError:
                await self._say_goodbye(attempt, taken)
                raise
            except AWAY as error:
                await self._hand_back(attempt, taken, reason=error.detail, delay=AWAY_SECONDS)
            except LoratoryError as error:
                await self._failed(attempt, taken, code=error.code, reason=error.detail)
            except Exception as error:  # noqa: BLE001 - the worker's edge: whatever it was, the job must not hang
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    # The machine's trouble, not the job's: another has room, or there will be some.
                    await self._hand_back(attempt, taken, reason=str(error.strerror), delay=NO_SPACE_SECONDS)
                    return
                _log.exception("attempt_broke")
                await self._failed(
                    attempt, taken, code="internal", reason=f"{type(error).__name__}; see the worker's log"
                )
            else:
                _log.info("attempt_ended", state=attempt.work.state)
                await self._spend(taken, attempt.history)

    async def _open(self, taken: Taken) -> Attempt | None:
        """Read the log, decide what the hint means, and append that. None: nothing is to run, the hint is spent."""
        kind = KIND_OF[self._holder.work]
        command, history = new_command_id(), History()
        for _ in range(TRIES):
            history = await self._log.load(kind, taken.hint.id, since=history)
            work = fold(history.facts())
            fact = opening(
                work,
                self._holder.work,
                dispatch=taken.hint.dispatch,
                worker=self._holder.worker,
                boot=self._holder.boot,
            )
            if fact is None:
                # The worker before may have died between the end and what follows from it.
                await self._spend(taken, history)
                return None
            origin = self._origin(command, history, taken.hint.dispatch)
            commit = draw_up(kind, taken.hint.id, [fact], after=history.head, origin=origin)  # type: ignore[list-item]  # a Fact of that kind
            try:
                stored = await self._log.append(commit, history.head)
            except Conflict:
                continue
            if not isinstance(fact, AttemptStarted):
                await taken.done()
                return None
            return Attempt(self._log, self._holder, taken.hint.id, History([*history.commits, stored]))
        raise Unavailable("this work changes too fast to be taken", service="nats")

    def _origin(self, command: CommandId, history: History, dispatch: int) -> Origin:
        """An attempt belongs to the story of its work; what caused it is the commit that queued the work."""
        queued = next((stored for stored in history.commits if stored.sequence == dispatch), history.commits[-1])
        return Origin(
            command=command,
            actor=self._holder.actor,
            at=datetime.now(UTC),
            correlation=history.commits[0].commit.correlation,
            causation=queued.commit.id,
        )

    async def _spend(self, taken: Taken, history: History) -> None:
        """Let the hint go, after what follows from the end of its work; when that fails, it comes again for it."""
        try:
            if self._settle is not None and fold(history.facts()).ended:
                await self._settle(history)
        except (LoratoryError, OSError) as error:
            _log.warning("not_settled", thing=taken.hint.id, error=str(error))
            await taken.back(SETTLE_AGAIN_SECONDS)
        else:
            await taken.done()

    async def _attended(self, attempt: Attempt, taken: Taken) -> None:
        """Run, with the hint kept and the log watched beside it; whichever of them fails first ends all."""
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._keep(attempt, taken), name="keep"),
                    tasks.create_task(self._watch(attempt), name="watch"),
                ]
                await self._run(attempt)
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _keep(self, attempt: Attempt, taken: Taken) -> None:
        while wanted():
            if attempt.hung:
                raise Crash(f"nothing moved for {self._holder.stall:g} s")
            try:
                await taken.still_at_it()
            except Exception as error:  # noqa: BLE001 - nats-py raises many kinds while it reconnects; the lease decides
                _log.warning("hint_not_kept", error=repr(error))
            await asyncio.sleep(self._holder.lease / 5)

    async def _watch(self, attempt: Attempt) -> None:
        """A nudge says that there is news; looking every two seconds finds it when the nudge is lost."""
        nudged, told = asyncio.Event(), False

        async def on_nudge(_: object) -> None:
            nudged.set()

        subscription = await self._bus.subscribe(subjects.nudge(self._holder.work, attempt.thing), cb=on_nudge)
        try:
            while wanted():
                try:
                    await attempt.look()
                    told = False
                except Unavailable:
                    if not told:
                        _log.warning("log_away")
                    told = True
                try:
                    async with asyncio.timeout(WATCH_SECONDS):
                        await nudged.wait()
                except TimeoutError:
                    continue
                nudged.clear()
        finally:
            if not self._bus.is_closed and self._bus.is_connected:
                await subscription.unsubscribe()

    async def _crashed(self, attempt: Attempt, taken: Taken, crash: Crash) -> None:
        _log.error("attempt_crashed", error=crash.detail)
        fact = attempt_failed(self._holder.work, attempt=attempt.number, step=attempt.work.kept, reason=crash.detail)
        if await self._reported(attempt, fact):
            await taken.back(delay=1)
        if attempt.hung and self._after_hang is not None:
            await self._after_hang()

    async def _failed(self, attempt: Attempt, taken: Taken, *, code: str, reason: str) -> None:
        _log.error("attempt_failed", code=code, error=reason)
        if await self._reported(attempt, failed(self._holder.work, attempt=attempt.number, code=code, reason=reason)):
            await taken.done()

    async def _hand_back(self, attempt: Attempt, taken: Taken, *, reason: str, delay: float = 0) -> None:
        fact = interrupted(self._holder.work, attempt=attempt.number, step=attempt.work.kept, reason=reason)
        if await self._reported(attempt, fact):
            await taken.back(delay)

    async def _say_goodbye(self, attempt: Attempt, taken: Taken) -> None:
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._hand_back(attempt, taken, reason="the worker was stopped")
        except (TimeoutError, Unavailable):
            _log.warning("not_handed_back", lease=self._holder.lease)

    async def _reported(self, attempt: Attempt, fact: object) -> bool:
        try:
            await attempt.report(fact)  # type: ignore[arg-type]  # jobs.py makes facts of the right kind
        except Fenced as error:
            _log.warning("attempt_fenced", error=error.detail)
            return False
        return True
