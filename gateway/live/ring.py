"""The newest released events, in memory. Pure."""

from collections import deque

from gateway.cursor import LogPosition
from gateway.limits import LiveLimits
from gateway.live.encoding import EncodedEvent


class EventRing:
    """The events between two positions of the log; the oldest are dropped at the limits of their number and size."""

    def __init__(self, limits: LiveLimits, *, oldest: LogPosition, newest: LogPosition) -> None:
        """Events are appended from `oldest` on; `newest` is the end of the log, which may be further."""
        self.oldest = oldest
        """All released events after this position are here."""
        self.newest = newest
        """The position of the newest released event."""
        self._limits = limits
        self._events: deque[EncodedEvent] = deque()
        self._bytes = 0

    @property
    def filled_to(self) -> LogPosition:
        """All released events between `oldest` and here are in the ring; less than `newest` while it catches up."""
        return self._events[-1].position if self._events else self.oldest

    def append(self, event: EncodedEvent) -> None:
        self._events.append(event)
        self._bytes += len(event.text)
        self.newest = max(self.newest, event.position)
        while len(self._events) > self._limits.ring_events or self._bytes > self._limits.ring_bytes:
            dropped = self._events.popleft()
            self._bytes -= len(dropped.text)
            self.oldest = dropped.position

    def after(self, position: LogPosition) -> list[EncodedEvent] | None:
        """The events after a position; None when some of them are no longer here."""
        if position < self.oldest:
            return None
        newer: list[EncodedEvent] = []
        for event in reversed(self._events):
            if event.position <= position:
                break
            newer.append(event)
        return newer[::-1]
