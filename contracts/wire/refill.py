"""A damaged log: what can still be read of it, and a new one with every commit at the sequence it had."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import nats.errors
from nats.aio.client import Client
from nats.js.api import Header, StreamConfig
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.errors import Conflict, LogDamaged, Unavailable
from contracts.events import Stored
from contracts.wire.log import decode
from contracts.wire.scan import log_state, scan
from contracts.wire.streams import wanted

AT_ONCE = 128
"""So many commits are on their way at a time; one connection keeps their order."""
PUBLISH_SECONDS = 30.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def survivors(bus: Client, after: int) -> AsyncIterator[Stored]:
    """What can still be read after a sequence, in order; there may be gaps. Nothing where there is no log."""
    try:
        last = (await log_state(bus)).last
    except LogDamaged:
        return
    async for batch in scan(bus, after, last):
        for message in batch:
            try:
                yield decode(message.sequence, EPOCH + timedelta(microseconds=message.recorded), message.body)
            except LogDamaged:
                continue  # a gap like any other


async def make_anew(bus: Client, log_id: str) -> None:
    """An empty log of this name. Conflict where the server holds one: it must be put away first. For `admin`."""
    js = bus.jetstream(timeout=PUBLISH_SECONDS)
    try:
        await js.stream_info(subjects.FACTS)
    except NotFoundError:
        await js.add_stream(replace(_wanted(subjects.FACTS), metadata={"log_id": log_id}))
        return
    raise Conflict("this server holds an event log; it must be put away before another is made")


async def make_metrics(bus: Client) -> None:
    """A place for loss curves, where there is none. For `admin`."""
    js = bus.jetstream(timeout=PUBLISH_SECONDS)
    try:
        await js.stream_info(subjects.METRICS)
    except NotFoundError:
        await js.add_stream(_wanted(subjects.METRICS))


async def put_back(bus: Client, commits: Sequence[Stored]) -> None:
    """Store commits in order, each at its sequence. LogDamaged where the server gave another: then begin anew."""
    for start in range(0, len(commits), AT_ONCE):
        batch = commits[start : start + AT_ONCE]
        given = await asyncio.gather(*(_put(bus, stored) for stored in batch))
        for sequence, stored in zip(given, batch, strict=True):
            if sequence != stored.sequence:
                raise LogDamaged(f"commit {stored.sequence} was stored as {sequence}: somebody else writes as well")


async def _put(bus: Client, stored: Stored) -> int:
    commit = stored.commit
    try:
        ack = await bus.jetstream().publish(
            subjects.fact(commit.kind, commit.thing),
            stored.body,
            timeout=PUBLISH_SECONDS,
            stream=subjects.FACTS,
            headers={Header.MSG_ID: commit.id},
        )
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable(f"the event log did not take commit {stored.sequence} back: {error}") from error
    return ack.seq


def _wanted(name: str) -> StreamConfig:
    return next(config for config in wanted() if config.name == name)
