"""The projection loop: next commits → archive → read model → announcement of the applied sequence."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog

from catalog.archive.archive import Archive
from catalog.entries import commits_at
from catalog.image_sets import ReadSets
from catalog.store import Store, checkpoint
from contracts.cancellation import not_cancelled
from contracts.commits import RecordedCommit
from contracts.retry import repeat
from contracts.telemetry import Appended, Applied, PendingAggregate
from contracts.wire.log.follow import DEFAULT_POLICY, Follower, FollowPolicy
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import subscribe

ANNOUNCE_INTERVAL_SECONDS = 1.0

_log = structlog.get_logger(__name__)

Announce = Callable[[Applied], Awaitable[None]]


async def project(  # noqa: PLR0913 - the parts that the loop joins
    bus: Bus,
    store: Store,
    archive: Archive,
    announce: Announce,
    read_sets: ReadSets,
    *,
    policy: FollowPolicy = DEFAULT_POLICY,
) -> None:
    """Runs until cancelled. LogDamaged: the log lost commits, or contains events that this version does not know.

    The archive must have been verified unless the rows are current. The applied sequence is announced after each
    transaction, so a client that reads again sees the new rows, and every second, so that silence indicates a failure.
    """
    await catch_up(store, archive, read_sets)
    async with asyncio.TaskGroup() as tasks:
        announcements = repeat(lambda: announce(_applied(store, archive)), every=ANNOUNCE_INTERVAL_SECONDS)
        tasks.create_task(announcements, name="announcements")
        tasks.create_task(_work_on(store, archive, announce, read_sets), name="slices")
        last = archive.tail.sequence
        follower = Follower(bus, last, await archive.digest_at(last), policy=policy)
        async with _woken_by_workers(bus, follower):
            async for messages in follower.batches():
                await store.wait_for_room()
                await store.take_in(await read_sets(await archive.receive(messages)))
                await announce(_applied(store, archive))


@asynccontextmanager
async def _woken_by_workers(bus: Bus, follower: Follower) -> AsyncIterator[None]:
    """Reads what a worker appended as soon as it says so; the catalog's own appends wake its follower by themselves."""

    async def on_appended(appended: Appended) -> None:
        await follower.wake(appended.sequence)

    subscription = await subscribe(bus, Appended, on_appended)
    try:
        yield
    finally:
        if bus.is_connected:
            await subscription.unsubscribe()


async def _work_on(store: Store, archive: Archive, announce: Announce, read_sets: ReadSets) -> None:
    """Finish what is pending, a slice at a time; others write in between."""
    while not_cancelled():
        await store.wait_until_pending()
        before = store.pending
        await store.work_on(partial(_commits_at, archive, read_sets))
        if store.pending != before:
            await announce(_applied(store, archive))


async def _commits_at(archive: Archive, read_sets: ReadSets, sequences: Sequence[int]) -> list[RecordedCommit]:
    found = await archive.read(lambda log: list(commits_at(log, sequences)))
    return [entry for entry in await read_sets(found) if isinstance(entry, RecordedCommit)]


async def is_current(store: Store, archive: Archive) -> bool:
    """Whether the rows show all that is archived, completely: then nothing is computed from the archive at first."""
    last = await store.read(checkpoint)
    shows_all = last.sequence == archive.tail.sequence and not store.pending
    return shows_all and await archive.digest_at(last.sequence) == last.digest


async def catch_up(store: Store, archive: Archive, read_sets: ReadSets) -> None:
    """Apply all archived commits to the read model, which is rebuilt if it does not match the archive.

    What was pending when the catalog ended is finished first. Nobody else waits, so the rest is applied at once.
    `read_sets` reads the sets of images that lie in blobs.
    """
    last = await store.read(checkpoint)
    if last.sequence and await archive.digest_at(last.sequence) != last.digest:
        _log.warning("read_model_reset", applied=last.sequence, archived=archive.tail.sequence)
        await store.reset()
    while await store.work_on(partial(_commits_at, archive, read_sets)):
        pass
    while batch := await archive.next_batch(store.applied):
        await store.apply(await read_sets(batch))


def _applied(store: Store, archive: Archive) -> Applied:
    pending = tuple(
        PendingAggregate(aggregate_kind=kind, aggregate_id=aggregate_id, sequence=sequence)
        for (kind, aggregate_id), sequence in sorted(store.pending.items())
    )
    return Applied(
        log_id=archive.log_id,
        sequence=store.applied,
        verified=archive.verified,
        last_foreign=store.last_foreign,
        pending=pending,
    )
