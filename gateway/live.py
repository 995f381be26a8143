"""LiveFeed: one reader of the log, many sockets. It holds what is told but not stored: progress, presence, `applied`.

Facts are read from the log itself and released up to the sequence the catalog has announced, so a browser that asks
again sees the change it was told of. The last facts stay in a ring; each socket has a place of its own in the log and
takes from the ring what lies after it, so nothing is missed or repeated between replay and live.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import structlog

from contracts import subjects
from contracts.errors import LogDamaged, Unavailable
from contracts.events import Stored
from contracts.telemetry import Applied, Presence, Progress
from contracts.wire.bus import Bus
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog
from contracts.wire.telling import hear
from gateway import frames
from gateway.cursor import START, Place
from gateway.frames import FactFrame
from gateway.listener import GOING, LOG_GONE, MOST_BEHIND, SLOW, Listener

T = TypeVar("T")

RING_FACTS = 10_000
RING_BYTES = 64 << 20
MOST_PENDING = 5_000
"""So many facts wait for the catalog; beyond, the log is read no further until it announces more."""
PRESENCE_SECONDS = 3.0
PROGRESS_SECONDS = 5.0
STALE_SECONDS = 2.0
TICK_SECONDS = 0.25
SERVICES = ("trainer", "tagger")
ENDS = ("succeeded", "failed", "cancelled", "interrupted", "attempt_failed")


@dataclass(frozen=True, slots=True)
class Heard(Generic[T]):
    what: T
    at: float


class LiveFeed:
    """Run it once for the whole gateway; everything else is asked of it while it runs."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._log = EventLog(bus)
        self._logger = structlog.get_logger()
        self._begin(log_id="", end=0, start=0)
        self._progress: dict[str, Heard[Progress]] = {}
        self._presences: dict[str, Heard[Presence]] = {}
        self._without: dict[str, datetime] = dict.fromkeys(SERVICES, datetime.now(UTC))
        self._applied: Heard[Applied] | None = None
        self._listeners: set[Listener] = set()
        self._room = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._said_stale = False
        self.damage = ""
        self.overflows = 0
        self.streams = 0
        """Open streams of server-sent events."""

    # --- what is asked of it

    @property
    def applied(self) -> Applied | None:
        """The catalog's last announcement."""
        return self._applied.what if self._applied else None

    @property
    def stale(self) -> bool:
        """Has the catalog been silent for too long?"""
        return self._applied is None or time.monotonic() - self._applied.at > STALE_SECONDS

    @property
    def lag(self) -> int:
        """Commits read from the log that the catalog has not announced yet."""
        return len({fact.place.sequence for fact in self._pending})

    @property
    def sockets(self) -> int:
        return len(self._listeners)

    @property
    def oldest(self) -> Place:
        """All released facts after this place are in the ring."""
        return self._oldest

    @property
    def presences(self) -> list[Presence]:
        return sorted((heard.what for heard in self._presences.values()), key=lambda one: (one.service, one.worker))

    def without(self, service: str) -> datetime | None:
        """Since when no worker of this service has been here; none while there is one."""
        return self._without.get(service)

    def progress_of(self, thing: str) -> Progress | None:
        heard = self._progress.get(thing)
        return heard.what if heard else None

    def since(self, place: Place) -> list[FactFrame] | None:
        """The released facts after a place; none when some of them have left the ring."""
        if place < self._oldest:
            return None
        newer: list[FactFrame] = []
        for fact in reversed(self._ring):
            if fact.place <= place:
                break
            newer.append(fact)
        return newer[::-1]

    @contextmanager
    def join(self, place: Place | None = None, thing: str | None = None) -> Iterator[Listener]:
        """A listener from this place on (none: from now on), for as long as the block lasts."""
        listener = Listener(self.now if place is None else place, thing)
        for key, presence in self._presences.items():
            listener.put_newest(key, frames.of_presence(presence.what))
        for key, heard in self._progress.items():
            if thing in (None, key):
                listener.put_newest(key, frames.of_progress(heard.what))
        if self._said_stale:
            listener.notice(frames.frame("stale", {}))
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def changes(self, listener: Listener) -> AsyncGenerator[int, None]:
        """The sequence of each fact the listener wants, from its place on, when it may be shown."""
        while True:
            listener.wake.clear()
            for fact in self.since(listener.place) or ():
                listener.place = fact.place
                if listener.wants(fact):
                    yield fact.place.sequence
            await listener.wake.wait()

    def say_goodbye(self) -> None:
        """The gateway is going down; clients come again with their cursor."""
        self._close_all(GOING, "the gateway is restarting")

    # --- what it does

    async def run(self) -> None:
        """Hear, follow and release until cancelled."""
        subscriptions = [
            await hear(self._bus, subjects.NEWS, Applied, self._on_applied),
            await hear(self._bus, subjects.ALL_PROGRESS, Progress, self._on_progress),
            await hear(self._bus, subjects.ALL_PRESENCE, Presence, self._on_presence),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick(), name="tick")
                tasks.create_task(self._follow_for_ever(), name="follow")
        finally:
            for subscription in subscriptions:
                if self._bus.is_connected:
                    await subscription.unsubscribe()

    async def _follow_for_ever(self) -> None:
        while True:
            self._following = asyncio.create_task(self._follow(), name="follow-one-log")
            try:
                await asyncio.wait([self._following])
            finally:
                self._following.cancel()
            error = None if self._following.cancelled() else self._following.exception()
            if isinstance(error, LogDamaged):
                self.damage = error.detail
                self._logger.error("log_damaged", error=error.detail)
            elif isinstance(error, Unavailable):
                self._logger.warning("log_away", error=error.detail)
            elif error is not None:
                raise error
            await asyncio.sleep(0.5)

    async def _follow(self) -> None:
        """Read one log from a little before its end; returns by an error, or cancelled when the log is another."""
        log_id, end = await self._log.end()
        self._begin(log_id=log_id, end=end, start=max(0, end - RING_FACTS))
        self.damage = ""
        async for batch in Follower(self._bus, self._oldest.sequence).batches():
            for stored in batch:
                self._take(stored)
            self._release()
            while len(self._pending) > MOST_PENDING:
                self._room.clear()
                await self._room.wait()

    def _begin(self, *, log_id: str, end: int, start: int) -> None:
        self.log_id = log_id
        self.now = Place(end)
        """The place of the newest fact that may be shown."""
        self._oldest = Place(start) if start else START
        self._ring: deque[FactFrame] = deque()
        self._ring_bytes = 0
        self._pending: deque[FactFrame] = deque()

    def _take(self, stored: Stored) -> None:
        self._pending.extend(frames.of_commit(stored, self.log_id))

    def _release(self) -> None:
        """Facts up to what the catalog has applied may be shown."""
        applied = self.applied
        if applied is None or not applied.verified or applied.log_id != self.log_id:
            return
        released = False
        while self._pending and self._pending[0].place.sequence <= applied.sequence:
            fact = self._pending.popleft()
            self._keep(fact)
            self._forget_ended(fact)
            self.now = max(self.now, fact.place)
            released = True
        if released:
            self._room.set()
            for listener in self._listeners:
                listener.wake.set()

    def _keep(self, fact: FactFrame) -> None:
        self._ring.append(fact)
        self._ring_bytes += len(fact.text)
        while len(self._ring) > RING_FACTS or self._ring_bytes > RING_BYTES:
            gone = self._ring.popleft()
            self._ring_bytes -= len(gone.text)
            self._oldest = gone.place

    def _forget_ended(self, fact: FactFrame) -> None:
        """An attempt that ended makes no more progress."""
        if fact.type.partition(".")[2] in ENDS:
            self._progress.pop(fact.thing, None)

    async def _on_applied(self, applied: Applied) -> None:
        self._applied = Heard(applied, time.monotonic())
        if self.log_id and applied.log_id not in {"", self.log_id} and self._following:
            self._logger.warning("log_changed", known=self.log_id, announced=applied.log_id)
            self._close_all(LOG_GONE, "this log is no more")
            self._following.cancel()
        self._release()

    async def _on_progress(self, progress: Progress) -> None:
        thing = frames.thing_of(progress)
        self._progress[thing] = Heard(progress, time.monotonic())
        text = frames.of_progress(progress)
        for listener in self._listeners:
            if listener.thing in (None, thing):
                listener.put_newest(thing, text)

    async def _on_presence(self, presence: Presence) -> None:
        self._presences[f"{presence.service}.{presence.worker}"] = Heard(presence, time.monotonic())
        self._without.pop(presence.service, None)
        self._tell_presence(presence)

    def _tell_presence(self, presence: Presence, *, gone: bool = False) -> None:
        text = frames.of_presence(presence, gone=gone)
        for listener in self._listeners:
            listener.put_newest(f"{presence.service}.{presence.worker}", text)

    async def _tick(self) -> None:
        while True:
            self._expire(time.monotonic())
            self._tell_staleness()
            for listener in self._listeners:
                if listener.stuck and self._behind(listener) > MOST_BEHIND and not listener.ended.done():
                    self.overflows += 1
                    listener.end(SLOW, "too slow; come again with your cursor")
            await asyncio.sleep(TICK_SECONDS)

    def _behind(self, listener: Listener) -> int:
        newer = self.since(listener.place)
        return MOST_BEHIND + 1 if newer is None else len(newer)

    def _expire(self, now: float) -> None:
        for key, heard in list(self._presences.items()):
            if now - heard.at > PRESENCE_SECONDS:
                del self._presences[key]
                self._tell_presence(heard.what, gone=True)
        for thing, told in list(self._progress.items()):
            if now - told.at > PROGRESS_SECONDS:
                del self._progress[thing]
        for service in SERVICES:
            if not any(heard.what.service == service for heard in self._presences.values()):
                self._without.setdefault(service, datetime.now(UTC))

    def _tell_staleness(self) -> None:
        if self.stale == self._said_stale:
            return
        self._said_stale = self.stale
        for listener in self._listeners:
            listener.notice(frames.frame("stale" if self.stale else "fresh", {}))

    def _close_all(self, code: int, reason: str) -> None:
        for listener in self._listeners:
            listener.end(code, reason)
