"""Following the log: every commit after a sequence, once and in order, across restarts of the server.

The subscription is used for speed and not trusted: it may lose messages in transit or at its limits, or stop silently.
Sequences have no gaps, so a message that is not the next one is dropped (already seen) or triggers a new subscription
(one was missed), and when nothing arrives the position is compared with the end of the stream.

The log is not trusted either. After each reconnect, before yielding more, the follower checks that this is still the
log it has read: a server may come back with an older copy of its files, or without part of them.
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
from contracts.events import RecordedCommit
from contracts.wire.cancellation import not_cancelled
from contracts.wire.flow_control import confirm, subscribe_from
from contracts.wire.log import EventLog, decode
from contracts.wire.scan import LogState, log_state, next_sequence

MAX_BATCH_COMMITS = 8000
MAX_BATCH_BYTES = 8 * 1024**2
"""Approximate maximum size of a batch."""
MAX_BUFFERED_BYTES = MAX_BATCH_BYTES
"""Maximum bytes buffered here, besides what nats-py has received; then the server stops sending."""
RECEIVE_TIMEOUT_SECONDS = 1.0
ReceivedMessage = tuple[int, int, bytes]
"""Sequence, time of storage (nanoseconds since 1970), body."""


class _ReceiveBuffer:
    """Received messages, bounded in bytes: `put` waits for room."""

    def __init__(self) -> None:
        self._messages: deque[Msg] = deque()
        self._bytes = 0
        self._not_empty = asyncio.Event()
        self._has_room = asyncio.Event()

    async def put(self, message: Msg) -> None:
        while self._bytes >= MAX_BUFFERED_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        self._messages.append(message)
        self._bytes += len(message.data)
        self._not_empty.set()

    async def take_batch(self) -> list[Msg]:
        """One batch; empty after RECEIVE_TIMEOUT_SECONDS without a message."""
        if not self._messages:
            self._not_empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECEIVE_TIMEOUT_SECONDS):
                    await self._not_empty.wait()
        batch: list[Msg] = []
        size = 0
        while self._messages and len(batch) < MAX_BATCH_COMMITS and size < MAX_BATCH_BYTES:
            batch.append(self._messages.popleft())
            size += len(batch[-1].data)
        self._bytes -= size
        self._has_room.set()
        if batch:
            await confirm(batch[-1])  # lets the server send the next ones meanwhile
        return batch


class Follower:
    """Yields the commits after a sequence, in batches of whatever has arrived."""

    def __init__(self, bus: Client, after: int, digest: str | None = None) -> None:
        """`digest`: sha256 of the body of the commit at `after`, if known; the log must still have that commit."""
        self._bus = bus
        self._log = EventLog(bus)
        self._after = after
        self._digest = digest
        self._log_identity: tuple[str, datetime | None] | None = None
        """Id and creation time of the log that is read."""
        self._checked_reconnects = -1
        """The number of reconnects at the last check of the log."""
        self._buffer = _ReceiveBuffer()
        self._subscription: JetStreamContext.PushSubscription | None = None

    async def batches(self) -> AsyncGenerator[list[RecordedCommit], None]:
        """Runs until cancelled. LogDamaged when the log was rolled back or has lost a commit."""
        try:
            while not_cancelled():
                await self._subscribe()
                await self._check_log()
                async for batch in self._until_gap():
                    yield batch
                await self._unsubscribe()
        finally:
            await self._unsubscribe()

    async def _until_gap(self) -> AsyncIterator[list[RecordedCommit]]:
        empty_reads = 0
        while not_cancelled():
            messages = await self._buffer.take_batch()
            fresh = [message for message in map(_parse, messages) if message[0] > self._after]
            if not fresh:
                empty_reads = 0 if messages else empty_reads + 1
                if empty_reads and self._bus.stats["reconnects"] != self._checked_reconnects:
                    return  # a restarted server has dropped the subscription
                if empty_reads >= 2 and await self._has_missed_commits():
                    return
                continue
            empty_reads = 0
            if self._bus.stats["reconnects"] != self._checked_reconnects:
                await self._check_log()
            batch = self._contiguous(fresh)
            if batch:
                self._after, self._digest = batch[-1].sequence, hashlib.sha256(batch[-1].body).hexdigest()
                yield batch
            if len(batch) < len(fresh):
                self._checked_reconnects = -1  # check whether it was lost in transit or by the log
                return

    def _contiguous(self, messages: list[ReceivedMessage]) -> list[RecordedCommit]:
        batch: list[RecordedCommit] = []
        for expected, (sequence, nanoseconds, body) in enumerate(messages, start=self._after + 1):
            if sequence != expected:
                break
            batch.append(decode(sequence, datetime.fromtimestamp(nanoseconds / 1e9, UTC), body))
        return batch

    async def _has_missed_commits(self) -> bool:
        """Whether the log has commits that did not arrive; also detects a rolled-back log."""
        try:
            return (await self._verified_state()).last > self._after
        except Unavailable:
            return False

    async def _check_log(self) -> None:
        """Returns once the log was checked since the last reconnect; LogDamaged if it is another log."""
        while self._bus.stats["reconnects"] != self._checked_reconnects and not_cancelled():
            reconnects = self._bus.stats["reconnects"]
            try:
                state = await self._verified_state()
                if self._after < state.last:
                    await self._check_next_commit()
                if self._after and self._digest:
                    await self._check_last_commit(self._digest)
            except Unavailable:
                await asyncio.sleep(0.3)  # the server is unavailable; the client reconnects by itself
            else:
                self._checked_reconnects = reconnects

    async def _verified_state(self) -> LogState:
        state = await log_state(self._bus)
        identity = (state.log_id, state.created)
        if self._log_identity not in {None, identity}:
            raise LogDamaged("the log was replaced while it was read", first_bad=1)
        if state.last < self._after:
            message = f"the log ends at {state.last}, but commits up to {self._after} were read from it"
            raise LogDamaged(message, first_bad=state.last + 1)
        self._log_identity = identity
        return state

    async def _check_next_commit(self) -> None:
        """A server silently skips messages that it cannot read."""
        following = await next_sequence(self._bus, self._after)
        if following != self._after + 1:
            raise LogDamaged(f"commit {self._after + 1} is missing from the log", first_bad=self._after + 1)

    async def _check_last_commit(self, digest: str) -> None:
        recorded = await self._log.commit_at(self._after)
        if recorded is None or hashlib.sha256(recorded.body).hexdigest() != digest:
            raise LogDamaged(f"commit {self._after} of the log is not the one that was read", first_bad=self._after)

    async def _subscribe(self) -> None:
        self._buffer = _ReceiveBuffer()
        while self._subscription is None and not_cancelled():
            try:
                self._subscription = await subscribe_from(
                    self._bus, self._after, self._buffer.put, max_unconfirmed=MAX_BATCH_COMMITS
                )
            except (nats.errors.Error, JetStreamError, OSError):
                await asyncio.sleep(0.3)  # the server is unavailable; the client reconnects by itself

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await subscription.unsubscribe()
        except (nats.errors.Error, JetStreamError, OSError):
            return  # the connection is gone, and the subscription with it


def _parse(message: Msg) -> ReceivedMessage:
    tokens = message.reply.split(".")
    return int(tokens[-4]), int(tokens[-2]), message.data
