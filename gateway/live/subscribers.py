"""The consumers of the live feed. Events stay in the feed's ring, so there is no event queue per subscriber."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from contracts.telemetry import LiveMessage
from gateway.cursor import Received
from gateway.limits import LiveLimits
from gateway.live.encoding import EncodedEvent
from gateway.live.ring import EventRing

CLOSE_SLOW, CLOSE_RESTARTING, CLOSE_LOG_GONE, CLOSE_FLOOD = 4408, 1012, 4410, 4429


class Subscriber:
    """What a subscriber has of the log, and what it has yet to receive besides events."""

    def __init__(self, received: Received, job_id: str | None, limits: LiveLimits, now: Callable[[], float]) -> None:
        self.received = received
        self.job_id = job_id
        """Only events and progress of this job; None = of everything."""
        self.wake = asyncio.Event()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        """Close code and reason, once this subscriber is to be disconnected."""
        self._limits = limits
        self._now = now
        self._latest: dict[str, str] = {}
        self._replies: list[str] = []
        self._send_started: float | None = None

    def accepts(self, event: EncodedEvent) -> bool:
        return self.job_id is None or (event.aggregate == ("job", self.job_id))

    def accepts_message(self, message: LiveMessage) -> bool:
        return self.job_id is None or message.work_id in {"", self.job_id}

    def put_latest(self, key: str, text: str) -> None:
        """A live message: a newer one under the same key replaces an older one."""
        self._latest[key] = text
        self.wake.set()

    def enqueue(self, text: str) -> None:
        """A reply or a state change. A client that sends requests without reading the replies is disconnected."""
        if len(self._replies) >= self._limits.queued_replies:
            self.close(CLOSE_FLOOD, "too many unread replies")
            return
        self._replies.append(text)
        self.wake.set()

    def close(self, code: int, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result((code, reason))

    def drain(self) -> Iterator[str]:
        """Remove and return everything that is to be sent besides events."""
        replies, self._replies = self._replies, []
        latest, self._latest = self._latest, {}
        yield from replies
        yield from latest.values()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Measure how long one send takes."""
        self._send_started = self._now()
        try:
            yield
        finally:
            self._send_started = None

    def is_too_slow(self, ring: EventRing) -> bool:
        """Does the current send take too long, with too many events to go?"""
        if self._send_started is None or self._now() - self._send_started <= self._limits.send_stall:
            return False
        newer = ring.after(self.received)
        return newer is None or len(newer) > self._limits.events_behind


class Subscribers(set[Subscriber]):
    """All current subscribers."""

    slow_disconnects = 0

    def wake(self) -> None:
        """There are new events in the ring."""
        for subscriber in self:
            subscriber.wake.set()

    def send_message(self, message: LiveMessage, text: str) -> None:
        for subscriber in self:
            if subscriber.accepts_message(message):
                subscriber.put_latest(message.subject, text)

    def send(self, text: str) -> None:
        for subscriber in self:
            subscriber.enqueue(text)

    def close_slow(self, ring: EventRing) -> None:
        for subscriber in self:
            if not subscriber.closed.done() and subscriber.is_too_slow(ring):
                self.slow_disconnects += 1
                subscriber.close(CLOSE_SLOW, "too slow; reconnect with your cursor")

    def close(self, code: int, reason: str) -> None:
        for subscriber in self:
            subscriber.close(code, reason)
