"""One consumer of the live feed. Events stay in the feed's ring buffer, so there is no per-subscriber event queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from gateway.cursor import LogPosition
from gateway.frames import EventFrame

MAX_EVENTS_BEHIND = 256
SEND_STALL_SECONDS = 5.0
"""A subscriber whose current send takes longer, with more than MAX_EVENTS_BEHIND events to go, is disconnected."""
MAX_QUEUED_MESSAGES = 64
CLOSE_SLOW, CLOSE_RESTARTING, CLOSE_LOG_GONE, CLOSE_FLOOD = 4408, 1012, 4410, 4429


class Subscriber:
    """A subscriber's position in the log, and what it has yet to receive besides events."""

    def __init__(self, position: LogPosition, job_id: str | None = None) -> None:
        self.position = position
        self.job_id = job_id
        """Only events and progress of this job; None = of everything."""
        self.wake = asyncio.Event()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        """Close code and reason, once this subscriber is to be disconnected."""
        self._latest: dict[str, str] = {}
        self._messages: list[str] = []
        self._send_started: float | None = None

    def accepts(self, event: EventFrame) -> bool:
        return self.job_id is None or (event.aggregate_kind == "job" and event.aggregate_id == self.job_id)

    def put_latest(self, key: str, text: str) -> None:
        """Progress or presence: a newer value under the same key replaces an older one."""
        self._latest[key] = text
        self.wake.set()

    def enqueue(self, text: str) -> None:
        """A reply or a state change. A client that sends requests without reading the replies is disconnected."""
        if len(self._messages) >= MAX_QUEUED_MESSAGES:
            self.close(CLOSE_FLOOD, "too many unread replies")
            return
        self._messages.append(text)
        self.wake.set()

    def close(self, code: int, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result((code, reason))

    def drain(self) -> Iterator[str]:
        """Remove and return everything that is to be sent besides events."""
        messages, self._messages = self._messages, []
        latest, self._latest = self._latest, {}
        yield from messages
        yield from latest.values()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Measure how long one send takes."""
        self._send_started = time.monotonic()
        try:
            yield
        finally:
            self._send_started = None

    @property
    def is_stalled(self) -> bool:
        """Has one send taken longer than SEND_STALL_SECONDS?"""
        return self._send_started is not None and time.monotonic() - self._send_started > SEND_STALL_SECONDS
