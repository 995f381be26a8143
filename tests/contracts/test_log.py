"""The append loop and the follower, on a real nats-server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from contracts.errors import Conflict, LogDamaged, LoratoryError
from contracts.events import DatasetCreated, DatasetRenamed, Stored
from contracts.wire.bus import Bus, connect
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from tests.conftest import NOW, BusOf, origin

BORN = [DatasetCreated(name="cats")]
RENAMED = [DatasetRenamed(name="dogs")]


@pytest.fixture
async def bus(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
def log(bus: Bus) -> EventLog:
    return EventLog(bus)


async def test_what_is_appended_is_loaded(log: EventLog) -> None:
    first = await log.append(draw_up("dataset", "ds_1", BORN, after=Head(), origin=origin()), Head())
    await log.append(draw_up("dataset", "ds_1", RENAMED, after=head_of(first), origin=origin()), head_of(first))
    history = await log.load("dataset", "ds_1")
    assert [fact for fact, _ in history.facts()] == [*BORN, *RENAMED]
    assert history.head.version == 2
    assert history.commits[1].commit.previous == head_of(history.commits[0]).digest


async def test_a_late_writer_is_refused(log: EventLog) -> None:
    await log.append(draw_up("dataset", "ds_1", BORN, after=Head(), origin=origin()), Head())
    with pytest.raises(Conflict):
        await log.append(draw_up("dataset", "ds_1", BORN, after=Head(), origin=origin()), Head())


async def test_the_same_commit_again_is_the_same_place(log: EventLog) -> None:
    commit = draw_up("dataset", "ds_1", BORN, after=Head(), origin=origin("c1"))
    first = await log.append(commit, Head())
    await log.append(draw_up("dataset", "ds_1", RENAMED, after=head_of(first), origin=origin()), head_of(first))
    assert (await log.append(commit, Head())).sequence == first.sequence


async def test_one_command_may_write_two_things(log: EventLog) -> None:
    both = [
        await log.append(draw_up("dataset", name, BORN, after=Head(), origin=origin("c1")), Head())
        for name in ("ds_1", "ds_2")
    ]
    assert both[0].sequence != both[1].sequence
    assert len((await log.load("dataset", "ds_2")).commits) == 1


async def test_a_commit_that_is_too_large_is_refused_before_it_is_sent(log: EventLog) -> None:
    huge = [DatasetCreated(name="cats", description="x" * 300_000)]
    with pytest.raises(LoratoryError, match="bytes is more than"):
        await log.append(draw_up("dataset", "ds_1", huge, after=Head(), origin=origin()), Head())
    assert not (await log.load("dataset", "ds_1")).commits


async def test_writers_that_race_lose_nothing_and_double_nothing(log: EventLog) -> None:
    async def write(name: str) -> None:
        for number in range(10):
            command = f"{name}-{number}"
            while True:
                head = (await log.load("dataset", "ds_1")).head
                commit = draw_up("dataset", "ds_1", [DatasetRenamed(name=command)], after=head, origin=origin(command))
                try:
                    await log.append(commit, head)
                    break
                except Conflict:
                    continue

    await asyncio.gather(*(write(name) for name in "abc"))
    names = [fact.name for fact, _ in (await log.load("dataset", "ds_1")).facts() if isinstance(fact, DatasetRenamed)]
    assert sorted(names) == sorted(f"{writer}-{number}" for writer in "abc" for number in range(10))


async def test_appends_survive_the_death_of_the_server(log: EventLog, server: EmbeddedServer) -> None:
    async def kill_twice() -> None:
        for _ in range(2):
            await asyncio.sleep(0.2)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.wait_died()
            await server.restart()

    async def write() -> int:
        head, count = Head(), 0
        while not killer.done() or count < 50:
            commit = draw_up("dataset", "ds_1", [DatasetRenamed(name=str(count))], after=head, origin=origin())
            head = head_of(await log.append(commit, head))
            count += 1
        return count

    killer = asyncio.create_task(kill_twice())
    written = await write()
    await killer
    assert (await log.load("dataset", "ds_1")).head.version == written


async def collect(batches: AsyncIterator[list[Stored]], until: int) -> list[Stored]:
    found: list[Stored] = []
    async for batch in batches:
        found += batch
        if found[-1].sequence >= until:
            break
    return found


async def fill(log: EventLog, thing: str, count: int) -> int:
    head = Head()
    for number in range(count):
        commit = draw_up("dataset", thing, [DatasetRenamed(name=str(number))], after=head, origin=origin())
        head = head_of(await log.append(commit, head))
    return head.sequence


async def test_a_follower_sees_everything_after_its_place_once(log: EventLog, bus: Bus) -> None:
    last = await fill(log, "ds_1", 30)
    found = await asyncio.wait_for(collect(Follower(bus, 5).batches(), last), 10)
    assert [stored.sequence for stored in found] == list(range(6, last + 1))


async def test_a_follower_that_saw_nothing_yet_goes_on_right_after_a_restart(
    log: EventLog, bus: Bus, server: EmbeddedServer
) -> None:
    last = await fill(log, "ds_1", 20)
    follower = asyncio.create_task(collect(Follower(bus, last).batches(), last + 3))
    await asyncio.sleep(0.3)
    await server.restart()
    await fill(log, "ds_2", 3)
    assert [stored.sequence for stored in await asyncio.wait_for(follower, 15)] == [last + 1, last + 2, last + 3]


async def test_a_follower_ahead_of_the_log_stops(bus: Bus) -> None:
    with pytest.raises(LogDamaged, match="ends at 1"):
        await asyncio.wait_for(collect(Follower(bus, 1000).batches(), 1001), 10)


async def test_migrating_again_changes_nothing(server: EmbeddedServer, log: EventLog) -> None:
    before = await log.end()
    admin = await connect(server.url, *server.credentials("admin"), "test")
    assert await migrate(admin, at=NOW + timedelta(days=1), lease=2) == before[0]
    assert await log.end() == before
    await admin.close()


async def test_a_deleted_log_is_not_a_fresh_one(server: EmbeddedServer, bus_of: BusOf, log: EventLog) -> None:
    known, _ = await log.end()
    admin = await bus_of("admin")
    await admin.jetstream().delete_stream("EVT")
    with pytest.raises(LogDamaged, match="gone"):
        await migrate(admin, at=NOW, lease=2, known_log=known)
