"""The migrate step: creates or updates the streams and consumers.

It runs first, and again after every start of the server, and is the only code that creates them; services only check
that they exist. The exception is the work queue: everything in it follows from the log, so the dispatcher recreates it.
"""

from dataclasses import replace
from datetime import datetime

import msgspec
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
from contracts.commands import CommandMetadata
from contracts.errors import LogDamaged, SetupError
from contracts.events import LogCreated
from contracts.ids import CommandId, ulid
from contracts.subjects import CLASS_OF, PRIORITIES
from contracts.wire.log import EventLog, StreamRevision, build_commit

GIB = 1024**3
DAY = 24 * 3600.0
FORMAT = 2
"""Format of the data folder, recorded in `log.created`. 2: the names of fields, events and subjects as they are now."""
CURE = ", from commit 1 on; `loratory restore` puts it back"
CONSUMERS = [(work, priority) for work in CLASS_OF.values() for priority in PRIORITIES]
"""The consumers of the work queue: one for each class and priority."""


def stream_configs(log_bytes: int = 8 * GIB, *, duplicate_window: float = DAY) -> tuple[StreamConfig, ...]:
    """All streams. `EVT` rejects messages when full instead of dropping old ones, and denies deletion.

    `duplicate_window`: seconds for which the server itself detects repeated message ids; correctness does not need it.
    """
    return (
        StreamConfig(
            name=subjects.EVENTS,
            subjects=[subjects.ALL_EVENTS],
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
    """Creates or updates the streams; returns the log's id. `lease` in seconds: redelivery time of unextended work.

    `known_log` is the id of the log that the archive was made from. Then a missing or different log is reported
    (LogDamaged) and not created, because a deleted log must never look like a fresh installation. SetupError: the log
    was written in an older format of the data folder.
    """
    js = bus.jetstream()
    for config in stream_configs(duplicate_window=duplicate_window):
        await _ensure(js, config, known_log)
    await _add_consumers(js, lease)
    return await _ensure_log_created(bus, at, known_log)


async def repair_queue(bus: Client, *, lease: float) -> bool:
    """Recreates the work queue or its consumers if they are missing; returns whether anything was.

    The log is authoritative, so nothing is lost with the queue. Raises JetStream's errors.
    """
    js = bus.jetstream()
    try:
        if (await js.stream_info(subjects.QUEUE)).state.consumer_count >= len(CONSUMERS):
            return False
    except NotFoundError:
        await js.add_stream(next(config for config in stream_configs() if config.name == subjects.QUEUE))
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
        if name == subjects.EVENTS and known_log is not None:
            raise LogDamaged(f"the event log {known_log} is gone from this server{CURE}", first_bad=1) from error
        await js.add_stream(replace(config, metadata={"log_id": ulid()} if name == subjects.EVENTS else None))
        return
    await js.update_stream(replace(config, metadata=present.metadata, num_replicas=present.num_replicas))


async def _ensure_log_created(bus: Client, at: datetime, known_log: str | None) -> str:
    """Appends `log.created` as the first commit, with the log's id and format."""
    log = EventLog(bus)
    log_id, last = await log.end()
    if known_log is not None and log_id != known_log:
        raise LogDamaged(f"this server holds the log {log_id}, but the archive was made from {known_log}")
    if last == 0 and known_log is not None:
        raise LogDamaged(f"the event log {known_log} has lost all it held{CURE}", first_bad=1)
    if last == 0:
        # The command id is the log's id, so two migrate steps that race or follow a crash append the same commit.
        metadata = CommandMetadata(command_id=CommandId(log_id), actor="svc:migrate", at=at)
        event = LogCreated(log_id=log_id, format=FORMAT)
        start = StreamRevision()
        await log.append(build_commit("log", log_id, [event], expected_revision=start, metadata=metadata), start)
    elif (written := await _format_of(bus)) != FORMAT:
        raise SetupError(
            f"this data folder has format {written}, and this version of Loratory reads format {FORMAT} only; "
            "start with a new data folder"
        )
    return log_id


async def _format_of(bus: Client) -> int:
    """The format in the first commit. Format 1 named the fields of a commit differently, so nothing is found in it."""
    body = (await bus.jetstream().get_msg(subjects.EVENTS, seq=1)).data or b""
    created = msgspec.json.decode(body, type=_FirstCommit).events
    return created[0].format if created else 1


class _Format(msgspec.Struct):
    format: int = 1


class _FirstCommit(msgspec.Struct):
    """What is read of the first commit, of whatever format it is."""

    events: tuple[_Format, ...] = ()
