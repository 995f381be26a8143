"""Reading a range of the log as stored, as fast as the server sends it: for comparing, not for following.

A server that finds a damaged block in its files silently skips what it cannot read. So whenever the next sequence does
not arrive, the leader is asked for it, to tell messages missing from the log from those lost in transit.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import NamedTuple

import msgspec
from nats.aio.client import Client

from contracts import subjects
from contracts.cancellation import not_cancelled
from contracts.errors import LogDamaged, Unavailable
from contracts.log_message import LogMessage
from contracts.wire.service.bus import Bus
from contracts.wire.service.direct import Batch, BatchLimits, BatchRequest, request_batch
from contracts.wire.service.jetstream import find_message, find_stream, silent

SCAN_LIMITS = BatchLimits(messages=1000)
MAX_FAILED_READS = 5
"""Consecutive reads without a message, where messages exist, before the log counts as unavailable."""


class LogState(NamedTuple):
    """The state of the log as the server reports it. `messages` is below `last - first + 1` where it knows of gaps."""

    log_id: str
    created: datetime | None
    first: int
    last: int
    messages: int

    @property
    def is_dense(self) -> bool:
        """Whether there are no gaps from the first commit on, as far as the server knows."""
        return self.last == 0 or (self.first == 1 and self.messages == self.last)


async def log_state(bus: Client) -> LogState:
    """LogDamaged when there is no log on this server; Unavailable when it does not answer."""
    info = await find_stream(bus.jetstream(), subjects.EVENTS)
    if info is None:
        raise LogDamaged("there is no event log on this server")
    state = info.state
    log_id = (info.config.metadata or {}).get("log_id", "")
    return LogState(log_id, info.created, state.first_seq, state.last_seq, state.messages)


async def next_sequence(bus: Client, after: int) -> int | None:
    """The sequence of the next message after a sequence, read from the log; None at its end."""
    js, every = bus.jetstream(), subjects.ALL_EVENTS
    message = await find_message(js, subjects.EVENTS, seq=after + 1, subject=every, next=True)
    return None if message is None else message.seq


def scan(
    bus: Bus, after: int, to: int, *, bits_per_second: int | None = None, limits: BatchLimits = SCAN_LIMITS
) -> AsyncGenerator[list[LogMessage], None]:
    """The messages after one sequence up to and including another, in order. A skipped sequence has no message.

    `bits_per_second` limits the rate; none = unlimited. Unavailable when the server does not answer, or several answers
    in a row lack messages that the log has.
    """
    return _RangeReader(bus, after, to, limits, bits_per_second).batches()


class _RangeReader:
    """Reads one range; the next batch is requested while the caller processes the current one, unless rate-limited."""

    def __init__(self, bus: Bus, after: int, to: int, limits: BatchLimits, bits_per_second: int | None) -> None:
        self._bus = bus
        self._after = after
        self._to = to
        self._bits_per_second = bits_per_second
        self._limits = limits
        if bits_per_second is not None:
            self._limits = msgspec.structs.replace(limits, bytes=min(limits.bytes, max(bits_per_second // 8, 1)))
        self._ahead: BatchRequest | None = None
        self._failures = 0

    async def batches(self) -> AsyncGenerator[list[LogMessage], None]:
        try:
            while self._after < self._to and not_cancelled():
                started = time.monotonic()
                batch = await self._read()
                messages = await self._contiguous(batch.messages)
                if not messages:
                    if not await self._has_more():
                        return
                    continue
                self._failures = 0
                is_whole = len(messages) == len(batch.messages) and not batch.is_last
                if is_whole and self._after < self._to and self._bits_per_second is None:
                    self._ahead = await self._request()
                yield messages
                await self._pause(started, batch.size)
        finally:
            if self._ahead is not None:
                self._ahead.close()

    async def _pause(self, started: float, size: int) -> None:
        """Keeps to the rate: `size` bytes were read since `started`."""
        if self._bits_per_second is not None and self._after < self._to:
            await asyncio.sleep(started + size * 8 / self._bits_per_second - time.monotonic())

    async def _request(self) -> BatchRequest:
        missing = self._to - self._after
        limits = msgspec.structs.replace(self._limits, messages=min(self._limits.messages, missing))
        return await request_batch(self._bus, subjects.EVENTS, self._after, limits)

    async def _read(self) -> Batch:
        request, self._ahead = self._ahead or await self._request(), None
        try:
            return await request.result()
        except Unavailable:
            return Batch([])  # the leader is asked next

    async def _contiguous(self, messages: list[LogMessage]) -> list[LogMessage]:
        """The messages up to `to`, or up to the first gap that is a loss in transit and not one of the log."""
        batch: list[LogMessage] = []
        for message in messages:
            skips = message.sequence != self._after + 1
            if message.sequence > self._to or (
                skips and await next_sequence(self._bus, self._after) != message.sequence
            ):
                break
            batch.append(message)
            self._after = message.sequence
        return batch

    async def _has_more(self) -> bool:
        """After a read without messages: whether the log has more in this range. Goes on behind a gap in the log."""
        following = await next_sequence(self._bus, self._after)
        if following is None or following > self._to:
            return False
        if following == self._after + 1:  # lost in transit, or a replica lags
            self._failures += 1
            if self._failures == MAX_FAILED_READS:
                raise silent(subjects.EVENTS)
            await asyncio.sleep(self._limits.silence)
        self._after = following - 1
        return True
