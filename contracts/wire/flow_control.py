"""A flow-controlled subscription to the log: the server sends only as much as the reader has not confirmed yet.

nats-py's ordered consumer (2.16) answers the server's flow control when messages arrive, not when they are processed,
so a reader slower than the server buffered a whole log of hundreds of megabytes. Here the server waits for the reader's
confirmation. Messages lost in transit are not redelivered: the reader detects them, since sequences have no gaps.
"""

import contextlib
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts import subjects

REDELIVERY_SECONDS = 24 * 3600
"""Time until the server redelivers unconfirmed messages: longer than any batch takes to process."""


async def subscribe_from(
    bus: Client,
    after: int,
    on_message: Callable[[Msg], Awaitable[None]],
    *,
    max_unconfirmed: int,
    bits_per_second: int | None = None,
) -> JetStreamContext.PushSubscription:
    """Subscribes to all commits after a sequence, with at most `max_unconfirmed` outstanding; raises nats-py's errors.

    Confirming one message confirms all before it. The subscription does not survive a restart of the server.
    """
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=AckPolicy.ALL,
        ack_wait=REDELIVERY_SECONDS,
        max_ack_pending=max_unconfirmed,
        mem_storage=True,
        num_replicas=1,
        rate_limit_bps=bits_per_second,
    )
    return await bus.jetstream().subscribe(
        subjects.ALL_EVENTS, stream=subjects.EVENTS, cb=on_message, manual_ack=True, config=config
    )


async def confirm(message: Msg) -> None:
    """Lets the server send more. If the confirmation is lost nothing arrives, and the reader checks the log's state."""
    with contextlib.suppress(nats.errors.Error):
        await message.ack()
