"""From the log to the queue: each piece of work that waits has one hint, and what was lost is put back.

A hint is sent right after the wish was granted. Whatever goes wrong there (a crash, a purged, deleted or restored
queue) is mended by comparing unfinished work with the queue, at start and every few seconds: the log is the outbox.
Work whose hint is gone (a late ack of somebody who was fenced takes the hint of who holds it now) is left alone while
its worker says that it lives: a new hint would be taken at once, and the living fenced for nothing.
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
from contracts.commands import Origin
from contracts.errors import Conflict, Unavailable
from contracts.events import AnyFact, Cancelled, CancelRequested, Queued
from contracts.ids import new_command_id
from contracts.subjects import CLASS_OF, KIND_OF, Priority, WorkClass
from contracts.telemetry import Presence
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, draw_up
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.tasks import wanted
from contracts.wire.telling import hear, nudge

MEND_SECONDS = 5.0
CANCEL_SECONDS = 30.0
"""A worker obeys a cancel within two seconds; who has not after so many is dead, cut off or hung."""
SILENT_SECONDS = 10.0
"""A worker says every second what it holds; who said nothing for so long holds it no more."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Dispatcher:
    """Sends hints, takes them back, and mends."""

    bus: Bus
    store: Store
    log: EventLog
    """Behind the fence of the one catalog that writes."""
    lease: float
    """Seconds after which silent work goes to another worker, for a queue that must be made anew."""
    patience: float = CANCEL_SECONDS
    _heard: dict[str, float] = field(default_factory=dict)
    """What workers said they hold, and when: seconds of the loop's clock."""

    async def hint(self, work_class: WorkClass, thing: str, dispatch: int, priority: Priority) -> None:
        """Say that this waits. When the queue is away the next mending says it."""
        try:
            await WorkQueue(self.bus, work_class).put(Hint(id=thing, dispatch=dispatch), priority)
        except Unavailable as error:
            _log.warning("hint_not_sent", thing=thing, error=error.detail)

    async def follow(self, work_class: WorkClass, thing: str, facts: Sequence[AnyFact], sequence: int) -> None:
        """What the queue and the worker must learn of a commit that the catalog made."""
        try:
            for fact in facts:
                match fact:
                    case Queued(priority=priority):
                        await WorkQueue(self.bus, work_class).drop(thing)
                        await self.hint(work_class, thing, sequence, priority)
                    case Cancelled():
                        await WorkQueue(self.bus, work_class).drop(thing)
                    case CancelRequested():
                        await nudge(self.bus, work_class, thing)
                    case _:
                        pass
        except Unavailable as error:
            _log.warning("queue_away", thing=thing, error=error.detail)

    async def mend(self) -> None:
        """At start and every MEND_SECONDS; ends only when it is cancelled."""
        told = False
        since = self._now
        await hear(self.bus, subjects.ALL_PRESENCE, Presence, self._hear)
        while wanted():
            try:
                self.log.fence()  # there is one dispatcher
                for work_class in CLASS_OF.values():
                    await self._mend(work_class, since)
                self._forget()
                told = False
            except Unavailable as error:
                if not told:  # once for each time it is away
                    _log.warning("queue_away", error=error.detail)
                told = True
            await asyncio.sleep(MEND_SECONDS)

    async def _mend(self, work_class: WorkClass, since: float) -> None:
        """`since` is when this began to listen: nobody is taken for dead before it has listened a while."""
        queue = WorkQueue(self.bus, work_class)
        if await queue.mend(self.lease):
            _log.warning("queue_made_anew")
        # The queue first: what is queued between the two looks is then sent twice rather than never.
        there = await queue.waiting()
        unfinished = await self.store.read(lambda connection: work.queued(connection, work_class))
        for waiting in unfinished:
            if waiting.state == "cancelling" and await self._ended(work_class, waiting.id):
                continue
            held = waiting.state != "queued" and self._now - self._heard.get(waiting.id, since) < SILENT_SECONDS
            if waiting.id not in there and not held:
                _log.warning("hint_mended", thing=waiting.id, dispatch=waiting.dispatch)
                await self.hint(work_class, waiting.id, waiting.dispatch, waiting.priority)

    async def _ended(self, work_class: WorkClass, thing: str) -> bool:
        """Nobody obeys the cancel: end the work here. Whoever comes back to it is fenced by the end."""
        history = await self.log.load(KIND_OF[work_class], thing)
        work = jobs.fold(history.facts())
        asked = [
            stored for stored in history.commits if any(isinstance(f, CancelRequested) for f in stored.commit.facts)
        ]
        if work.state != "cancelling" or (datetime.now(UTC) - asked[-1].recorded).total_seconds() < self.patience:
            return False
        origin = Origin(
            command=new_command_id(),
            actor="svc:catalog",
            at=datetime.now(UTC),
            correlation=asked[-1].commit.correlation,
            causation=asked[-1].commit.id,
        )
        fact = cast("AnyFact", jobs.cancelled(work_class, attempt=work.attempt, step=work.kept))
        commit = draw_up(KIND_OF[work_class], thing, [fact], after=history.head, origin=origin)
        try:
            await self.log.append(commit, history.head)
        except Conflict:
            return False  # it moves after all
        _log.warning("cancelled_without_worker", thing=thing, attempt=work.attempt)
        await WorkQueue(self.bus, work_class).drop(thing)
        return True

    async def _hear(self, presence: Presence) -> None:
        if presence.holds is not None and presence.state != "stopping":
            self._heard[presence.holds] = self._now

    def _forget(self) -> None:
        for thing in [thing for thing, at in self._heard.items() if self._now - at >= SILENT_SECONDS]:
            del self._heard[thing]

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()
