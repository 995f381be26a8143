"""The projection: appended events become archived commits, rows and announcements, and it resumes where it stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from catalog import views
from catalog.archive.archive import Archive
from catalog.image_sets import ReadSets, SetReader
from catalog.projection import catch_up, is_current, project
from catalog.store import Store
from catalog.views import datasets
from contracts.commits import ForeignMessage, RecordedCommit, StreamRevision, build_commit
from contracts.errors import LogDamaged
from contracts.events.datasets import DatasetCreated
from contracts.events.jobs import JobQueued
from contracts.signatures import HEADER
from contracts.telemetry import Applied
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import DEFAULT_POLICY, FollowPolicy
from contracts.wire.service.bus import Bus
from tests.catalog.log_builder import LOG_ID, full_history
from tests.catalog.test_store import all_rows
from tests.conftest import BusOf, command_metadata
from tests.limits import WAIT
from tests.signing import append_keys, key_named

ROOT = key_named("root")


class RunningProjection:
    """A verified archive, a store, and the applied sequences announced so far."""

    def __init__(self, folder: Path, archive: Archive, log_id: str) -> None:
        self.archive = archive
        self.store = Store(folder / "read.db", log_id, views)
        self.announced: asyncio.Queue[Applied] = asyncio.Queue()

    async def record(self, applied: Applied) -> None:
        await self.announced.put(applied)


def sets_of(archive: Archive, folder: Path) -> ReadSets:
    return SetReader(archive, [LocalBlobs(folder / "blobs")]).read


@asynccontextmanager
async def run_projection(
    bus: Bus, folder: Path, policy: FollowPolicy = DEFAULT_POLICY
) -> AsyncIterator[RunningProjection]:
    archive = Archive(folder)
    running = RunningProjection(folder, archive, await archive.verify_on_start(EventLog(bus)))
    await archive.begin(ROOT.public)
    task = asyncio.create_task(project(bus, running.store, archive, running.record, sets_of(archive, folder)))
    try:
        yield running
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await running.store.close()
        await archive.close()


async def create_dataset(bus: Bus, name: str) -> RecordedCommit:
    commit = build_commit(
        "dataset",
        f"ds_{name}",
        [DatasetCreated(name=name)],
        expected_revision=StreamRevision(),
        metadata=command_metadata(),
    )
    log = EventLog(bus)
    log.signer = (await append_keys(bus, ROOT))["catalog"]
    return await log.append(commit, StreamRevision())


async def test_an_event_becomes_a_row_an_archived_commit_and_an_announcement(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    async with run_projection(bus, tmp_path) as running:
        recorded = await create_dataset(bus, "cats")
        await running.store.wait_for(recorded.sequence)

        row = await running.store.read(lambda connection: datasets.find(connection, "cats"))
        assert row is not None
        assert row.revision.sequence == recorded.sequence
        assert [commit.body for commit in await running.archive.entries(recorded.sequence - 1, 10)] == [recorded.body]
        async with asyncio.timeout(WAIT):
            while (applied := await running.announced.get()).sequence < recorded.sequence:
                pass
        assert applied == Applied(log_id=running.archive.log_id, sequence=recorded.sequence, verified=True)


async def test_what_a_worker_appends_is_applied_at_once_since_it_says_so(bus_of: BusOf, tmp_path: Path) -> None:
    bus, trainer = await bus_of("catalog"), await bus_of("trainer")
    async with run_projection(bus, tmp_path, FollowPolicy(poll=3600)) as running:
        await running.store.wait_for((await create_dataset(bus, "cats")).sequence, timeout=WAIT)
        commit = build_commit(
            "job",
            "job_1",
            [JobQueued(priority="high")],
            expected_revision=StreamRevision(),
            metadata=command_metadata(),
        )
        appended = await EventLog(trainer).append(commit, StreamRevision())
        await running.store.wait_for(appended.sequence, timeout=WAIT)


async def test_it_resumes_where_it_stopped_and_misses_nothing(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    async with run_projection(bus, tmp_path) as running:
        await running.store.wait_for((await create_dataset(bus, "cats")).sequence, timeout=WAIT)
    last = await create_dataset(bus, "dogs")

    async with run_projection(bus, tmp_path) as running:
        await running.store.wait_for(last.sequence, timeout=WAIT)
        found = await running.store.read(lambda connection: datasets.page(connection, 0, 10))

    assert [row.name for row in found] == ["cats", "dogs"]


async def test_a_deleted_read_model_is_rebuilt_identically_from_the_archive(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await archive.append(full_history().commits)
    first, second = Store(tmp_path / "read.db", LOG_ID, views), Store(tmp_path / "again.db", LOG_ID, views)

    await catch_up(first, archive, sets_of(archive, tmp_path))
    await catch_up(second, archive, sets_of(archive, tmp_path))

    assert first.applied == archive.tail.sequence
    assert await all_rows(second) == await all_rows(first)
    for file in (first, second, archive):
        await file.close()


async def test_a_read_model_is_current_when_it_shows_all_that_is_archived(tmp_path: Path) -> None:
    commits = full_history().commits
    async with Archive(tmp_path) as archive, Store(tmp_path / "read.db", LOG_ID, views) as store:
        await archive.append(commits)
        await store.apply(commits[:-1])
        assert not await is_current(store, archive)
        await store.take_in(commits[-1:])
        assert await is_current(store, archive)


async def test_a_read_model_that_does_not_match_the_archive_is_reset(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await archive.append(full_history().commits)
    store, other = Store(tmp_path / "read.db", LOG_ID, views), full_history()
    other.commits.pop()
    other.create_dataset("ds_never", "never happened")
    await store.apply(other.commits)
    assert not await is_current(store, archive)

    await catch_up(store, archive, sets_of(archive, tmp_path))

    assert store.applied == archive.tail.sequence
    assert await is_current(store, archive)
    assert await store.read(lambda connection: datasets.find(connection, "ds_never")) is None
    await store.close()
    await archive.close()


async def append_raw(bus: Bus, aggregate_id: str, old: bytes, new: bytes, *, signed: bool = True) -> int:
    """Append the creation of a data set with some bytes of its body replaced; returns its sequence."""
    log, metadata = EventLog(bus), command_metadata()
    event = DatasetCreated(name="cats")
    commit = build_commit("dataset", aggregate_id, [event], expected_revision=StreamRevision(), metadata=metadata)
    signer = (await append_keys(bus, ROOT))["catalog"]
    body, subject = msgspec.json.encode(commit).replace(old, new), f"evt.dataset.{aggregate_id}"
    headers = {HEADER: signer.sign(subject, body)} if signed else None
    await bus.jetstream().publish(subject, body, headers=headers)
    return (await log.end())[1]


SCHEMA_99 = b'"version":1', b'"schema":99,"version":1'


async def test_a_commit_of_a_newer_version_stops_it(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    archive = Archive(tmp_path)
    store = Store(tmp_path / "read.db", await archive.verify_on_start(EventLog(bus)), views)
    await archive.begin(ROOT.public)
    await append_keys(bus, ROOT, schema=99)
    await append_raw(bus, "ds_1", *SCHEMA_99)

    async def ignore(_: Applied) -> None:
        return

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(WAIT):
            await project(bus, store, archive, ignore, sets_of(archive, tmp_path))

    assert caught.group_contains(LogDamaged, match="commit 4 was written by a newer version of Loratory")
    await store.close()
    await archive.close()


@pytest.mark.parametrize(
    ("change", "signed", "reason"),
    [
        ((b".created", b".dreamt"), True, "it is no commit"),
        ((b"", b""), False, "it is not signed"),
        (SCHEMA_99, True, "it has schema 99, but the catalog registered its key for schema "),
    ],
    ids=["signed", "unsigned", "newer"],
)
async def test_what_is_no_commit_of_a_known_writer_changes_nothing(
    bus_of: BusOf, tmp_path: Path, change: tuple[bytes, bytes], signed: bool, reason: str
) -> None:
    bus = await bus_of("catalog")
    async with run_projection(bus, tmp_path) as running:
        forged = await append_raw(bus, "ds_1", *change, signed=signed)
        recorded = await create_dataset(bus, "dogs")
        await running.store.wait_for(recorded.sequence)

        assert await running.store.read(lambda connection: datasets.find(connection, "cats")) is None
        assert await running.store.read(lambda connection: datasets.find(connection, "dogs")) is not None
        (foreign,) = await running.archive.entries(forged - 1, 1)
        assert isinstance(foreign, ForeignMessage)
        assert foreign.reason.startswith(reason)
        assert running.store.foreign_heads == {("dataset", "ds_1"): forged}
        assert (await running.archive.verify()).sequence == recorded.sequence
