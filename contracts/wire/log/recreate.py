"""Recreating a damaged log: reading what is left of it, and storing every commit again at its original sequence."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from nats.aio.client import Client

from contracts import subjects
from contracts.commits import LogEntry
from contracts.errors import Conflict, LogDamaged, Unavailable
from contracts.log_message import LogMessage
from contracts.signatures import HEADER as SIGNATURE
from contracts.wire.log.scan import log_state, scan
from contracts.wire.log.streams import add_if_missing, stream_config
from contracts.wire.service.bus import Bus
from contracts.wire.service.jetstream import NATS_ERRORS

MAX_IN_FLIGHT = 128
"""Maximum unacknowledged commits; one connection keeps their order."""
PUBLISH_TIMEOUT_SECONDS = 30.0


async def readable_messages(bus: Bus, after: int) -> AsyncGenerator[LogMessage]:
    """The messages after a sequence that can still be read, in order, with gaps. Empty where there is no log."""
    try:
        last = (await log_state(bus)).last
    except LogDamaged:
        return
    async for batch in scan(bus, after, last):
        for message in batch:
            yield message


async def recreate_stream(bus: Client, log_id: str) -> None:
    """Creates an empty log with this id. Conflict if the server has one: it must be moved first. For `admin`."""
    js = bus.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)
    if not await add_if_missing(js, replace(stream_config(subjects.EVENTS), metadata={"log_id": log_id})):
        raise Conflict("this server holds an event log; it must be moved away before another is created")


async def recreate_metrics_stream(bus: Client) -> None:
    """Creates the stream of loss curves, if there is none. For `admin`."""
    await add_if_missing(bus.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS), stream_config(subjects.METRICS))


async def restore_entries(bus: Client, entries: Sequence[LogEntry]) -> None:
    """Stores entries in order, each at its sequence and with its signature; foreign ones too, to keep their places.

    LogDamaged where the server assigned another sequence: start over.
    """
    for start in range(0, len(entries), MAX_IN_FLIGHT):
        batch = entries[start : start + MAX_IN_FLIGHT]
        sequences = await asyncio.gather(*(_publish(bus, entry) for entry in batch))
        for sequence, entry in zip(sequences, batch, strict=True):
            if sequence != entry.sequence:
                raise LogDamaged(f"commit {entry.sequence} was stored as {sequence}: another writer is active")


async def _publish(bus: Client, entry: LogEntry) -> int:
    try:
        ack = await bus.jetstream().publish(
            entry.subject,
            entry.body,
            timeout=PUBLISH_TIMEOUT_SECONDS,
            stream=subjects.EVENTS,
            headers={SIGNATURE: entry.signature} if entry.signature else None,
        )
    except NATS_ERRORS as error:
        raise Unavailable(f"the event log did not accept commit {entry.sequence}: {error}") from error
    return ack.seq
