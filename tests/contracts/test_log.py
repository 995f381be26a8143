"""The append loop, the follower and the migrate step, on a real nats-server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from contracts import subjects
from contracts.errors import Conflict, LogDamaged, LoratoryError, SetupError
from contracts.events import DatasetCreated, DatasetRenamed, RecordedCommit
from contracts.wire.bus import Bus, connect
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog, StreamRevision, build_commit, revision_of
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import FORMAT, migrate, stream_configs
from tests.conftest import NOW, BusOf, command_metadata
from tests.contracts.test_events import GOLDEN

CREATED = [DatasetCreated(name="cats")]
RENAMED = [DatasetRenamed(name="dogs")]


@pytest.fixture
async def bus(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
def log(bus: Bus) -> EventLog:
    return EventLog(bus)


async def test_appended_commits_are_loaded(log: EventLog) -> None:
    first = await log.append(
        build_commit("dataset", "ds_1", CREATED, expected_revision=StreamRevision(), metadata=command_metadata()),
        StreamRevision(),
    )
    await log.append(
        build_commit("dataset", "ds_1", RENAMED, expected_revision=revision_of(first), metadata=command_metadata()),
        revision_of(first),
    )
    history = await log.load("dataset", "ds_1")
    assert [event for event, _ in history.events()] == [*CREATED, *RENAMED]
    assert history.revision.version == 2
    assert history.commits[1].commit.previous_hash == revision_of(history.commits[0]).digest


async def test_an_append_at_an_old_revision_is_a_conflict(log: EventLog) -> None:
    await log.append(
        build_commit("dataset", "ds_1", CREATED, expected_revision=StreamRevision(), metadata=command_metadata()),
        StreamRevision(),
    )
    with pytest.raises(Conflict):
        await log.append(
            build_commit("dataset", "ds_1", CREATED, expected_revision=StreamRevision(), metadata=command_metadata()),
            StreamRevision(),
        )


async def test_a_repeated_commit_returns_its_first_sequence(log: EventLog) -> None:
    commit = build_commit(
        "dataset", "ds_1", CREATED, expected_revision=StreamRevision(), metadata=command_metadata("c1")
    )
    first = await log.append(commit, StreamRevision())
    await log.append(
        build_commit("dataset", "ds_1", RENAMED, expected_revision=revision_of(first), metadata=command_metadata()),
        revision_of(first),
    )
    assert (await log.append(commit, StreamRevision())).sequence == first.sequence


async def test_one_command_may_append_to_two_aggregates(log: EventLog) -> None:
    recorded_commits = [
        await log.append(
            build_commit("dataset", name, CREATED, expected_revision=StreamRevision(), metadata=command_metadata("c1")),
            StreamRevision(),
        )
        for name in ("ds_1", "ds_2")
    ]
    assert recorded_commits[0].sequence != recorded_commits[1].sequence
    assert len((await log.load("dataset", "ds_2")).commits) == 1


async def test_a_commit_that_is_too_large_is_refused(log: EventLog) -> None:
    huge = [DatasetCreated(name="cats", description="x" * 300_000)]
    with pytest.raises(LoratoryError, match="bytes is more than"):
        await log.append(
            build_commit("dataset", "ds_1", huge, expected_revision=StreamRevision(), metadata=command_metadata()),
            StreamRevision(),
        )
    assert not (await log.load("dataset", "ds_1")).commits


async def test_concurrent_writers_neither_lose_nor_duplicate_commits(log: EventLog) -> None:
    async def write(name: str) -> None:
        for number in range(10):
            command = f"{name}-{number}"
            while True:
                revision = (await log.load("dataset", "ds_1")).revision
                commit = build_commit(
                    "dataset",
                    "ds_1",
                    [DatasetRenamed(name=command)],
                    expected_revision=revision,
                    metadata=command_metadata(command),
                )
                try:
                    await log.append(commit, revision)
                    break
                except Conflict:
                    continue

    await asyncio.gather(*(write(name) for name in "abc"))
    names = [
        event.name for event, _ in (await log.load("dataset", "ds_1")).events() if isinstance(event, DatasetRenamed)
    ]
    assert sorted(names) == sorted(f"{writer}-{number}" for writer in "abc" for number in range(10))


async def test_appends_survive_a_killed_server(log: EventLog, server: EmbeddedServer) -> None:
    async def kill_twice() -> None:
        for _ in range(2):
            await asyncio.sleep(0.2)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.wait_died()
            await server.restart()

    async def write() -> int:
        revision, count = StreamRevision(), 0
        while not killer.done() or count < 50:
            commit = build_commit(
                "dataset",
                "ds_1",
                [DatasetRenamed(name=str(count))],
                expected_revision=revision,
                metadata=command_metadata(),
            )
            revision = revision_of(await log.append(commit, revision))
            count += 1
        return count

    killer = asyncio.create_task(kill_twice())
    written = await write()
    await killer
    assert (await log.load("dataset", "ds_1")).revision.version == written


async def collect_until(batches: AsyncIterator[list[RecordedCommit]], last: int) -> list[RecordedCommit]:
    recorded_commits: list[RecordedCommit] = []
    async for batch in batches:
        recorded_commits += batch
        if recorded_commits[-1].sequence >= last:
            break
    return recorded_commits


async def append_renames(log: EventLog, aggregate_id: str, count: int) -> int:
    revision = StreamRevision()
    for number in range(count):
        commit = build_commit(
            "dataset",
            aggregate_id,
            [DatasetRenamed(name=str(number))],
            expected_revision=revision,
            metadata=command_metadata(),
        )
        revision = revision_of(await log.append(commit, revision))
    return revision.sequence


async def test_a_follower_yields_every_commit_after_its_sequence_once(log: EventLog, bus: Bus) -> None:
    last = await append_renames(log, "ds_1", 30)
    recorded_commits = await asyncio.wait_for(collect_until(Follower(bus, 5).batches(), last), 10)
    assert [recorded.sequence for recorded in recorded_commits] == list(range(6, last + 1))


async def test_a_follower_without_commits_yet_continues_correctly_after_a_restart(
    log: EventLog, bus: Bus, server: EmbeddedServer
) -> None:
    last = await append_renames(log, "ds_1", 20)
    follower = asyncio.create_task(collect_until(Follower(bus, last).batches(), last + 3))
    await asyncio.sleep(0.3)
    await server.restart()
    await append_renames(log, "ds_2", 3)
    assert [recorded.sequence for recorded in await asyncio.wait_for(follower, 15)] == [last + 1, last + 2, last + 3]


async def test_a_follower_ahead_of_the_log_is_an_error(bus: Bus) -> None:
    with pytest.raises(LogDamaged, match="ends at 1"):
        await asyncio.wait_for(collect_until(Follower(bus, 1000).batches(), 1001), 10)


async def test_migrate_is_idempotent(server: EmbeddedServer, log: EventLog) -> None:
    before = await log.end()
    admin = await connect(server.url, *server.credentials("admin"), "test")
    assert await migrate(admin, at=NOW + timedelta(days=1), lease=2) == before[0]
    assert await log.end() == before
    await admin.close()


FORMAT_1_LOG_ID = "01JD0000000000000000000000"
FORMAT_1_COMMIT = (GOLDEN / "format1.jsonl").read_bytes().strip()
"""The first commit of a log as format 1 wrote it: most members had other names."""


@pytest.mark.parametrize("known_log", [None, FORMAT_1_LOG_ID], ids=["without an archive", "with an archive"])
async def test_migrate_refuses_a_log_in_an_older_format(server: EmbeddedServer, known_log: str | None) -> None:
    admin = await connect(server.url, *server.credentials("admin"), "test")
    js = admin.jetstream()
    config = next(config for config in stream_configs() if config.name == subjects.EVENTS)
    await js.add_stream(replace(config, metadata={"log_id": FORMAT_1_LOG_ID}))
    await js.publish(subjects.aggregate("log", FORMAT_1_LOG_ID), FORMAT_1_COMMIT)
    with pytest.raises(SetupError) as refused:
        await migrate(admin, at=NOW, lease=2, known_log=known_log)
    assert str(refused.value) == (
        f"this data folder has format 1, and this version of Loratory reads format {FORMAT} only; "
        "start with a new data folder"
    )
    assert await EventLog(admin).end() == (FORMAT_1_LOG_ID, 1)
    await admin.close()


async def test_a_deleted_log_is_not_created_again(server: EmbeddedServer, bus_of: BusOf, log: EventLog) -> None:
    log_id, _ = await log.end()
    admin = await bus_of("admin")
    await admin.jetstream().delete_stream("EVT")
    with pytest.raises(LogDamaged, match="gone"):
        await migrate(admin, at=NOW, lease=2, known_log=log_id)
