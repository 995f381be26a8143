"""The projection: facts appended anywhere become rows and news, and go on where they stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from catalog import views
from catalog.archive import Archive
from catalog.projection import catch_up, project
from catalog.store import Store
from catalog.views import datasets
from contracts import events as e
from contracts.errors import LogDamaged
from contracts.telemetry import Applied
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, Head, draw_up
from tests.catalog.histories import LOG_ID, everything
from tests.catalog.test_store import rows_of
from tests.conftest import BusOf, origin
from tests.limits import WAIT


class Reading:
    """A judged archive, a store, and the news heard."""

    def __init__(self, folder: Path, archive: Archive, log_id: str) -> None:
        self.archive = archive
        self.store = Store(folder / "read.db", log_id, views)
        self.news: asyncio.Queue[Applied] = asyncio.Queue()

    async def hear(self, news: Applied) -> None:
        await self.news.put(news)


@asynccontextmanager
async def projecting(bus: Bus, folder: Path) -> AsyncIterator[Reading]:
    archive = Archive(folder)
    reading = Reading(folder, archive, await archive.judge(EventLog(bus)))
    task = asyncio.create_task(project(bus, reading.store, archive, reading.hear))
    try:
        yield reading
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await reading.store.close()
        await archive.close()


async def created(bus: Bus, name: str) -> e.Stored:
    commit = draw_up("dataset", f"ds_{name}", [e.DatasetCreated(name=name)], after=Head(), origin=origin())
    return await EventLog(bus).append(commit, Head())


async def test_a_fact_becomes_a_row_an_archived_commit_and_news(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    async with projecting(bus, tmp_path) as reading:
        stored = await created(bus, "cats")
        await reading.store.wait_for(stored.sequence)

        row = await reading.store.read(lambda connection: datasets.find(connection, "cats"))
        assert row is not None
        assert row.head.sequence == stored.sequence
        assert [one.body for one in await reading.archive.commits(stored.sequence - 1, 10)] == [stored.body]
        async with asyncio.timeout(WAIT):
            while (news := await reading.news.get()).sequence < stored.sequence:
                pass
        assert news == Applied(log_id=reading.archive.log_id, sequence=stored.sequence, verified=True)


async def test_it_goes_on_where_it_stopped_and_forgets_nothing(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    async with projecting(bus, tmp_path) as reading:
        await reading.store.wait_for((await created(bus, "cats")).sequence, timeout=WAIT)
    last = await created(bus, "dogs")

    async with projecting(bus, tmp_path) as reading:
        await reading.store.wait_for(last.sequence, timeout=WAIT)
        found = await reading.store.read(lambda connection: datasets.page(connection, 0, 10))

    assert [row.name for row in found] == ["cats", "dogs"]


async def test_a_deleted_read_model_comes_back_identical_from_the_archive(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await archive.append(everything().commits)
    first, second = Store(tmp_path / "read.db", LOG_ID, views), Store(tmp_path / "again.db", LOG_ID, views)

    await catch_up(first, archive)
    await catch_up(second, archive)

    assert first.applied == archive.tail.sequence
    assert await rows_of(second) == await rows_of(first)
    for one in (first, second, archive):
        await one.close()


async def test_a_read_model_of_another_past_is_thrown_away(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await archive.append(everything().commits)
    store, other = Store(tmp_path / "read.db", LOG_ID, views), everything()
    other.commits.pop()
    other.dataset("ds_never", "never happened")
    await store.apply(other.commits)

    await catch_up(store, archive)

    assert store.applied == archive.tail.sequence
    assert await store.read(lambda connection: datasets.find(connection, "ds_never")) is None
    await store.close()
    await archive.close()


async def test_a_fact_nobody_understands_stops_it(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    archive = Archive(tmp_path)
    store = Store(tmp_path / "read.db", await archive.judge(EventLog(bus)), views)
    commit = draw_up("dataset", "ds_1", [e.DatasetCreated(name="cats")], after=Head(), origin=origin())
    body = msgspec.json.encode(commit).replace(b"dataset.created", b"dataset.dreamt")
    await bus.jetstream().publish("evt.dataset.ds_1", body)

    async def nobody(_: Applied) -> None:
        return

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(WAIT):
            await project(bus, store, archive, nobody)

    assert caught.group_contains(LogDamaged, match="commit 2 cannot be read")
    await store.close()
    await archive.close()
