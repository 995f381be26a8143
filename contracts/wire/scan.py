"""Reading a range of the log as stored, as fast as the server sends it: for comparing, not for following.

A server that finds a damaged block in its files silently skips what it cannot read. So whenever the next sequence does
not arrive, it is requested on its own, to tell messages missing from the log from those lost in transit.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.errors import LogDamaged, Unavailable
from contracts.wire.cancellation import not_cancelled
from contracts.wire.flow_control import confirm, subscribe_from

BATCH = 1000
MAX_UNCONFIRMED = 4000
"""Maximum messages buffered here; then the server stops sending."""
RECEIVE_TIMEOUT_SECONDS = 2.0
MAX_EMPTY_READS = 5
"""Consecutive reads without a message, where messages exist, before the log counts as unavailable."""


class Message(NamedTuple):
    """One message of the log. `recorded_us`: microseconds since 1970, by the server's clock."""

    sequence: int
    recorded_us: int
    subject: str
    body: bytes


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
    try:
        info = await bus.jetstream().stream_info(subjects.EVENTS)
    except NotFoundError as error:
        raise LogDamaged("there is no event log on this server") from error
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the event log does not answer", service="nats") from error
    state = info.state
    log_id = (info.config.metadata or {}).get("log_id", "")
    return LogState(log_id, info.created, state.first_seq, state.last_seq, state.messages)


async def next_sequence(bus: Client, after: int) -> int | None:
    """The sequence of the next message after a sequence, read from the log; None at its end."""
    try:
        message = await bus.jetstream().get_msg(subjects.EVENTS, seq=after + 1, subject=subjects.ALL_EVENTS, next=True)
    except NotFoundError:
        return None
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the event log does not answer", service="nats") from error
    return message.seq


async def scan(bus: Client, after: int, to: int, *, bits_per_second: int | None = None) -> AsyncIterator[list[Message]]:
    """The messages after one sequence up to and including another, in order. A skipped sequence has no message.

    `bits_per_second` limits the server's rate; none = unlimited. Unavailable when it does not answer.
    """
    empty_reads = 0
    while after < to and not_cancelled():
        if empty_reads == MAX_EMPTY_READS:
            raise Unavailable("the event log does not answer", service="nats")
        empty_reads += 1
        reader = _RangeReader(bus, after, to)
        try:
            await reader.begin(bits_per_second)
            async for batch in reader.batches():
                after, empty_reads = batch[-1].sequence, 0
                yield batch
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error
        finally:
            await reader.end()
        if reader.is_finished:
            return


class _RangeReader:
    """One subscription. It ends when `to` is reached, or when a new subscription is needed."""

    def __init__(self, bus: Client, after: int, to: int) -> None:
        self._bus = bus
        self._js = bus.jetstream()
        self._after = after
        self._to = to
        self._queue: asyncio.Queue[Msg] = asyncio.Queue(MAX_UNCONFIRMED)
        self._subscription: JetStreamContext.PushSubscription | None = None
        self.is_finished = False
        """Whether nothing is left to read."""

    async def begin(self, bits_per_second: int | None) -> None:
        self._subscription = await subscribe_from(
            self._bus, self._after, self._queue.put, max_unconfirmed=MAX_UNCONFIRMED, bits_per_second=bits_per_second
        )

    async def end(self) -> None:
        if self._subscription is None:
            return
        try:
            await self._subscription.unsubscribe()
        except (nats.errors.Error, JetStreamError, OSError):
            return  # the connection is gone, and the subscription with it

    async def batches(self) -> AsyncIterator[list[Message]]:
        while self._after < self._to and not_cancelled():
            received = [_message(message) for message in await self._receive()]
            fresh = [message for message in received if message.sequence > self._after]
            batch = await self._contiguous(fresh)
            if batch:
                yield batch
            if not received or len(batch) < len(fresh):
                break
        following = await next_sequence(self._bus, self._after) if self._after < self._to else None
        self.is_finished = following is None or following > self._to

    async def _contiguous(self, fresh: list[Message]) -> list[Message]:
        """The messages up to `to`, or up to the first gap that is a loss in transit and not one of the log."""
        batch: list[Message] = []
        for message in fresh:
            skips = message.sequence != self._after + 1
            if message.sequence > self._to or (skips and await self._lost_in_transit(message.sequence)):
                break
            batch.append(message)
            self._after = message.sequence
        return batch

    async def _lost_in_transit(self, received: int) -> bool:
        return await next_sequence(self._bus, self._after) != received

    async def _receive(self) -> list[Msg]:
        """The buffered messages, at most BATCH; empty after RECEIVE_TIMEOUT_SECONDS without any."""
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_SECONDS):
                messages = [await self._queue.get()]
        except TimeoutError:
            return []
        while len(messages) < BATCH and not self._queue.empty():
            messages.append(self._queue.get_nowait())
        await confirm(messages[-1])
        return messages


def _message(message: Msg) -> Message:
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<nanoseconds>.<pending>, from the end
    tokens = message.reply.rsplit(".", 4)
    return Message(int(tokens[1]), int(tokens[3]) // 1000, message.subject, message.data)
