"""Reading a range of the log as stored, as fast as the server sends it: for comparing, not for following.

A server that finds a damaged block in its files silently skips what it cannot read. So whenever the next sequence does
not arrive, it is requested on its own, to tell messages missing from the log from those lost in transit.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from nats.aio.client import Client

from contracts import subjects
from contracts.cancellation import not_cancelled
from contracts.commits import LogMessage
from contracts.errors import LogDamaged
from contracts.wire.log.flow_control import LogSubscription
from contracts.wire.service.jetstream import find_message, find_stream, silent, translate_errors

BATCH = 1000
MAX_UNCONFIRMED = 4000
"""Maximum messages outstanding; then the server stops sending."""
RECEIVE_SECONDS = 2.0
MAX_EMPTY_READS = 5
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


async def scan(
    bus: Client, after: int, to: int, *, bits_per_second: int | None = None, receive_timeout: float = RECEIVE_SECONDS
) -> AsyncIterator[list[LogMessage]]:
    """The messages after one sequence up to and including another, in order. A skipped sequence has no message.

    `bits_per_second` limits the server's rate; none = unlimited. Unavailable when it does not answer: after several
    reads without a message for `receive_timeout` seconds, where messages exist.
    """
    empty_reads = 0
    while after < to and not_cancelled():
        if empty_reads == MAX_EMPTY_READS:
            raise silent(subjects.EVENTS)
        empty_reads += 1
        reader = _RangeReader(bus, after, to, receive_timeout)
        try:
            with translate_errors(subjects.EVENTS):
                async for batch in reader.batches(bits_per_second):
                    after, empty_reads = batch[-1].sequence, 0
                    yield batch
        finally:
            await reader.subscription.end()
        if reader.is_finished:
            return


class _RangeReader:
    """One subscription. It ends when `to` is reached, or when a new subscription is needed."""

    def __init__(self, bus: Client, after: int, to: int, receive_timeout: float) -> None:
        self._bus = bus
        self._after = after
        self._to = to
        self.subscription = LogSubscription(
            bus, max_batch=BATCH, max_unconfirmed=MAX_UNCONFIRMED, receive_timeout=receive_timeout
        )
        self.is_finished = False
        """Whether nothing is left to read."""

    async def batches(self, bits_per_second: int | None) -> AsyncIterator[list[LogMessage]]:
        await self.subscription.begin(self._after, bits_per_second=bits_per_second)
        while self._after < self._to and not_cancelled():
            received = await self.subscription.take_batch()
            fresh = [message for message in received if message.sequence > self._after]
            batch = await self._contiguous(fresh)
            if batch:
                yield batch
            if not received or len(batch) < len(fresh):
                break
        following = await next_sequence(self._bus, self._after) if self._after < self._to else None
        self.is_finished = following is None or following > self._to

    async def _contiguous(self, fresh: list[LogMessage]) -> list[LogMessage]:
        """The messages up to `to`, or up to the first gap that is a loss in transit and not one of the log."""
        batch: list[LogMessage] = []
        for message in fresh:
            skips = message.sequence != self._after + 1
            if message.sequence > self._to or (
                skips and await next_sequence(self._bus, self._after) != message.sequence
            ):
                break
            batch.append(message)
            self._after = message.sequence
        return batch
