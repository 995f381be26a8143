"""The migrate step: the streams and consumers as they must be. It runs first, again after every start of the server,
and is the only one that creates them; services only look whether they are there. But the queue holds nothing that the
log does not know, and the dispatcher makes it anew when it is lost.
"""

from dataclasses import replace
from datetime import datetime

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.commands import Origin
from contracts.errors import LogDamaged
from contracts.events import LogCreated
from contracts.ids import CommandId, ulid
from contracts.subjects import CLASS_OF, PRIORITIES
from contracts.wire.log import EventLog, Head, draw_up

GIB = 1024**3
DAY = 24 * 3600.0
FORMAT = 1
CURE = ", from commit 1 on; `loratory restore` puts it back"
CONSUMERS = [(work, priority) for work in CLASS_OF.values() for priority in PRIORITIES]
"""The queue's own, one for each line in which work waits."""


def wanted(log_bytes: int = 8 * GIB, *, duplicate_window: float = DAY) -> tuple[StreamConfig, ...]:
    """The streams. `EVT` refuses when full rather than forget; nobody can delete from it.

    `duplicate_window`: seconds for which the server knows an id again. What we promise does not hang on it.
    """
    return (
        StreamConfig(
            name=subjects.FACTS,
            subjects=[subjects.ALL_FACTS],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_bytes=log_bytes,
            max_msg_size=256 * 1024,
            duplicate_window=duplicate_window,
            allow_direct=True,
            allow_atomic=True,
            deny_delete=True,
            deny_purge=True,
        ),
        StreamConfig(
            name=subjects.QUEUE,
            subjects=[subjects.ALL_QUEUED],
            storage=StorageType.FILE,
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=1,
            max_msgs=100_000,
            max_bytes=64 * 1024**2,
            max_msg_size=1024,
            duplicate_window=120,
        ),
        StreamConfig(
            name=subjects.METRICS,
            subjects=[subjects.ALL_METRICS],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            max_age=90 * DAY,
            max_bytes=GIB,
            max_msg_size=64 * 1024,
            duplicate_window=120,
            allow_direct=True,
        ),
        StreamConfig(
            name=subjects.LEASES,
            subjects=[subjects.ALL_LEASES],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_msgs_per_subject=1,
            max_msgs=100,
            max_bytes=1024**2,
            max_msg_size=1024,
            duplicate_window=120,
            allow_msg_ttl=True,
        ),
    )


async def migrate(
    bus: Client, *, at: datetime, lease: float, known_log: str | None = None, duplicate_window: float = DAY
) -> str:
    """Make the streams what they must be; the log's id. `lease` in seconds: a silent worker loses its work after it.

    `known_log` is the id of the log an archive was made from: then a missing or different log is not created but
    reported (LogDamaged), because a deleted log must never look like a fresh installation.
    """
    js = bus.jetstream()
    for config in wanted(duplicate_window=duplicate_window):
        await _ensure(js, config, known_log)
    await _add_consumers(js, lease)
    return await _named(bus, at, known_log)


async def mend_queue(bus: Client, *, lease: float) -> bool:
    """Make the job queue whole again where it or a part of it is gone; was there anything to do?

    What is true stands in the log, so a queue that is lost is no loss. JetStream's errors go up.
    """
    js = bus.jetstream()
    try:
        if (await js.stream_info(subjects.QUEUE)).state.consumer_count >= len(CONSUMERS):
            return False
    except NotFoundError:
        await js.add_stream(next(config for config in wanted() if config.name == subjects.QUEUE))
    await _add_consumers(js, lease)
    return True


async def _add_consumers(js: JetStreamContext, lease: float) -> None:
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


async def _ensure(js: JetStreamContext, config: StreamConfig, known_log: str | None) -> None:
    name = str(config.name)
    try:
        present = (await js.stream_info(name)).config
    except NotFoundError as error:
        if name == subjects.FACTS and known_log is not None:
            raise LogDamaged(f"the event log {known_log} is gone from this server{CURE}", first_bad=1) from error
        await js.add_stream(replace(config, metadata={"log_id": ulid()} if name == subjects.FACTS else None))
        return
    await js.update_stream(replace(config, metadata=present.metadata, num_replicas=present.num_replicas))


async def _named(bus: Client, at: datetime, known_log: str | None) -> str:
    """The log begins with its own name."""
    log = EventLog(bus)
    log_id, last = await log.end()
    if known_log is not None and log_id != known_log:
        raise LogDamaged(f"this server holds the log {log_id}, but the archive was made from {known_log}")
    if last == 0 and known_log is not None:
        raise LogDamaged(f"the event log {known_log} has lost all it held{CURE}", first_bad=1)
    if last == 0:
        # Made from the log's id, so that a migrate step that died before this one finishes its work, not its own.
        origin = Origin(command=CommandId(log_id), actor="svc:migrate", at=at)
        fact = LogCreated(log_id=log_id, format=FORMAT)
        await log.append(draw_up("log", log_id, [fact], after=Head(), origin=origin), Head())
    return log_id
