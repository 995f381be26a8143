"""Appends while the server is killed, the follower and the migrate step, on a real nats-server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from contracts import subjects
from contracts.errors import LogDamaged, SetupError
from contracts.log_message import LogMessage
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower, FollowPolicy
from contracts.wire.log.migration import FORMAT, migrate
from contracts.wire.log.streams import CONSUMERS, stream_configs
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from tests.conftest import NOW, BusOf
from tests.contracts.builders import DatasetWriter
from tests.contracts.test_events import GOLDEN
from tests.damage import damage_file
from tests.limits import WAIT


@pytest.fixture
async def bus(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
def log(bus: Bus) -> EventLog:
    return EventLog(bus)


@pytest.mark.slow
async def test_appends_survive_a_killed_server(log: EventLog, server: EmbeddedServer) -> None:
    async def kill_twice() -> None:
        for _ in range(2):
            await asyncio.sleep(0.2)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.wait_died()
            await server.restart()

    async def write() -> int:
        writer, count = DatasetWriter(log), 0
        while not killer.done() or count < 50:
            await writer.rename(str(count))
            count += 1
        return count

    killer = asyncio.create_task(kill_twice())
    written = await write()
    await killer
    assert (await log.load("dataset", "ds_1")).revision.version == written


async def collect_until(batches: AsyncIterator[list[LogMessage]], last: int) -> list[LogMessage]:
    recorded_commits: list[LogMessage] = []
    async for batch in batches:
        recorded_commits += batch
        if recorded_commits[-1].sequence >= last:
            break
    return recorded_commits


async def test_a_follower_yields_every_commit_after_its_sequence_once(log: EventLog, bus: Bus) -> None:
    last = await DatasetWriter(log).rename(*map(str, range(30)))
    recorded_commits = await asyncio.wait_for(collect_until(Follower(bus, 5).batches(), last), WAIT)
    assert [recorded.sequence for recorded in recorded_commits] == list(range(6, last + 1))


async def test_a_follower_without_commits_yet_continues_correctly_after_a_restart(
    log: EventLog, bus: Bus, server: EmbeddedServer
) -> None:
    last = await DatasetWriter(log).rename(*map(str, range(20)))
    follower = asyncio.create_task(
        collect_until(Follower(bus, last, policy=FollowPolicy(poll=0.2)).batches(), last + 3)
    )
    await asyncio.sleep(0.3)
    await server.restart()
    await DatasetWriter(log, "ds_2").rename("one", "two", "three")
    assert [recorded.sequence for recorded in await asyncio.wait_for(follower, WAIT)] == [last + 1, last + 2, last + 3]


async def test_a_follower_ahead_of_the_log_is_an_error(bus: Bus) -> None:
    with pytest.raises(LogDamaged, match="ends at 1"):
        await asyncio.wait_for(collect_until(Follower(bus, 1000).batches(), 1001), WAIT)


async def test_migrate_is_idempotent(server: EmbeddedServer, log: EventLog) -> None:
    before = await log.end()
    admin = await connect(server.url, *server.credentials("admin"), "test")
    assert await migrate(admin, at=NOW + timedelta(days=1), lease=2) == before[0]
    assert await log.end() == before
    await admin.close()


FORMAT_1_LOG_ID = "01JD0000000000000000000000"
FORMAT_1_COMMIT = (GOLDEN / "format1.jsonl").read_bytes().strip()
"""The first commit of a log as format 1 wrote it: most members had other names."""


async def write_format_1(js: JetStreamContext) -> None:
    """A log with that commit."""
    config = next(config for config in stream_configs() if config.name == subjects.EVENTS)
    await js.add_stream(replace(config, metadata={"log_id": FORMAT_1_LOG_ID}))
    await js.publish(subjects.aggregate("log", FORMAT_1_LOG_ID), FORMAT_1_COMMIT)


@pytest.mark.parametrize("known_log", [None, FORMAT_1_LOG_ID], ids=["without an archive", "with an archive"])
async def test_migrate_refuses_a_log_in_an_older_format(server: EmbeddedServer, known_log: str | None) -> None:
    admin = await connect(server.url, *server.credentials("admin"), "test")
    await write_format_1(admin.jetstream())
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


@pytest.mark.parametrize("how", ["middle", "end"])
async def test_a_queue_with_damaged_consumers_is_made_again(
    server: EmbeddedServer, bus_of: BusOf, bus: Bus, how: str
) -> None:
    """A byte changed: the server starts, and refuses to serve the stream. A file cut: it refuses the consumer."""
    await bus.close()
    await server.stop()
    files = [file for file in (server.stream_folder(subjects.QUEUE) / "obs").rglob("*") if file.is_file()]
    assert len(files) >= 2 * len(CONSUMERS)
    for file in files:
        damage_file(file, how, file)
    await server.start()
    admin = await bus_of("admin")

    await migrate(admin, at=NOW, lease=2)

    state = (await admin.jetstream().stream_info(subjects.QUEUE)).state
    assert state.consumer_count == len(CONSUMERS)


@pytest.mark.slow
async def test_a_server_that_needs_seconds_for_an_answer_is_migrated(bus_of: BusOf, server: EmbeddedServer) -> None:
    """As when its disk is busy because everything starts at once."""
    admin = await bus_of("admin")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    migrating = asyncio.create_task(migrate(admin, at=NOW, lease=10))
    await asyncio.sleep(7)
    assert not migrating.done()
    os.kill(server.pid, signal.SIGCONT)
    assert await migrating == await migrate(admin, at=NOW, lease=10)
