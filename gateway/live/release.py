"""The order in which events are released: that of the log, but what the catalog still works in comes later. Pure."""

from collections import deque
from collections.abc import Iterable

from contracts.commits import Aggregate, RecordedCommit
from contracts.telemetry import Applied
from gateway.cursor import LogPosition, Received


class ReleaseOrder:
    """Holds the commits of an aggregate back while the catalog works in one of them, and lets those of others pass."""

    def __init__(self, received: Received) -> None:
        self._position = received.position
        self._held: dict[Aggregate, deque[RecordedCommit]] = {}
        self._late: dict[Aggregate, LogPosition] = {}
        """The aggregates of which commits were held, with the position up to which they are released."""
        self._newest: dict[Aggregate, int] = {}
        """The newest commit of each of them that was read."""

    @property
    def commits(self) -> int:
        """The number of commits that are held."""
        return sum(map(len, self._held.values()))

    def count_late(self, applied: Applied) -> int:
        """Of how many aggregates events may be late; a cursor names each."""
        return len(self._held.keys() | _pending(applied).keys())

    def take(self, commits: Iterable[RecordedCommit], applied: Applied) -> list[RecordedCommit]:
        """Those of consecutive commits that can be released now; the others are held. `applied` includes them all."""
        pending = _pending(applied)
        ready = []
        for recorded in commits:
            aggregate, sequence = recorded.aggregate, recorded.sequence
            if aggregate in self._held or sequence >= pending.get(aggregate, sequence + 1):
                self._held.setdefault(aggregate, deque()).append(recorded)
                self._late.setdefault(aggregate, LogPosition(sequence - 1))
            else:
                ready.append(recorded)
            if aggregate in self._late:
                self._newest[aggregate] = sequence
        return ready

    def settle(self, applied: Applied) -> list[RecordedCommit]:
        """The held commits that can be released now."""
        pending = _pending(applied)
        ready = []
        for aggregate, held in list(self._held.items()):
            end = min(applied.sequence + 1, pending.get(aggregate, applied.sequence + 1))
            while held and held[0].sequence < end:
                ready.append(held.popleft())
            if not held:
                del self._held[aggregate]
        return ready

    def release(self, aggregate: Aggregate, position: LogPosition) -> Received:
        """What has been released with the event at this position, the next one of its aggregate."""
        self._position = max(self._position, position)
        if aggregate in self._late:
            self._late[aggregate] = position
            if position == LogPosition(self._newest[aggregate]):
                del self._late[aggregate], self._newest[aggregate]
        late = {one: reached for one, reached in self._late.items() if reached < self._position}
        return Received(self._position, late)


def _pending(applied: Applied) -> dict[Aggregate, int]:
    return {(one.aggregate_kind, one.aggregate_id): one.sequence for one in applied.pending}
