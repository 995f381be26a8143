"""LiveFeed: reads the log once for all subscribers, and keeps the last live messages (progress, presence).

The newest events stay in a ring; each subscriber has its own position in the log and reads the events after it from
there, so nothing is missed or repeated between replay and live.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from contracts.errors import Unavailable
from contracts.frames import Fresh, Stale, StaleData, message_frame
from contracts.losses import LossReport
from contracts.telemetry import LIVE_MESSAGES, Applied, LiveMessage, LossesFound, Presence
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import subscribe
from gateway.cursor import Received, decode_cursor
from gateway.limits import LIVE_LIMITS, LiveLimits
from gateway.live.encoding import EncodedEvent, encode_frame
from gateway.live.image_ids import ImageIds
from gateway.live.last_values import Absences, LastValues
from gateway.live.log_reader import LogReader
from gateway.live.ring import EventRing
from gateway.live.subscribers import CLOSE_LOG_GONE, CLOSE_RESTARTING, Subscriber, Subscribers

M = TypeVar("M", bound=LiveMessage)

ENDING_EVENTS = ("succeeded", "failed", "cancelled", "interrupted", "attempt_failed")


class LiveFeed:
    """One per gateway. `run` keeps it up to date; the other methods may be called while it runs."""

    def __init__(
        self,
        bus: Bus,
        images: ImageIds,
        limits: LiveLimits = LIVE_LIMITS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self.images = images
        self._limits = limits
        self._now = now
        self.reader = LogReader(bus, images, limits, self._on_release)
        self._last_values = LastValues()
        self._absences = Absences(datetime.now(UTC))
        self._applied_at = float("-inf")
        self._announced: StaleData | None = None
        """What subscribers know to be stale; None: nothing."""
        self.applied: Applied | None = None
        """The catalog's last announcement."""
        self.losses = LossReport()
        """What is missing of the stored bytes, as the catalog said last."""
        self.subscribers = Subscribers()
        self.open_streams = 0
        """Open streams of server-sent events."""

    @property
    def log_id(self) -> str:
        """Empty until the log was found."""
        return self.reader.log_id

    def received(self, cursor: str | None) -> Received:
        """What a client has that reads on from a cursor (None: from the newest event)."""
        if not self.log_id:
            raise Unavailable("the gateway has not found the event log yet", service="nats")
        return self.ring.newest if cursor is None else decode_cursor(cursor, self.log_id)

    @property
    def ring(self) -> EventRing:
        return self.reader.ring

    @property
    def is_stale(self) -> bool:
        """Has the catalog announced nothing for a while?"""
        return self._now() - self._applied_at > self._limits.stale_after

    @property
    def announcement_age(self) -> float | None:
        """Seconds since the catalog's last announcement; None: there was none."""
        return None if self.applied is None else self._now() - self._applied_at

    @property
    def presences(self) -> list[Presence]:
        workers = (message for message in self._last_values if isinstance(message, Presence))
        return sorted(workers, key=lambda worker: (worker.service, worker.worker))

    def workers(self, service: str) -> list[Presence]:
        return [worker for worker in self.presences if worker.service == service]

    def absent_since(self, service: str) -> datetime | None:
        """Since when no worker of this service is connected; None while there is one."""
        return self._absences.since.get(service)

    def progress_of(self, work_id: str, kind: type[M]) -> M | None:
        message = self._last_values.about(work_id)
        return message if isinstance(message, kind) else None

    @contextmanager
    def subscribe(self, received: Received | None = None, job_id: str | None = None) -> Iterator[Subscriber]:
        """A subscriber that has this already (None: all up to the newest event), until the block ends."""
        subscriber = Subscriber(self.ring.newest if received is None else received, job_id, self._limits, self._now)
        for message in self._last_values:
            if subscriber.accepts_message(message):
                subscriber.put_latest(message.subject, encode_frame(message_frame(message)))
        if self._announced is not None:
            subscriber.enqueue(self._staleness_frame())
        self.subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self.subscribers.discard(subscriber)

    async def changes(self, subscriber: Subscriber) -> AsyncGenerator[int, None]:
        """The sequence of each event the subscriber lacks and accepts, once it is released."""
        while True:
            subscriber.wake.clear()
            for event in self.ring.after(subscriber.received) or ():
                subscriber.received = subscriber.received.joined(event.received)
                if subscriber.accepts(event):
                    yield event.position.sequence
            await subscriber.wake.wait()

    def close_for_restart(self) -> None:
        """The gateway is shutting down; clients reconnect with their cursor."""
        self.subscribers.close(CLOSE_RESTARTING, "the gateway is restarting")

    async def run(self) -> None:
        """Subscribe, follow the log and release events until cancelled."""
        subscriptions = [await subscribe(self._bus, Applied, self._on_applied)]
        subscriptions.append(await subscribe(self._bus, LossesFound, self._on_losses))
        subscriptions += [await subscribe(self._bus, kind, self._on_message) for kind in LIVE_MESSAGES]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick(), name="tick")
                tasks.create_task(self.reader.run(), name="follow")
        finally:
            for subscription in subscriptions:
                if self._bus.is_connected:
                    await subscription.unsubscribe()

    async def _on_applied(self, applied: Applied) -> None:
        self.applied, self._applied_at = applied, self._now()
        if applied.damage:  # at once: `loratory up` is about to stop the gateway
            self._announce_staleness()
        if self.reader.is_replaced_by(applied):
            self.subscribers.close(CLOSE_LOG_GONE, "this event log no longer exists")
        await self.reader.announce(applied)

    async def _on_losses(self, found: LossesFound) -> None:
        self.losses = found.report

    async def _on_message(self, message: LiveMessage) -> None:
        self._last_values.put(message, self._now())
        self._absences.update(self.presences, datetime.now(UTC))
        self._send_message(message)

    def _send_message(self, message: LiveMessage) -> None:
        self.subscribers.send_message(message, encode_frame(message_frame(message)))

    def _on_release(self, events: Sequence[EncodedEvent]) -> None:
        for event in events:
            if event.type.partition(".")[2] in ENDING_EVENTS:
                self._last_values.forget(event.aggregate[1])
        self.subscribers.wake()

    async def _tick(self) -> None:
        while True:
            for message in self._last_values.expire(self._now()):
                self._send_message(message)
            self._absences.update(self.presences, datetime.now(UTC))
            self._announce_staleness()
            self.subscribers.close_slow(self.ring)
            await asyncio.sleep(self._limits.tick)

    def _announce_staleness(self) -> None:
        damage = self.applied.damage if self.applied else ""
        stale = StaleData(reason=damage) if damage or self.is_stale else None
        if stale != self._announced:
            self._announced = stale
            self.subscribers.send(self._staleness_frame())

    def _staleness_frame(self) -> str:
        now = datetime.now(UTC)
        return encode_frame(Fresh(time=now) if self._announced is None else Stale(time=now, data=self._announced))
