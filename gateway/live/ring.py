"""The newest released events, in memory, in the order of their release. Pure."""

from collections import deque

from gateway.cursor import Received
from gateway.limits import LiveLimits
from gateway.live.encoding import EncodedEvent


class EventRing:
    """The events between two states of the feed; the oldest are dropped at the limits of their number and size."""

    def __init__(self, limits: LiveLimits, *, oldest: Received, newest: Received) -> None:
        """Events are appended from `oldest` on; `newest` is the end of the log, which may be further."""
        self.oldest = oldest
        """All released events that are not in this are here."""
        self.newest = newest
        """What a client has that has received all released events."""
        self._limits = limits
        self._events: deque[EncodedEvent] = deque()
        self._bytes = 0

    @property
    def filled_to(self) -> Received:
        """All released events between `oldest` and here are in the ring; less than `newest` while it catches up."""
        return self._events[-1].received if self._events else self.oldest

    def append(self, event: EncodedEvent) -> None:
        self._events.append(event)
        self._bytes += event.size
        self.newest = self.newest.joined(event.received)
        while len(self._events) > self._limits.ring_events or self._bytes > self._limits.ring_bytes:
            dropped = self._events.popleft()
            self._bytes -= dropped.size
            self.oldest = dropped.received

    def after(self, received: Received) -> list[EncodedEvent] | None:
        """The events that somebody lacks; None when some of them are no longer here."""
        if not received.covers(self.oldest):
            return None
        newer: list[EncodedEvent] = []
        for event in reversed(self._events):
            if received.covers(event.received):
                break
            if not received.includes(event.aggregate, event.position):
                newer.append(event)
        return newer[::-1]
