"""A subscription to the log from a place on: the server sends no more than can wait, as long as what came is confirmed.

nats-py's ordered consumer answers the server's flow control as messages come, not as they are worked on (2.16), so a
reader that is slower than the server took in a whole log of hundreds of megabytes. Here the server waits for a
confirmation. What is lost on the way is not sent again: a reader looks at the sequences, which are dense.
"""

import contextlib
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts import subjects

NOT_AGAIN_SECONDS = 24 * 3600
"""So long until the server would send again what was not confirmed: longer than any batch is worked on."""


async def subscribe(
    bus: Client, after: int, hear: Callable[[Msg], Awaitable[None]], *, most: int, bits: int | None = None
) -> JetStreamContext.PushSubscription:
    """All commits after a sequence, at most `most` of them not confirmed; acknowledging one confirms all before it.

    `bits`: so many a second at most. It ends with the connection's server; errors as nats-py's.
    """
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=AckPolicy.ALL,
        ack_wait=NOT_AGAIN_SECONDS,
        max_ack_pending=most,
        mem_storage=True,
        num_replicas=1,
        rate_limit_bps=bits,
    )
    return await bus.jetstream().subscribe(
        subjects.ALL_FACTS, stream=subjects.FACTS, cb=hear, manual_ack=True, config=config
    )


async def confirm(message: Msg) -> None:
    """The server may send on. One that does not hear it waits, and whoever reads looks why nothing comes."""
    with contextlib.suppress(nats.errors.Error):
        await message.ack()
