"""From the log to the queue: each piece of work that waits has one hint, and what was lost is put back.

A hint is sent right after the wish was granted. Whatever goes wrong there (a crash, a purged or restored queue) is
mended by comparing unfinished work with the queue, at start and every few seconds: the log is the outbox.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import structlog

from catalog.store import Store
from catalog.views import work
from contracts import jobs
from contracts.commands import Origin
from contracts.errors import Conflict, Unavailable
from contracts.events import AnyFact, Cancelled, CancelRequested, Queued
from contracts.ids import new_command_id
from contracts.subjects import CLASS_OF, KIND_OF, Priority, WorkClass
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, draw_up
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.tasks import wanted
from contracts.wire.telling import nudge

MEND_SECONDS = 5.0
CANCEL_SECONDS = 30.0
"""A worker obeys a cancel within two seconds; who has not after so many is dead, cut off or hung."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Dispatcher:
    """Sends hints, takes them back, and mends."""

    bus: Bus
    store: Store
    patience: float = CANCEL_SECONDS

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
        while wanted():
            try:
                for work_class in CLASS_OF.values():
                    await self._mend(work_class)
                told = False
            except Unavailable as error:
                if not told:  # once for each time it is away
                    _log.warning("queue_away", error=error.detail)
                told = True
            await asyncio.sleep(MEND_SECONDS)

    async def _mend(self, work_class: WorkClass) -> None:
        # The queue first: what is queued between the two looks is then sent twice rather than never.
        there = await WorkQueue(self.bus, work_class).waiting()
        unfinished = await self.store.read(lambda connection: work.queued(connection, work_class))
        for waiting in unfinished:
            if waiting.state == "cancelling" and await self._ended(work_class, waiting.id):
                continue
            if waiting.id not in there:
                _log.warning("hint_mended", thing=waiting.id, dispatch=waiting.dispatch)
                await self.hint(work_class, waiting.id, waiting.dispatch, waiting.priority)

    async def _ended(self, work_class: WorkClass, thing: str) -> bool:
        """Nobody obeys the cancel: end the work here. Whoever comes back to it is fenced by the end."""
        history = await EventLog(self.bus).load(KIND_OF[work_class], thing)
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
            await EventLog(self.bus).append(commit, history.head)
        except Conflict:
            return False  # it moves after all
        _log.warning("cancelled_without_worker", thing=thing, attempt=work.attempt)
        await WorkQueue(self.bus, work_class).drop(thing)
        return True
