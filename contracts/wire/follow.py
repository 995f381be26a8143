"""Following the log: every commit after a place, once and in order, through restarts of the server.

A subscription is trusted for speed only. It may lose messages on the way or past its limits, or die silently; the
log's sequences are dense, so whatever is not the next one is dropped (seen already) or asked for again (missed), and a
watch compares with the stream's end when nothing comes.

Nor does it trust the log. After each break of the line, before anything more is told, it looks whether this is still
the log it has read from: a server may come back with an older copy of its files, or without a part of them.
"""

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError

from contracts.errors import LogDamaged, Unavailable
from contracts.events import Stored
from contracts.wire.log import EventLog, decode
from contracts.wire.reading import confirm, subscribe
from contracts.wire.scan import LogState, log_state, next_sequence
from contracts.wire.tasks import wanted

BATCH = 8000
BATCH_BYTES = 8 * 1024**2
"""A batch is what has come, up to so many commits and not much more than so many bytes."""
WAITING_BYTES = BATCH_BYTES
"""So much waits here at most, beside what nats-py has received already: a batch, for the server waits then."""
WATCH_SECONDS = 1.0
Placed = tuple[int, int, bytes]
"""Sequence, when the server stored it (nanoseconds since 1970), body."""


class Waiting:
    """What has come and was not taken yet, bounded in bytes: `put` waits for room."""

    def __init__(self) -> None:
        self._messages: deque[Msg] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, message: Msg) -> None:
        while self._bytes >= WAITING_BYTES:
            self._room.clear()
            await self._room.wait()
        self._messages.append(message)
        self._bytes += len(message.data)
        self._some.set()

    async def take(self) -> list[Msg]:
        """A batch; nothing after WATCH_SECONDS of silence."""
        if not self._messages:
            self._some.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._some.wait()
        taken: list[Msg] = []
        size = 0
        while self._messages and len(taken) < BATCH and size < BATCH_BYTES:
            taken.append(self._messages.popleft())
            size += len(taken[-1].data)
        self._bytes -= size
        self._room.set()
        if taken:
            await confirm(taken[-1])  # the server sends the next ones meanwhile
        return taken


class Follower:
    """The commits after a sequence, in batches of what has come."""

    def __init__(self, bus: Client, after: int, digest: str | None = None) -> None:
        """`digest`: sha256 of the body of the commit at `after`, for who remembers it; the log must still have it."""
        self._bus = bus
        self._log = EventLog(bus)
        self._after = after
        self._digest = digest
        self._known: tuple[str, datetime | None] | None = None
        """Id and birth of the log that is read."""
        self._lines = -1
        """Reconnects up to the last look at the log."""
        self._waiting = Waiting()
        self._subscription: JetStreamContext.PushSubscription | None = None

    async def batches(self) -> AsyncGenerator[list[Stored], None]:
        """Ends only when it is cancelled. LogDamaged when the log went back or lost a commit."""
        try:
            while wanted():
                await self._subscribe()
                await self._look()
                async for batch in self._until_gap():
                    yield batch
                await self._unsubscribe()
        finally:
            await self._unsubscribe()

    async def _until_gap(self) -> AsyncIterator[list[Stored]]:
        silent = 0
        while wanted():
            messages = await self._waiting.take()
            fresh = [placed for placed in map(_placed, messages) if placed[0] > self._after]
            if not fresh:
                silent = 0 if messages else silent + 1
                if silent and self._bus.stats["reconnects"] != self._lines:
                    return  # a server that was away has forgotten who reads
                if silent >= 2 and await self._missed_something():
                    return
                continue
            silent = 0
            if self._bus.stats["reconnects"] != self._lines:
                await self._look()
            batch = self._contiguous(fresh)
            if batch:
                self._after, self._digest = batch[-1].sequence, hashlib.sha256(batch[-1].body).hexdigest()
                yield batch
            if len(batch) < len(fresh):
                self._lines = -1  # lost on the way, or by the log?
                return

    def _contiguous(self, placed: list[Placed]) -> list[Stored]:
        batch: list[Stored] = []
        for expected, (sequence, nanoseconds, body) in enumerate(placed, start=self._after + 1):
            if sequence != expected:
                break
            batch.append(decode(sequence, datetime.fromtimestamp(nanoseconds / 1e9, UTC), body))
        return batch

    async def _missed_something(self) -> bool:
        """Nothing comes: is there nothing, or did the subscription die? Or has the log gone back?"""
        try:
            return (await self._checked()).last > self._after
        except Unavailable:
            return False

    async def _look(self) -> None:
        """Returns when the log was looked at since the line last broke; LogDamaged when it is not what was read."""
        while self._bus.stats["reconnects"] != self._lines and wanted():
            lines = self._bus.stats["reconnects"]
            try:
                state = await self._checked()
                if self._after < state.last:
                    await self._look_at_next()
                if self._after and self._digest:
                    await self._look_at_last(self._digest)
            except Unavailable:
                await asyncio.sleep(0.3)  # the server is away; the client reconnects by itself
            else:
                self._lines = lines

    async def _checked(self) -> LogState:
        state = await log_state(self._bus)
        known = (state.log_id, state.created)
        if self._known not in {None, known}:
            raise LogDamaged("the log was replaced while it was read", first_bad=1)
        if state.last < self._after:
            sentence = f"the log ends at {state.last}, but commits up to {self._after} were read from it"
            raise LogDamaged(sentence, first_bad=state.last + 1)
        self._known = known
        return state

    async def _look_at_next(self) -> None:
        """A server leaves out what it cannot read, and says nothing."""
        following = await next_sequence(self._bus, self._after)
        if following != self._after + 1:
            raise LogDamaged(f"commit {self._after + 1} is missing from the log", first_bad=self._after + 1)

    async def _look_at_last(self, digest: str) -> None:
        stored = await self._log.stored(self._after)
        if stored is None or hashlib.sha256(stored.body).hexdigest() != digest:
            raise LogDamaged(f"commit {self._after} of the log is not the one that was read", first_bad=self._after)

    async def _subscribe(self) -> None:
        self._waiting = Waiting()
        while self._subscription is None and wanted():
            try:
                self._subscription = await subscribe(self._bus, self._after, self._waiting.put, most=BATCH)
            except (nats.errors.Error, JetStreamError, OSError):
                await asyncio.sleep(0.3)  # the server is away; the client reconnects by itself

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await subscription.unsubscribe()
        except (nats.errors.Error, JetStreamError, OSError):
            return  # the connection is gone, and the subscription with it


def _placed(message: Msg) -> Placed:
    tokens = message.reply.split(".")
    return int(tokens[-4]), int(tokens[-2]), message.data
