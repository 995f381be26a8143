"""The store: batches whole or not at all, snapshots, and a file that can always be made anew."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import views
from catalog.database import Connection
from catalog.store import Store, checkpoint
from catalog.views import datasets
from contracts.errors import Behind, LogDamaged
from contracts.events import FACTS_OF
from contracts.wire.log import Head
from tests.catalog.histories import LOG_ID, Scribe, everything

HISTORY = everything().commits


def dump(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    tables = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table: sorted((tuple(row) for row in connection.execute(f"SELECT * FROM {table}")), key=repr)  # noqa: S608 - its own
        for table in sorted(tables)
    }


async def rows_of(store: Store) -> dict[str, list[tuple[object, ...]]]:
    return await store.read(dump)


Open = Callable[..., Store]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    stores: list[Store] = []

    def open_store(name: str = "read.db", log_id: str = LOG_ID) -> Store:
        stores.append(Store(tmp_path / name, log_id, views))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()


async def test_every_table_has_rows_after_a_history_of_every_fact(opened: Open) -> None:
    store = opened()

    assert await store.apply(HISTORY) == len(HISTORY)

    assert [table for table, rows in (await rows_of(store)).items() if not rows] == []


async def test_a_history_holds_every_fact_there_is() -> None:
    told = {type(fact) for stored in HISTORY for fact in stored.commit.facts}

    assert {fact for family in FACTS_OF.values() for fact in get_args(family) or (family,)} == told


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(HISTORY)), max_size=6), repeats=st.booleans())
async def test_any_split_into_batches_makes_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], repeats: bool
) -> None:
    folder = tmp_path_factory.mktemp("split")
    whole, split = Store(folder / "whole.db", LOG_ID, views), Store(folder / "split.db", LOG_ID, views)
    await whole.apply(HISTORY)

    edges = [0, *sorted(cuts), len(HISTORY)]
    for start, end in itertools.pairwise(edges):
        await split.apply(HISTORY[0 if repeats else start : end])

    assert await rows_of(split) == await rows_of(whole)
    await whole.close()
    await split.close()


async def test_applying_twice_changes_nothing(opened: Open) -> None:
    store = opened()
    await store.apply(HISTORY)
    before = await rows_of(store)

    await store.apply(HISTORY)
    await store.apply(HISTORY[5:9])

    assert await rows_of(store) == before


async def test_a_missing_commit_stops_the_store_and_changes_nothing(opened: Open) -> None:
    store = opened()
    await store.apply(HISTORY[:3])

    with pytest.raises(LogDamaged) as caught:
        await store.apply([HISTORY[3], HISTORY[5]])

    assert caught.value.facts == {"first_bad": 5}
    assert store.applied == (await store.read(checkpoint)).sequence == 3


async def test_a_store_opened_again_goes_on_where_it_stopped(opened: Open) -> None:
    first = opened()
    await first.apply(HISTORY[:10])
    await first.close()

    assert opened().applied == 10


async def test_a_file_of_another_log_or_schema_is_made_anew(opened: Open, tmp_path: Path) -> None:
    first = opened()
    await first.apply(HISTORY[:10])
    await first.close()
    assert opened(log_id="01JOTHER").applied == 0

    again = opened("schema.db")
    await again.apply(HISTORY[:10])
    await again.close()
    with sqlite3.connect(tmp_path / "schema.db") as connection:
        connection.execute("UPDATE checkpoint SET schema = schema - 1")
    connection.close()

    assert opened("schema.db").applied == 0


async def test_a_file_that_is_no_database_is_made_anew(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "read.db").write_bytes(b"no database at all" * 1000)
    (tmp_path / "read.db-wal").write_bytes(b"nor is this")

    assert await opened().apply(HISTORY) == len(HISTORY)


async def test_rows_and_sequence_of_one_reading_agree(opened: Open) -> None:
    store = opened()
    scribe = Scribe()
    scribe.dataset()

    def look(connection: Connection) -> tuple[int, int]:
        at = checkpoint(connection).sequence
        for _ in range(50):  # long enough for the writer to pass by
            row = datasets.find(connection, "ds_cats")
        return at, row.next_ordinal if row else -1

    async def write() -> None:
        await store.apply(scribe.commits)
        for ordinal in range(60):
            await store.apply([scribe.image(ordinal)])

    writing = asyncio.create_task(write())
    seen = [await store.read(look) for _ in range(40)]
    await writing

    assert all(ordinals == max(at - 2, 0) for at, ordinals in seen if at >= 2)


async def test_waiting_for_a_sequence_ends_when_it_is_there_and_not_before(opened: Open) -> None:
    store = opened()
    waiting = asyncio.create_task(store.wait_for(3))
    await store.apply(HISTORY[:2])
    await asyncio.sleep(0)
    assert not waiting.done()

    await store.apply(HISTORY[2:3])
    await waiting

    with pytest.raises(Behind):
        await store.wait_for(4, timeout=0.01)


async def test_readers_cannot_write(opened: Open) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await opened().read(lambda connection: connection.execute("DELETE FROM dataset"))


async def test_the_head_of_a_data_set_is_what_the_log_says(opened: Open) -> None:
    store, scribe = opened(), everything()
    await store.apply(scribe.commits)

    row = await store.read(lambda connection: datasets.find(connection, "cats!"))

    assert row is not None
    assert row.head == scribe.heads["dataset", "ds_cats"]
    assert row.head != Head()
