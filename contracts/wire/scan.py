"""Reading a stretch of the log as it is stored, as fast as the server sends it: for comparing, not for following.

A server that finds a block of its files damaged leaves out what it cannot read and says nothing. So whatever is not the
next message is asked for by itself, to tell what the log has lost from what was only lost on the way.
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
from contracts.wire.reading import confirm, subscribe
from contracts.wire.tasks import wanted

BATCH = 1000
WAITING = 4000
"""So many messages wait here at most; then the server does."""
SILENCE_SECONDS = 2.0
TRIES = 5
"""So often in a row nothing may come where something is, before the log counts as not answering."""


class Message(NamedTuple):
    """One place of the log. `recorded`: microseconds since 1970, by the server's clock."""

    sequence: int
    recorded: int
    subject: str
    body: bytes


class LogState(NamedTuple):
    """What the server says of the log. `messages` is less than `last - first + 1` where it knows of holes."""

    log_id: str
    created: datetime | None
    first: int
    last: int
    messages: int

    @property
    def dense(self) -> bool:
        """Is every place from the first commit on filled, as far as the server knows?"""
        return self.last == 0 or (self.first == 1 and self.messages == self.last)


async def log_state(bus: Client) -> LogState:
    """LogDamaged when there is no log on this server; Unavailable when it does not answer."""
    try:
        info = await bus.jetstream().stream_info(subjects.FACTS)
    except NotFoundError as error:
        raise LogDamaged("there is no event log on this server") from error
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the event log does not answer", service="nats") from error
    state = info.state
    log_id = (info.config.metadata or {}).get("log_id", "")
    return LogState(log_id, info.created, state.first_seq, state.last_seq, state.messages)


async def next_sequence(bus: Client, after: int) -> int | None:
    """Where the next message after a place lies, by the log's own word; None at its end. Unavailable: no answer."""
    try:
        message = await bus.jetstream().get_msg(subjects.FACTS, seq=after + 1, subject=subjects.ALL_FACTS, next=True)
    except NotFoundError:
        return None
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the event log does not answer", service="nats") from error
    return message.seq


async def scan(bus: Client, after: int, to: int, *, bits: int | None = None) -> AsyncIterator[list[Message]]:
    """The messages after one place up to and with another, in order. A place that is passed over holds nothing.

    `bits` a second is the most the server sends; none = all it can. Unavailable when it does not answer.
    """
    tries = 0
    while after < to and wanted():
        if tries == TRIES:
            raise Unavailable("the event log does not answer", service="nats")
        tries += 1
        stretch = _Stretch(bus, after, to)
        try:
            await stretch.begin(bits)
            async for batch in stretch.batches():
                after, tries = batch[-1].sequence, 0
                yield batch
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error
        finally:
            await stretch.end()
        if stretch.over:
            return


class _Stretch:
    """One subscription. It ends where it is at `to`, or where it must be begun again."""

    def __init__(self, bus: Client, after: int, to: int) -> None:
        self._bus = bus
        self._js = bus.jetstream()
        self._after = after
        self._to = to
        self._queue: asyncio.Queue[Msg] = asyncio.Queue(WAITING)
        self._subscription: JetStreamContext.PushSubscription | None = None
        self.over = False
        """Nothing is left in the log to read."""

    async def begin(self, bits: int | None) -> None:
        self._subscription = await subscribe(self._bus, self._after, self._queue.put, most=WAITING, bits=bits)

    async def end(self) -> None:
        if self._subscription is None:
            return
        try:
            await self._subscription.unsubscribe()
        except (nats.errors.Error, JetStreamError, OSError):
            return  # the connection is gone, and the subscription with it

    async def batches(self) -> AsyncIterator[list[Message]]:
        while self._after < self._to and wanted():
            found = [_message(message) for message in await self._waiting()]
            fresh = [message for message in found if message.sequence > self._after]
            batch = await self._credible(fresh)
            if batch:
                yield batch
            if not found or len(batch) < len(fresh):
                break
        following = await next_sequence(self._bus, self._after) if self._after < self._to else None
        self.over = following is None or following > self._to

    async def _credible(self, fresh: list[Message]) -> list[Message]:
        """Those up to `to`, or up to the first that was lost on the way, not by the log."""
        batch: list[Message] = []
        for message in fresh:
            skips = message.sequence != self._after + 1
            if message.sequence > self._to or (skips and await self._lost_on_the_way(message.sequence)):
                break
            batch.append(message)
            self._after = message.sequence
        return batch

    async def _lost_on_the_way(self, came: int) -> bool:
        return await next_sequence(self._bus, self._after) != came

    async def _waiting(self) -> list[Msg]:
        """What has come, at most BATCH; nothing after SILENCE_SECONDS."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                messages = [await self._queue.get()]
        except TimeoutError:
            return []
        while len(messages) < BATCH and not self._queue.empty():
            messages.append(self._queue.get_nowait())
        await confirm(messages[-1])
        return messages


def _message(message: Msg) -> Message:
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer's own>.<nanoseconds>.<pending>, from the right end
    tokens = message.reply.rsplit(".", 4)
    return Message(int(tokens[1]), int(tokens[3]) // 1000, message.subject, message.data)
