"""Reads the log and holds each event back until the catalog has applied it, so that a client that asks sees it."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from contracts.cancellation import not_cancelled
from contracts.commits import RecordedCommit, decode_message
from contracts.errors import Behind, LogDamaged, LoratoryError, Unavailable
from contracts.log_message import LogMessage
from contracts.retry import Outage, RetryPolicy, retry
from contracts.telemetry import Applied
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.service.bus import Bus
from gateway.cursor import START, LogPosition
from gateway.limits import LiveLimits
from gateway.live.encoding import EncodedEvent, encode_commit
from gateway.live.image_ids import ImageIds
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
        """Commits read from the log that the catalog has not announced yet."""
        return self._waiting

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
        self._follower = Follower(self._bus, self.ring.oldest.sequence)
        async for batch in self._follower.batches():
            start = 0
            while start < len(batch):
                self._waiting = len(batch) - start
                applied = await self._wait_applied(batch[start].sequence)
                ready = [message for message in batch[start:] if message.sequence <= applied.shown]
                commits = await self._accepted(ready, applied)
                self._release(await self._encode(commits) if commits else ())
                start += len(ready)
            self._waiting = 0

    def _reset(self, log_id: str, *, end: int) -> None:
        self.log_id = log_id
        start = max(0, end - self._limits.ring_events)
        oldest = LogPosition(start) if start else START
        self.ring = EventRing(self._limits, oldest=oldest, newest=LogPosition(end))
        self._waiting = 0

    async def _wait_applied(self, sequence: int) -> Applied:
        """The newest announcement, once the catalog has verified this commit and shows it and all before it."""
        while True:
            applied = self._applied
            is_of_this_log = applied is not None and applied.verified and applied.log_id == self.log_id
            if applied is not None and is_of_this_log and applied.shown >= sequence:
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

    async def _encode(self, batch: Sequence[RecordedCommit]) -> list[EncodedEvent]:
        events = [(recorded.commit.aggregate_id, event) for recorded in batch for event in recorded.commit.events]
        end = batch[-1].sequence
        images = await retry(
            lambda: self._images.images_of(events, applied=end),
            RETRIES,
            on=(Unavailable, Behind),
            warn="images_unknown",
        )
        of_each = iter(images)
        return [
            event
            for recorded in batch
            for event in encode_commit(recorded, [next(of_each) for _ in recorded.commit.events], self.log_id)
        ]

    def _release(self, events: Sequence[EncodedEvent]) -> None:
        for event in events:
            self.ring.append(event)
        if events:
            self._on_release(events)
