"""The loop that turns facts into views: next commits → archive → read model → news."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from catalog.archive import Archive
from catalog.store import Store, checkpoint
from contracts.telemetry import Applied
from contracts.wire.bus import Bus
from contracts.wire.follow import Follower
from contracts.wire.tasks import wanted

AT_ONCE = 2000
"""Commits of the archive in one transaction, each no larger than COMMIT_BYTES."""
NEWS_SECONDS = 1.0

_log = structlog.get_logger(__name__)

Announce = Callable[[Applied], Awaitable[None]]


async def project(bus: Bus, store: Store, archive: Archive, announce: Announce) -> None:
    """Ends only when it is cancelled. LogDamaged: the log went back or holds what this version does not understand.

    The archive must have been judged. News is told after each transaction, so whoever asks again sees the new rows, and
    every second, so that silence means trouble.
    """
    await catch_up(store, archive)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_repeat(store, archive, announce), name="news")
        last = archive.tail.sequence
        async for batch in Follower(bus, last, await archive.digest_at(last)).batches():
            await archive.append(batch)
            await store.apply(batch)
            await announce(_news(store, archive))


async def catch_up(store: Store, archive: Archive) -> None:
    """Bring the read model to where the archive ends; from nothing, if it is not made from what is archived."""
    mark = await store.read(checkpoint)
    if mark.sequence and await archive.digest_at(mark.sequence) != mark.digest:
        _log.warning("read_model_thrown_away", applied=mark.sequence, archived=archive.tail.sequence)
        await store.start_over()
    while batch := await archive.commits(store.applied, AT_ONCE):
        await store.apply(batch)


def _news(store: Store, archive: Archive) -> Applied:
    return Applied(log_id=archive.log_id, sequence=store.applied, verified=archive.verified)


async def _repeat(store: Store, archive: Archive, announce: Announce) -> None:
    while wanted():
        await announce(_news(store, archive))
        await asyncio.sleep(NEWS_SECONDS)
