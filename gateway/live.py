"""LiveFeed: reads the log once for all subscribers, and caches what is published but not stored (progress, presence).

Events are read from the log itself and released up to the sequence the catalog has announced as applied, so a browser
that queries again sees the change. The last events stay in a ring buffer; each subscriber has its own position in the
log and reads the events after it from the buffer, so nothing is missed or repeated between replay and live.
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
from contracts.events import RecordedCommit
from contracts.telemetry import Applied, Presence, Progress
from contracts.wire.bus import Bus
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog
from contracts.wire.telemetry_bus import subscribe
from gateway import frames
from gateway.cursor import START, LogPosition
from gateway.frames import EventFrame
from gateway.subscriber import CLOSE_LOG_GONE, CLOSE_RESTARTING, CLOSE_SLOW, MAX_EVENTS_BEHIND, Subscriber

T = TypeVar("T")

RING_MAX_EVENTS = 10_000
RING_MAX_BYTES = 64 << 20
MAX_PENDING_EVENTS = 5_000
"""Maximum events read but not yet applied by the catalog; beyond that, reading the log pauses."""
PRESENCE_TIMEOUT_SECONDS = 3.0
PROGRESS_TIMEOUT_SECONDS = 5.0
STALE_AFTER_SECONDS = 2.0
TICK_SECONDS = 0.25
SERVICES = ("trainer", "tagger")
ENDING_EVENTS = ("succeeded", "failed", "cancelled", "interrupted", "attempt_failed")


@dataclass(frozen=True, slots=True)
class LastValue(Generic[T]):
    """The last message of its kind; `received_at` is on the monotonic clock."""

    value: T
    received_at: float


class LiveFeed:
    """One per gateway. `run` keeps it up to date; the other methods may be called while it runs."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._log = EventLog(bus)
        self._logger = structlog.get_logger()
        self._reset(log_id="", end=0, start=0)
        self._progress: dict[str, LastValue[Progress]] = {}
        self._presences: dict[str, LastValue[Presence]] = {}
        self._absent_since: dict[str, datetime] = dict.fromkeys(SERVICES, datetime.now(UTC))
        self._applied: LastValue[Applied] | None = None
        self._subscribers: set[Subscriber] = set()
        self._has_room = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._announced_stale = False
        self.damage = ""
        self.slow_disconnects = 0
        self.open_streams = 0
        """Open streams of server-sent events."""

    # --- state and subscriptions

    @property
    def applied(self) -> Applied | None:
        """The catalog's last announcement."""
        return self._applied.value if self._applied else None

    @property
    def is_stale(self) -> bool:
        """Has the catalog announced nothing for STALE_AFTER_SECONDS?"""
        return self._applied is None or time.monotonic() - self._applied.received_at > STALE_AFTER_SECONDS

    @property
    def lag(self) -> int:
        """Commits read from the log that the catalog has not announced yet."""
        return len({event.position.sequence for event in self._pending})

    @property
    def subscriber_count(self) -> int:
        return len(self._subscribers)

    @property
    def oldest(self) -> LogPosition:
        """All released events after this position are in the ring buffer."""
        return self._oldest

    @property
    def presences(self) -> list[Presence]:
        return sorted((last.value for last in self._presences.values()), key=lambda one: (one.service, one.worker))

    def absent_since(self, service: str) -> datetime | None:
        """Since when no worker of this service is connected; None while there is one."""
        return self._absent_since.get(service)

    def progress_of(self, aggregate_id: str) -> Progress | None:
        last = self._progress.get(aggregate_id)
        return last.value if last else None

    def events_after(self, position: LogPosition) -> list[EventFrame] | None:
        """The released events after a position; None when some of them have left the ring buffer."""
        if position < self._oldest:
            return None
        newer: list[EventFrame] = []
        for event in reversed(self._ring):
            if event.position <= position:
                break
            newer.append(event)
        return newer[::-1]

    @contextmanager
    def subscribe(self, position: LogPosition | None = None, job_id: str | None = None) -> Iterator[Subscriber]:
        """A subscriber from this position on (None: from the newest event), until the block ends."""
        subscriber = Subscriber(self.newest if position is None else position, job_id)
        for key, presence in self._presences.items():
            subscriber.put_latest(key, frames.presence_frame(presence.value))
        for key, progress in self._progress.items():
            if job_id in (None, key):
                subscriber.put_latest(key, frames.progress_frame(progress.value))
        if self._announced_stale:
            subscriber.enqueue(frames.encode_frame("stale", {}))
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    async def changes(self, subscriber: Subscriber) -> AsyncGenerator[int, None]:
        """The sequence of each event the subscriber accepts, from its position on, once it is released."""
        while True:
            subscriber.wake.clear()
            for event in self.events_after(subscriber.position) or ():
                subscriber.position = event.position
                if subscriber.accepts(event):
                    yield event.position.sequence
            await subscriber.wake.wait()

    def close_for_restart(self) -> None:
        """The gateway is shutting down; clients reconnect with their cursor."""
        self._close_all(CLOSE_RESTARTING, "the gateway is restarting")

    # --- the feed's own loop

    async def run(self) -> None:
        """Subscribe, follow the log and release events until cancelled."""
        subscriptions = [
            await subscribe(self._bus, subjects.APPLIED, Applied, self._on_applied),
            await subscribe(self._bus, subjects.ALL_PROGRESS, Progress, self._on_progress),
            await subscribe(self._bus, subjects.ALL_PRESENCE, Presence, self._on_presence),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick(), name="tick")
                tasks.create_task(self._follow_forever(), name="follow")
        finally:
            for subscription in subscriptions:
                if self._bus.is_connected:
                    await subscription.unsubscribe()

    async def _follow_forever(self) -> None:
        while True:
            self._following = asyncio.create_task(self._follow_log(), name="follow-one-log")
            try:
                await asyncio.wait([self._following])
            finally:
                self._following.cancel()
            error = None if self._following.cancelled() else self._following.exception()
            if isinstance(error, LogDamaged):
                self.damage = error.detail
                self._logger.error("log_damaged", error=error.detail)
            elif isinstance(error, Unavailable):
                self._logger.warning("log_unavailable", error=error.detail)
            elif error is not None:
                raise error
            await asyncio.sleep(0.5)

    async def _follow_log(self) -> None:
        """Read one log from shortly before its end. Ends with an error, or is cancelled when the log is replaced."""
        log_id, end = await self._log.end()
        self._reset(log_id=log_id, end=end, start=max(0, end - RING_MAX_EVENTS))
        self.damage = ""
        async for batch in Follower(self._bus, self._oldest.sequence).batches():
            for recorded in batch:
                self._add_pending(recorded)
            self._release_applied()
            while len(self._pending) > MAX_PENDING_EVENTS:
                self._has_room.clear()
                await self._has_room.wait()

    def _reset(self, *, log_id: str, end: int, start: int) -> None:
        self.log_id = log_id
        self.newest = LogPosition(end)
        """The position of the newest released event."""
        self._oldest = LogPosition(start) if start else START
        self._ring: deque[EventFrame] = deque()
        self._ring_bytes = 0
        self._pending: deque[EventFrame] = deque()

    def _add_pending(self, recorded: RecordedCommit) -> None:
        self._pending.extend(frames.commit_frames(recorded, self.log_id))

    def _release_applied(self) -> None:
        """Release the events that the catalog has applied: its queries now show them."""
        applied = self.applied
        if applied is None or not applied.verified or applied.log_id != self.log_id:
            return
        released = False
        while self._pending and self._pending[0].position.sequence <= applied.sequence:
            event = self._pending.popleft()
            self._append_to_ring(event)
            self._drop_finished_progress(event)
            self.newest = max(self.newest, event.position)
            released = True
        if released:
            self._has_room.set()
            for subscriber in self._subscribers:
                subscriber.wake.set()

    def _append_to_ring(self, event: EventFrame) -> None:
        self._ring.append(event)
        self._ring_bytes += len(event.text)
        while len(self._ring) > RING_MAX_EVENTS or self._ring_bytes > RING_MAX_BYTES:
            dropped = self._ring.popleft()
            self._ring_bytes -= len(dropped.text)
            self._oldest = dropped.position

    def _drop_finished_progress(self, event: EventFrame) -> None:
        """An attempt that has ended makes no more progress."""
        if event.type.partition(".")[2] in ENDING_EVENTS:
            self._progress.pop(event.aggregate_id, None)

    async def _on_applied(self, applied: Applied) -> None:
        self._applied = LastValue(applied, time.monotonic())
        if self.log_id and applied.log_id not in {"", self.log_id} and self._following:
            self._logger.warning("log_changed", known=self.log_id, announced=applied.log_id)
            self._close_all(CLOSE_LOG_GONE, "this event log no longer exists")
            self._following.cancel()
        self._release_applied()

    async def _on_progress(self, progress: Progress) -> None:
        aggregate_id = frames.aggregate_id_of(progress)
        self._progress[aggregate_id] = LastValue(progress, time.monotonic())
        text = frames.progress_frame(progress)
        for subscriber in self._subscribers:
            if subscriber.job_id in (None, aggregate_id):
                subscriber.put_latest(aggregate_id, text)

    async def _on_presence(self, presence: Presence) -> None:
        self._presences[f"{presence.service}.{presence.worker}"] = LastValue(presence, time.monotonic())
        self._absent_since.pop(presence.service, None)
        self._publish_presence(presence)

    def _publish_presence(self, presence: Presence, *, gone: bool = False) -> None:
        text = frames.presence_frame(presence, gone=gone)
        for subscriber in self._subscribers:
            subscriber.put_latest(f"{presence.service}.{presence.worker}", text)

    async def _tick(self) -> None:
        while True:
            self._expire(time.monotonic())
            self._publish_staleness()
            self._close_slow_subscribers()
            await asyncio.sleep(TICK_SECONDS)

    def _close_slow_subscribers(self) -> None:
        for subscriber in self._subscribers:
            if (
                subscriber.is_stalled
                and self._count_behind(subscriber) > MAX_EVENTS_BEHIND
                and not subscriber.closed.done()
            ):
                self.slow_disconnects += 1
                subscriber.close(CLOSE_SLOW, "too slow; reconnect with your cursor")

    def _count_behind(self, subscriber: Subscriber) -> int:
        newer = self.events_after(subscriber.position)
        return MAX_EVENTS_BEHIND + 1 if newer is None else len(newer)

    def _expire(self, now: float) -> None:
        for key, presence in list(self._presences.items()):
            if now - presence.received_at > PRESENCE_TIMEOUT_SECONDS:
                del self._presences[key]
                self._publish_presence(presence.value, gone=True)
        for aggregate_id, progress in list(self._progress.items()):
            if now - progress.received_at > PROGRESS_TIMEOUT_SECONDS:
                del self._progress[aggregate_id]
        for service in SERVICES:
            if not any(presence.value.service == service for presence in self._presences.values()):
                self._absent_since.setdefault(service, datetime.now(UTC))

    def _publish_staleness(self) -> None:
        if self.is_stale == self._announced_stale:
            return
        self._announced_stale = self.is_stale
        for subscriber in self._subscribers:
            subscriber.enqueue(frames.encode_frame("stale" if self.is_stale else "fresh", {}))

    def _close_all(self, code: int, reason: str) -> None:
        for subscriber in self._subscribers:
            subscriber.close(code, reason)
