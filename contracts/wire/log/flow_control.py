"""A flow-controlled subscription to the log: the server sends only as much as the reader has not confirmed yet.

nats-py's ordered consumer (2.16) answers the server's flow control when messages arrive, not when they are processed,
so a reader slower than the server buffered a whole log of hundreds of megabytes. Here the server waits for the reader's
confirmation. Messages lost in transit are not redelivered: the reader detects them, since sequences have no gaps.
"""

import asyncio
import contextlib
from collections import deque

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts import subjects
from contracts.commits import LogMessage
from contracts.signatures import HEADER as SIGNATURE
from contracts.wire.service.jetstream import NATS_ERRORS

REDELIVERY_SECONDS = 24 * 3600
"""Time until the server redelivers unconfirmed messages: longer than any batch takes to process."""
MAX_BUFFERED_BYTES = 8 * 1024**2
"""Maximum bytes buffered here, besides what nats-py has received; then the server stops sending. Also the approximate
maximum size of a batch."""


class LogSubscription:
    """Messages received from the log, bounded in bytes: `put` waits for room."""

    def __init__(self, bus: Client, *, max_batch: int, max_unconfirmed: int, receive_timeout: float) -> None:
        """Maximum messages of a batch, and outstanding; `receive_timeout`: seconds until a batch is empty."""
        self._bus = bus
        self._max_batch = max_batch
        self._max_unconfirmed = max_unconfirmed
        self._receive_timeout = receive_timeout
        self._messages: deque[Msg] = deque()
        self._bytes = 0
        self._not_empty = asyncio.Event()
        self._has_room = asyncio.Event()
        self._subscription: JetStreamContext.PushSubscription | None = None

    async def begin(self, after: int, *, bits_per_second: int | None = None) -> None:
        """Subscribes to all commits after a sequence; raises nats-py's errors.

        Confirming one message confirms all before it. The subscription does not survive a restart of the server.
        """
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=REDELIVERY_SECONDS,
            max_ack_pending=self._max_unconfirmed,
            mem_storage=True,
            num_replicas=1,
            rate_limit_bps=bits_per_second,
        )
        self._subscription = await self._bus.jetstream().subscribe(
            subjects.ALL_EVENTS, stream=subjects.EVENTS, cb=self.put, manual_ack=True, config=config
        )

    async def end(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(*NATS_ERRORS):  # the connection is gone, and the subscription with it
                await subscription.unsubscribe()

    async def put(self, message: Msg) -> None:
        while self._bytes >= MAX_BUFFERED_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        self._messages.append(message)
        self._bytes += len(message.data)
        self._not_empty.set()

    async def take_batch(self) -> list[LogMessage]:
        """One batch; empty after the timeout without a message. Lets the server send the next ones meanwhile."""
        if not self._messages:
            self._not_empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._receive_timeout):
                    await self._not_empty.wait()
        batch: list[Msg] = []
        size = 0
        while self._messages and len(batch) < self._max_batch and size < MAX_BUFFERED_BYTES:
            batch.append(self._messages.popleft())
            size += len(batch[-1].data)
        self._bytes -= size
        self._has_room.set()
        if batch:
            with contextlib.suppress(nats.errors.Error):  # if it is lost nothing arrives, and the reader asks the log
                await batch[-1].ack()
        return [_parse(message) for message in batch]


def _parse(message: Msg) -> LogMessage:
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<nanoseconds>.<pending>, from the end
    tokens = message.reply.rsplit(".", 4)
    signature = (message.headers or {}).get(SIGNATURE, "")
    return LogMessage(int(tokens[1]), int(tokens[3]) // 1000, message.subject, message.data, signature)
