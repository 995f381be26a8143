"""Reads the log and holds each event back until the catalog shows it, so that a client that asks sees it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import structlog

from contracts.cancellation import not_cancelled
from contracts.commits import RecordedCommit, decode_message
from contracts.errors import Behind, LogDamaged, LoratoryError, Unavailable
from contracts.frames import EventImages
from contracts.log_message import LogMessage
from contracts.retry import Outage, RetryPolicy, retry
from contracts.telemetry import Applied
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.service.bus import Bus
from gateway.cursor import MAX_LATE, START, LogPosition, Received
from gateway.limits import LiveLimits
from gateway.live.encoding import EncodedEvent, encode_event, positions_in
from gateway.live.image_ids import ImageIds
from gateway.live.release import ReleaseOrder
from gateway.live.ring import EventRing

RETRIES = RetryPolicy(first_delay=0.5)

_log = structlog.get_logger()


class LogReader:
    """`run` reads until cancelled; released events are in `ring`, and `on_release` is called with them."""

    def __init__(
        self, bus: Bus, images: ImageIds, limits: LiveLimits, on_release: Callable[[Sequence[EncodedEvent]], None]
    ) -> None:
        self._bus = bus
        self._log = EventLog(bus)
        self._images = images
        self._limits = limits
        self._on_release = on_release
        self._applied: Applied | None = None
        self._announced = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._follower: Follower | None = None
        self.damage = ""
        """What is wrong with the log, as a sentence."""
        self._reset("", end=0)

    @property
    def lag(self) -> int:
        """Commits read from the log that the catalog does not show yet."""
        return self._waiting + self._order.commits

    def is_replaced_by(self, applied: Applied) -> bool:
        """Has the catalog announced another log than the one that is read here?"""
        return self.log_id != "" and applied.log_id not in {"", self.log_id}

    async def announce(self, applied: Applied) -> None:
        """The catalog has applied the log up to here: read on, or begin to read another log."""
        self._applied = applied
        self._announced.set()
        if self.is_replaced_by(applied) and self._following is not None:
            _log.warning("log_changed", known=self.log_id, announced=applied.log_id)
            self._following.cancel()
        elif self._follower is not None:
            await self._follower.wake(applied.sequence)

    async def run(self) -> None:
        outage = Outage("log_not_followed", RETRIES)
        while not_cancelled():
            self._following = asyncio.create_task(self._follow_log(outage), name="follow-one-log")
            try:
                await asyncio.wait([self._following])
            finally:
                self._following.cancel()
            try:
                if not self._following.cancelled():
                    self._following.result()
            except LoratoryError as error:
                if isinstance(error, LogDamaged):
                    self.damage = error.detail
                await outage.wait(error)

    async def _follow_log(self, outage: Outage) -> None:
        """Read one log from shortly before its end. Ends with an error, or is cancelled when the log is replaced."""
        log_id, end = await self._log.end()
        outage.ended()
        self._reset(log_id, end=end)
        self.damage = ""
        self._follower = Follower(self._bus, self.ring.oldest.position.sequence)
        reading = asyncio.create_task(self._read(self._follower), name="read-the-log")
        settling = asyncio.create_task(self._release_late(), name="release-late-events")
        try:
            first, _ = await asyncio.wait((reading, settling), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            settling.cancel()
            await asyncio.gather(reading, settling, return_exceptions=True)
        first.pop().result()

    async def _read(self, follower: Follower) -> None:
        async for batch in follower.batches():
            await self._release_batch(batch)

    async def _release_batch(self, batch: Sequence[LogMessage]) -> None:
        start = 0
        while start < len(batch):
            self._waiting = len(batch) - start
            applied = await self._wait_applied(batch[start].sequence)
            messages = [message for message in batch[start:] if message.sequence <= applied.sequence]
            async with self._releasing:
                await self._release(self._order.take(await self._accepted(messages, applied), applied))
            start += len(messages)
        self._waiting = 0

    async def _release_late(self) -> None:
        """Release what the catalog had still to work in, once it shows it."""
        while not_cancelled():
            self._announced.clear()
            if self._applied is not None:
                async with self._releasing:
                    await self._release(self._order.settle(self._applied))
            await self._announced.wait()

    def _reset(self, log_id: str, *, end: int) -> None:
        self.log_id = log_id
        start = max(0, end - self._limits.commits_at_start)
        oldest = Received(LogPosition(start) if start else START)
        self.ring = EventRing(self._limits, oldest=oldest, newest=Received(LogPosition(end)))
        self._order = ReleaseOrder(oldest)
        self._releasing = asyncio.Lock()
        self._waiting = 0

    async def _wait_applied(self, sequence: int) -> Applied:
        """The newest announcement, once the catalog has verified and applied this commit, and few events are late."""
        while True:
            applied = self._applied
            is_of_this_log = applied is not None and applied.verified and applied.log_id == self.log_id
            if (
                applied is not None
                and is_of_this_log
                and applied.sequence >= sequence
                and self._order.count_late(applied) <= MAX_LATE
            ):
                return applied
            self._announced.clear()
            await self._announced.wait()

    async def _accepted(self, messages: Sequence[LogMessage], applied: Applied) -> list[RecordedCommit]:
        """The commits among these messages, without those that the catalog found foreign."""
        foreign: set[int] = set()
        if applied.last_foreign >= messages[0].sequence:
            find = partial(self._images.foreign, messages[0].sequence - 1, messages[-1].sequence)
            foreign = await retry(find, RETRIES, on=(Unavailable, Behind), warn="foreign_unknown")
        return [decode_message(message) for message in messages if message.sequence not in foreign]

    async def _release(self, commits: Sequence[RecordedCommit]) -> None:
        """Append the events to the ring, so that clients receive them. `commits` in the order of their release."""
        if not commits:
            return
        events = [(recorded.commit.aggregate_id, event) for recorded in commits for event in recorded.commit.events]
        end = max(recorded.sequence for recorded in commits)
        images = await retry(
            lambda: self._images.images_of(events, applied=end),
            RETRIES,
            on=(Unavailable, Behind),
            warn="images_unknown",
        )
        of_each = iter(images)
        released = [event for recorded in commits for event in self._encode(recorded, of_each)]
        for event in released:
            self.ring.append(event)
        self._on_release(released)

    def _encode(self, recorded: RecordedCommit, images: Iterator[EventImages | None]) -> Iterator[EncodedEvent]:
        commit = recorded.commit
        for event, position in zip(commit.events, positions_in(recorded), strict=True):
            received = self._order.release(recorded.aggregate, position)
            yield encode_event(
                event, commit, position=position, received=received, images=next(images), log_id=self.log_id
            )
