"""The streams and consumers on the server. The migrate step creates them (`contracts.wire.log.migration`).

The exception is the work queue: everything in it follows from the log, so it is recreated when it is lost
(`contracts.wire.log.queue_watch`).
"""

from functools import partial

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError, ServerError

from contracts import subjects
from contracts.aggregates import WORK_KINDS
from contracts.subjects import PRIORITIES

STREAM_STOPPED = 10194
"""JetStream's error for a stream that this server has, and will not serve: `stream is offline: stopped - …`."""
CONSUMER_NOT_CREATED = 10012
"""JetStream's error for `error creating store for consumer`, as of a corrupt state file."""
GIB = 1024**3
DAY = 24 * 3600.0
_STREAM = partial(
    StreamConfig,
    storage=StorageType.FILE,
    retention=RetentionPolicy.LIMITS,
    discard=DiscardPolicy.NEW,
    duplicate_window=120,
)
CONSUMERS = [(work, priority) for work in WORK_KINDS for priority in PRIORITIES]
"""The consumers of the work queue: one for each class and priority."""


def stream_configs(log_bytes: int = 8 * GIB) -> tuple[StreamConfig, ...]:
    """All streams. `EVT` rejects messages when full instead of dropping old ones, and denies deletion."""
    return (
        _STREAM(
            name=subjects.EVENTS,
            subjects=[subjects.ALL_EVENTS],
            max_bytes=log_bytes,
            max_msg_size=256 * 1024,
            allow_direct=True,
            allow_atomic=True,
            deny_delete=True,
            deny_purge=True,
        ),
        _STREAM(
            name=subjects.QUEUE,
            subjects=[subjects.ALL_QUEUED],
            retention=RetentionPolicy.WORK_QUEUE,
            discard_new_per_subject=True,
            max_msgs_per_subject=1,
            max_msgs=100_000,
            max_bytes=64 * 1024**2,
            max_msg_size=1024,
        ),
        _STREAM(
            name=subjects.METRICS,
            subjects=[subjects.ALL_METRICS],
            discard=DiscardPolicy.OLD,
            max_age=90 * DAY,
            max_bytes=GIB,
            max_msg_size=64 * 1024,
            allow_direct=True,
        ),
        _STREAM(
            name=subjects.LEASES,
            subjects=[subjects.ALL_LEASES],
            max_msgs_per_subject=1,
            max_msgs=100,
            max_bytes=1024**2,
            max_msg_size=1024,
            allow_msg_ttl=True,
        ),
    )


def stream_config(name: str) -> StreamConfig:
    return next(config for config in stream_configs() if config.name == name)


async def add_if_missing(js: JetStreamContext, config: StreamConfig) -> bool:
    """Creates a stream, if there is none of its name; returns whether it did. Raises JetStream's errors."""
    try:
        await js.stream_info(str(config.name))
    except NotFoundError:
        await js.add_stream(config)
        return True
    return False


async def find_queue(js: JetStreamContext) -> StreamInfo | None:
    """The work queue; None if there is none. Raises JetStream's errors.

    One that the server stopped for good is deleted: the damaged file of a consumer is enough for that.
    """
    try:
        return await js.stream_info(subjects.QUEUE)
    except NotFoundError:
        return None
    except ServerError as error:
        if error.err_code != STREAM_STOPPED:
            raise
        await js.delete_stream(subjects.QUEUE)
        return None


async def repair_queue(bus: Client, *, lease: float) -> bool:
    """Recreates the work queue or its consumers if they are missing; returns whether anything was.

    The log is authoritative, so nothing is lost with the queue. Raises JetStream's errors.
    """
    js = bus.jetstream()
    queue = await find_queue(js)
    if queue is None:
        await js.add_stream(stream_config(subjects.QUEUE))
    elif queue.state.consumer_count >= len(CONSUMERS):
        return False
    await fill_queue(js, lease)
    return True


async def fill_queue(js: JetStreamContext, lease: float) -> None:
    """Adds the queue's consumers. Where a damaged file prevents that, the queue is made again."""
    try:
        await add_consumers(js, lease)
    except APIError as error:
        if error.err_code != CONSUMER_NOT_CREATED:
            raise
        await js.delete_stream(subjects.QUEUE)
        await js.add_stream(stream_config(subjects.QUEUE))
        await add_consumers(js, lease)


async def add_consumers(js: JetStreamContext, lease: float) -> None:
    for work, priority in CONSUMERS:
        await js.add_consumer(
            subjects.QUEUE,
            ConsumerConfig(
                durable_name=subjects.queue_consumer(work, priority),
                filter_subject=subjects.queue_filter(work, priority),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=lease,
                max_deliver=-1,
                max_ack_pending=10_000,
            ),
        )
