"""Following the log: every commit after a sequence, once and in order, across restarts of the server.

The subscription is used for speed and not trusted: it may lose messages in transit or at its limits, or stop silently.
Sequences have no gaps, so a message that is not the next one is dropped (already seen) or triggers a new subscription
(one was missed), and when nothing arrives the position is compared with the end of the stream.

The log is not trusted either. After each reconnect, before yielding more, the follower checks that this is still the
log it has read: a server may come back with an older copy of its files, or without part of them.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from functools import partial

from nats.aio.client import Client

from contracts.cancellation import not_cancelled
from contracts.commits import LogMessage
from contracts.errors import LogDamaged, Unavailable
from contracts.retry import RetryPolicy, retry
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.flow_control import LogSubscription
from contracts.wire.log.scan import LogState, log_state, next_sequence
from contracts.wire.service.jetstream import NATS_ERRORS

MAX_BATCH_COMMITS = 8000
RECEIVE_TIMEOUT_SECONDS = 1.0
RETRIES = RetryPolicy(first_delay=0.3)
"""While the server is unavailable; the client reconnects by itself."""


class Follower:
    """Yields the commits after a sequence, in batches of whatever has arrived."""

    def __init__(
        self, bus: Client, after: int, digest: str | None = None, *, receive_timeout: float = RECEIVE_TIMEOUT_SECONDS
    ) -> None:
        """`digest`: sha256 of the body of the commit at `after`, if known; the log must still have that commit.

        `receive_timeout`: seconds without a message after which the position is compared with the log.
        """
        self._bus = bus
        self._log = EventLog(bus)
        self._after = after
        self._digest = digest
        self._log_identity: tuple[str, datetime | None] | None = None
        """Id and creation time of the log that is read."""
        self._checked_reconnects = -1
        """The number of reconnects at the last check of the log."""
        self._receive_timeout = receive_timeout

    async def batches(self) -> AsyncGenerator[list[LogMessage], None]:
        """Runs until cancelled. LogDamaged when the log was rolled back or has lost a commit."""
        while not_cancelled():
            subscription = LogSubscription(
                self._bus,
                max_batch=MAX_BATCH_COMMITS,
                max_unconfirmed=MAX_BATCH_COMMITS,
                receive_timeout=self._receive_timeout,
            )
            try:
                begin = partial(subscription.begin, self._after)
                await retry(begin, RETRIES, on=NATS_ERRORS, warn="log_unavailable")
                await self._check_log()
                async for batch in self._until_gap(subscription):
                    yield batch
            finally:
                await subscription.end()

    async def _until_gap(self, subscription: LogSubscription) -> AsyncIterator[list[LogMessage]]:
        empty_reads = 0
        while not_cancelled():
            messages = await subscription.take_batch()
            fresh = [message for message in messages if message.sequence > self._after]
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

    def _contiguous(self, messages: list[LogMessage]) -> list[LogMessage]:
        batch: list[LogMessage] = []
        for expected, message in enumerate(messages, start=self._after + 1):
            if message.sequence != expected:
                break
            batch.append(message)
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
            await retry(self._check_position, RETRIES, on=Unavailable, warn="log_unavailable")
            self._checked_reconnects = reconnects

    async def _check_position(self) -> None:
        state = await self._verified_state()
        # A server silently skips messages that it cannot read.
        if self._after < state.last and await next_sequence(self._bus, self._after) != self._after + 1:
            raise LogDamaged(f"commit {self._after + 1} is missing from the log", first_bad=self._after + 1)
        if self._after and self._digest:
            recorded = await self._log.message_at(self._after)
            if recorded is None or hashlib.sha256(recorded.body).hexdigest() != self._digest:
                raise LogDamaged(f"commit {self._after} of the log is not the one that was read", first_bad=self._after)

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
