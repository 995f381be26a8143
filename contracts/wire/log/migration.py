"""The migrate step: creates or updates the streams and consumers.

It runs first, and again after every start of the server, and is the only code that creates them; services only check
that they exist.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.commands.base import CommandMetadata
from contracts.commits import StreamRevision, build_commit, encode_commit
from contracts.errors import LogDamaged, SetupError, Unavailable
from contracts.events.log import LogCreated
from contracts.ids import CommandId, ulid
from contracts.retry import RetryPolicy, retry
from contracts.wire.log.publishing import Draft, publish
from contracts.wire.log.scan import log_state
from contracts.wire.log.streams import fill_queue, find_queue, stream_configs
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.jetstream import NATS_ERRORS
from contracts.wire.service.settings import BusSettings

FORMAT = 4
"""Format of the data folder, recorded in `log.created`. 2: the names of fields, events and subjects as they are now;
3: signed commits, one NATS account a service."""
FROM_THE_START = ", from commit 1 on"
DEFAULT_LEASE_SECONDS = 15.0
ANSWER_SECONDS = 30.0
"""Of the server, for one stream or consumer: it writes them to its disk, which may be busy when everything starts."""
PUBLISH_TIMEOUT_SECONDS = 2.0
PUBLISH_RETRIES = RetryPolicy(first_delay=0.2, time_limit=20.0)


class MigrateSettings(BusSettings, frozen=True, kw_only=True):
    """`lease`: seconds until unextended work goes to another worker. `known_log`: the catalog's file with the log id.

    That file may be absent: then no archive exists and a log may be created.
    """

    nats_user: str = "admin"
    lease: float = DEFAULT_LEASE_SECONDS
    known_log: Path | None = None


async def migrate_once(settings: MigrateSettings) -> str:
    """Like `migrate`, with a connection of its own. SetupError: no connection. Unavailable: it was lost."""
    file = settings.known_log  # empty if a catalog crashed while it wrote the file
    known = (file.read_text(encoding="utf-8", errors="replace").strip() or None) if file and file.exists() else None
    async with await connect_service(settings, "migrate") as bus:
        try:
            return await migrate(bus, at=datetime.now(UTC), lease=settings.lease, known_log=known)
        except NATS_ERRORS as error:
            raise Unavailable("the NATS server does not answer the migrate step", service="nats") from error


async def migrate(bus: Bus, *, at: datetime, lease: float, known_log: str | None = None) -> str:
    """Creates or updates streams and consumers, idempotently; returns the log's id.

    `lease` in seconds: redelivery time of unextended work. `known_log` is the id of the log that the archive was made
    from. Then a missing or different log is reported (LogDamaged) and not created, because a deleted log must never
    look like a fresh installation. SetupError: the log was written in an older format of the data folder.
    """
    js = bus.jetstream(timeout=ANSWER_SECONDS)
    await find_queue(js)  # a stopped one is deleted, and created below
    for config in stream_configs():
        await _ensure(js, config, known_log)
    await fill_queue(js, lease)
    return await _ensure_log_created(bus, at, known_log)


async def _ensure(js: JetStreamContext, config: StreamConfig, known_log: str | None) -> None:
    name = str(config.name)
    try:
        present = (await js.stream_info(name)).config
    except NotFoundError as error:
        if name == subjects.EVENTS and known_log is not None:
            raise LogDamaged(
                f"the event log {known_log} is gone from this server{FROM_THE_START}", first_bad=1
            ) from error
        await js.add_stream(replace(config, metadata={"log_id": ulid()} if name == subjects.EVENTS else None))
        return
    await js.update_stream(replace(config, metadata=present.metadata, num_replicas=present.num_replicas))


async def _ensure_log_created(bus: Bus, at: datetime, known_log: str | None) -> str:
    """Appends `log.created` as the first commit, with the log's id and format."""
    state = await log_state(bus)
    log_id, last = state.log_id, state.last
    if known_log is not None and log_id != known_log:
        raise LogDamaged(f"this server holds the log {log_id}, but the archive was made from {known_log}")
    if last == 0 and known_log is not None:
        raise LogDamaged(f"the event log {known_log} has lost all it held{FROM_THE_START}", first_bad=1)
    if last == 0:
        await retry(lambda: _append_log_created(bus, log_id, at), PUBLISH_RETRIES, on=Unavailable)
    elif (written := await _format_of(bus)) != FORMAT:
        raise SetupError(
            f"this data folder has format {written}, and this version of Loratory reads format {FORMAT} only; "
            "start with a new data folder"
        )
    return log_id


async def _append_log_created(bus: Bus, log_id: str, at: datetime) -> None:
    """The command id is the log's id, so two migrate steps that race or follow a crash append the same commit."""
    metadata = CommandMetadata(command_id=CommandId(log_id), actor="svc:migrate", at=at)
    event = LogCreated(log_id=log_id, format=FORMAT)
    commit = build_commit("log", log_id, [event], expected_revision=StreamRevision(), metadata=metadata)
    draft = Draft(subjects.aggregate("log", log_id), encode_commit(commit), expected_sequence=0)
    ack = await publish(bus, [draft], PUBLISH_TIMEOUT_SECONDS)
    if ack.verdict not in ("stored", "conflict"):
        raise ack.to_error()


async def _format_of(bus: Bus) -> int:
    """The format in the first commit. Format 1 named the fields of a commit differently, so nothing is found in it.

    LogDamaged: the first commit is gone.
    """
    try:
        body = (await bus.jetstream().get_msg(subjects.EVENTS, seq=1)).data or b""
    except NotFoundError as error:
        raise LogDamaged(f"commit 1 is not in the log any more{FROM_THE_START}", first_bad=1) from error
    created = msgspec.json.decode(body).get("events") or [{}]
    return int(created[0].get("format", 1))
