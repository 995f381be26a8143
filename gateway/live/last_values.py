"""The last live message of each subject, and which services have no worker. Pure: times are arguments."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from contracts.telemetry import LiveMessage, Presence

WORKER_SERVICES = ("trainer", "tagger")


class LastValues:
    """For clients that connect later; a message without a successor expires."""

    def __init__(self) -> None:
        self._messages: dict[str, tuple[LiveMessage, float]] = {}

    def __iter__(self) -> Iterator[LiveMessage]:
        return (message for message, _ in self._messages.values())

    def put(self, message: LiveMessage, now: float) -> None:
        """`now` is on a monotonic clock."""
        self._messages[message.subject] = (message, now)

    def about(self, work_id: str) -> LiveMessage | None:
        """The last message about a job or tagging run."""
        return next((message for message in self if message.work_id == work_id), None)

    def forget(self, work_id: str) -> None:
        """The attempt at this work has ended: it makes no more progress."""
        for message in [message for message in self if message.work_id == work_id]:
            del self._messages[message.subject]

    def expire(self, now: float) -> list[LiveMessage]:
        """Removes what has expired, and returns what live clients are to receive instead."""
        expired = [message for message, at in self._messages.values() if now - at > message.lifetime]
        for message in expired:
            del self._messages[message.subject]
        return [gone for message in expired if (gone := message.expired()) is not None]


class Absences:
    """Since when no worker of a service is connected."""

    def __init__(self, now: datetime) -> None:
        self.since: dict[str, datetime] = dict.fromkeys(WORKER_SERVICES, now)
        """Services without a connected worker."""

    def update(self, workers: Iterable[Presence], now: datetime) -> None:
        present = {worker.service for worker in workers}
        self.since = {name: self.since.get(name, now) for name in WORKER_SERVICES if name not in present}
