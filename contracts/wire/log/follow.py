"""Following the log: every commit after a sequence, once and in order, across restarts of the server.

Messages are read in batches (`contracts.wire.service.direct`); the next batch is requested while the caller processes
the current one. At the end of the log the follower waits until a commit is announced (`wake`) and, since announcements
may be lost and are not believed, compares its position with the log every now and then.

An answer may be incomplete. Sequences have no gaps, so where the next message is not the next commit, or there is none,
the leader is asked whether the log has lost it: a replica may lag, and messages may be lost in transit.

The log is not trusted either. After each reconnect, before yielding more, the follower checks that this is still the
log it has read: a server may come back with an older copy of its files, or without part of them.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime

import msgspec

from contracts import subjects
from contracts.cancellation import not_cancelled
from contracts.errors import LogDamaged, Unavailable
from contracts.log_message import LogMessage
from contracts.retry import RetryPolicy, retry
from contracts.wire.log.scan import LogState, log_state, next_sequence
from contracts.wire.service.bus import Bus
from contracts.wire.service.direct import Batch, BatchLimits, BatchRequest, request_batch
from contracts.wire.service.jetstream import find_message


class FollowPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a log is followed. Times in seconds.

    `poll`: interval of comparing the position with the log while no commit is announced. `lag`: delay before a commit
    is requested again that the log has, but an answer had not. `retries`: while the server is unavailable; the client
    reconnects by itself.
    """

    limits: BatchLimits = BatchLimits()
    poll: float = 1.0
    lag: float = 0.02
    retries: RetryPolicy = RetryPolicy(first_delay=0.3)


DEFAULT_POLICY = FollowPolicy()


class Follower:
    """Yields the messages after a sequence, in batches of whatever the log has."""

    def __init__(
        self, bus: Bus, after: int, digest: str | None = None, *, policy: FollowPolicy = DEFAULT_POLICY
    ) -> None:
        """`digest`: sha256 of the body of the commit at `after`, if known; the log must still have that commit."""
        self._bus = bus
        self._after = after
        self._digest = digest
        self._policy = policy
        self._log_identity: tuple[str, datetime | None] | None = None
        """Id and creation time of the log that is read."""
        self._checked_reconnects = -1
        """The number of reconnects at the last check of the log."""
        self._ahead: BatchRequest | None = None
        """The request for the next batch, if it was sent already."""
        self._announced = 0
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        """Set while all was read that is known of."""

    async def wake(self, sequence: int) -> None:
        """Announces that the log has a commit at this sequence; a follower that waits for one requests it at once."""
        if sequence > self._after:
            self._announced = max(self._announced, sequence)
            if self._idle.is_set() and self._ahead is None:
                await self._request_ahead()
                if not self._idle.is_set():  # it ended meanwhile, or has sent a request itself
                    self._close_ahead()
            self._woken.set()

    async def batches(self) -> AsyncGenerator[list[LogMessage], None]:
        """Runs until cancelled. LogDamaged when the log was rolled back or has lost a commit."""
        self._bus.append_listeners.add(self.wake)
        try:
            while not_cancelled():
                batch = await retry(self._read, self._policy.retries, on=Unavailable, warn="log_unavailable")
                messages = self._contiguous(batch.messages)
                if messages:
                    self._after, self._digest = messages[-1].sequence, hashlib.sha256(messages[-1].body).hexdigest()
                has_gap = len(messages) < len(batch.messages)
                if not has_gap and not batch.is_last:
                    await self._request_ahead()
                if messages:
                    yield messages
                if has_gap:
                    await self._explain_gap()
                elif batch.is_last:
                    await self._wait_for_more(empty=not messages)
        finally:
            self._bus.append_listeners.discard(self.wake)
            self._close_ahead()

    async def _read(self) -> Batch:
        """The next batch, of a log that was checked since the last reconnect. LogDamaged, Unavailable."""
        request, self._ahead = self._ahead or await self._request(), None
        try:
            batch = await request.result()
        except Unavailable:
            await self._check()  # nobody answers for a log that is gone
            raise
        is_stale = 0 <= self._checked_reconnects != self._bus.stats["reconnects"]
        while self._bus.stats["reconnects"] != self._checked_reconnects and not_cancelled():
            await self._check()
        return Batch([]) if is_stale else batch  # read before the log came back, maybe without these commits

    async def _request(self) -> BatchRequest:
        return await request_batch(self._bus, subjects.EVENTS, self._after, self._policy.limits)

    async def _request_ahead(self) -> None:
        with suppress(Unavailable):  # then it is requested when it is needed
            self._ahead = await self._request()

    def _close_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _contiguous(self, messages: list[LogMessage]) -> list[LogMessage]:
        """The messages up to the first gap."""
        if not messages or messages[-1].sequence == self._after + len(messages):
            return messages
        return [message for expected, message in enumerate(messages, self._after + 1) if message.sequence == expected]

    async def _explain_gap(self) -> None:
        """LogDamaged if the log has this gap; else a replica lags, or a message was lost in transit."""
        await retry(self._check, self._policy.retries, on=Unavailable, warn="log_unavailable")
        await asyncio.sleep(self._policy.lag)

    async def _wait_for_more(self, *, empty: bool) -> None:
        self._idle.set()
        try:
            await self._wait(empty=empty)
        finally:
            self._idle.clear()

    async def _wait(self, *, empty: bool) -> None:
        """Returns when a commit is announced that was not read yet, when the log has more, or after a reconnect.

        `empty`: the last answer had no messages; if one was announced it may follow soon, or it was announced falsely.
        """
        timeout = self._policy.poll
        if empty and self._announced > self._after:
            self._announced, timeout = 0, self._policy.lag
        while self._announced <= self._after and not_cancelled():
            self._woken.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._woken.wait()
            except TimeoutError:
                if self._bus.stats["reconnects"] != self._checked_reconnects:
                    return
                await retry(self._check, self._policy.retries, on=Unavailable, warn="log_unavailable")
            timeout = self._policy.poll

    async def _check(self) -> None:
        """Compares the position with the log on its leader, and notes how far that goes. LogDamaged, Unavailable."""
        reconnects = self._bus.stats["reconnects"]
        state = await self._verified_state()
        # A server silently skips messages that it cannot read.
        if self._after < state.last and await next_sequence(self._bus, self._after) != self._after + 1:
            raise LogDamaged(f"commit {self._after + 1} is missing from the log", first_bad=self._after + 1)
        if reconnects != self._checked_reconnects and self._after and self._digest:
            message = await find_message(self._bus.jetstream(), subjects.EVENTS, seq=self._after)
            if message is None or hashlib.sha256(message.data or b"").hexdigest() != self._digest:
                raise LogDamaged(f"commit {self._after} of the log is not the one that was read", first_bad=self._after)
        self._announced = max(self._announced, state.last)
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
