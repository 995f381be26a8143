"""The store: atomic batches, snapshots, and a file that can always be rebuilt."""

import asyncio
import itertools
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import store as store_module
from catalog import views
from catalog.database import Connection
from catalog.store import Store, checkpoint
from catalog.views import datasets
from catalog.wal import in_memory
from contracts.aggregates import REGISTRY
from contracts.commits import ForeignMessage, StreamRevision
from contracts.errors import Behind, LogDamaged, Unavailable
from contracts.events.datasets import ImagesReviewed
from contracts.ids import Digest
from tests.catalog.log_builder import LOG_ID, LogBuilder, bitmap, full_history
from tests.damage import damage_file, invert
from tests.limits import WAIT, examples

HISTORY = full_history().commits


def dump(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    tables = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table: sorted((tuple(row) for row in connection.execute(f"SELECT * FROM {table}")), key=repr)  # noqa: S608 - its own
        for table in sorted(tables)
    }


async def all_rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    return await store.read(dump)


OpenStore = Callable[..., Store]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    stores: list[Store] = []

    def open_one(name: str = "read.db", log_id: str = LOG_ID) -> Store:
        stores.append(Store(tmp_path / name, log_id, views))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


async def test_every_table_has_rows_after_a_log_with_every_event_type(open_store: OpenStore) -> None:
    store, builder = open_store(), full_history()
    large = msgspec.structs.replace(bitmap(0, 1), blob=Digest("00ff"))  # as the catalog reads a set that lies in a blob
    builder.append("dataset", "ds_cats", ImagesReviewed(images=large))
    foreign = ForeignMessage(
        sequence=len(builder.commits) + 1,
        recorded_at=HISTORY[-1].recorded_at,
        subject="evt.dataset.ds_1",
        body=b"{}",
        signature="",
        reason="it is not signed",
    )
    assert await store.apply([*builder.commits, foreign]) == len(HISTORY) + 2

    assert [table for table, rows in (await all_rows(store)).items() if not rows] == ["pending"]


async def test_the_full_history_has_every_event_type() -> None:
    types = {type(event) for recorded in HISTORY for event in recorded.commit.events}

    assert {event for kind in REGISTRY.kinds for event in kind.event_types} == types


@pytest.mark.slow
@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(HISTORY)), max_size=6), repeats=st.booleans())
async def test_any_split_into_batches_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], repeats: bool
) -> None:
    folder = tmp_path_factory.mktemp("split")
    whole, split = Store(folder / "whole.db", LOG_ID, views), Store(folder / "split.db", LOG_ID, views)
    await whole.apply(HISTORY)

    edges = [0, *sorted(cuts), len(HISTORY)]
    for start, end in itertools.pairwise(edges):
        await split.apply(HISTORY[0 if repeats else start : end])

    assert await all_rows(split) == await all_rows(whole)
    await whole.close()
    await split.close()


async def test_applying_a_commit_twice_changes_nothing(open_store: OpenStore) -> None:
    store = open_store()
    await store.apply(HISTORY)
    before = await all_rows(store)

    await store.apply(HISTORY)
    await store.apply(HISTORY[5:9])

    assert await all_rows(store) == before


async def test_a_missing_commit_is_an_error_and_changes_nothing(open_store: OpenStore) -> None:
    store = open_store()
    await store.apply(HISTORY[:3])

    with pytest.raises(LogDamaged) as caught:
        await store.apply([HISTORY[3], HISTORY[5]])

    assert caught.value.extra == {"first_bad": 5}
    assert store.applied == (await store.read(checkpoint)).sequence == 3


async def test_a_reopened_store_resumes_where_it_stopped(open_store: OpenStore) -> None:
    first = open_store()
    await first.apply(HISTORY[:10])
    await first.close()

    assert open_store().applied == 10


async def test_a_file_of_another_log_or_schema_is_replaced(open_store: OpenStore, tmp_path: Path) -> None:
    first = open_store()
    await first.apply(HISTORY[:10])
    await first.close()
    assert open_store(log_id="01JOTHER").applied == 0

    again = open_store("schema.db")
    await again.apply(HISTORY[:10])
    await again.close()
    with sqlite3.connect(tmp_path / "schema.db") as connection:
        connection.execute("UPDATE checkpoint SET schema = schema - 1")
    connection.close()

    assert open_store("schema.db").applied == 0


async def test_a_file_that_is_not_a_database_is_replaced(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "read.db").write_bytes(b"no database at all" * 1000)
    (tmp_path / "read.db-wal").write_bytes(b"nor is this")

    assert await open_store().apply(HISTORY) == len(HISTORY)


async def test_rows_and_checkpoint_of_one_snapshot_agree(open_store: OpenStore) -> None:
    store = open_store()
    builder = LogBuilder()
    builder.create_dataset()

    def read(connection: Connection) -> tuple[int, int]:
        at = checkpoint(connection).sequence
        for _ in range(50):  # long enough for the writer to commit meanwhile
            row = datasets.find(connection, "ds_cats")
        return at, row.next_ordinal if row else -1

    async def write() -> None:
        await store.apply(builder.commits)
        for ordinal in range(60):
            await store.apply([builder.add_image(ordinal)])

    writing = asyncio.create_task(write())
    snapshots = [await store.read(read) for _ in range(40)]
    await writing

    assert all(ordinals == max(at - 2, 0) for at, ordinals in snapshots if at >= 2)


async def test_wait_for_returns_once_the_sequence_is_applied_and_not_before(open_store: OpenStore) -> None:
    store = open_store()
    waiting = asyncio.create_task(store.wait_for(3))
    await store.apply(HISTORY[:2])
    await asyncio.sleep(0)
    assert not waiting.done()

    await store.apply(HISTORY[2:3])
    await waiting

    with pytest.raises(Behind):
        await store.wait_for(4, timeout=0.01)


async def test_readers_cannot_write(open_store: OpenStore) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await open_store().read(lambda connection: connection.execute("DELETE FROM dataset"))


async def test_the_revision_of_a_data_set_is_that_of_the_log(open_store: OpenStore) -> None:
    store, builder = open_store(), full_history()
    await store.apply(builder.commits)

    row = await store.read(lambda connection: datasets.find(connection, "cats!"))

    assert row is not None
    assert row.revision == builder.revisions["dataset", "ds_cats"]
    assert row.revision != StreamRevision()


async def test_a_file_that_turns_out_to_be_damaged_is_deleted_at_the_end_and_rebuilt(tmp_path: Path) -> None:
    file = tmp_path / "read.db"
    store = Store(file, LOG_ID, views)
    await store.apply(HISTORY)
    await store.truncate_wal()
    invert(file, start=0.05, end=1.0)
    failing = asyncio.create_task(store.fail_when_damaged())

    with pytest.raises(Unavailable, match="the read model is damaged and will be rebuilt"):
        await store.read(dump)
    with pytest.raises(Unavailable, match="it is rebuilt at the next start"):
        await failing
    await store.close()
    assert not file.exists()


async def test_a_large_file_is_checked_for_damage_when_it_serves(tmp_path: Path) -> None:
    file = tmp_path / "read.db"
    async with Store(file, LOG_ID, views) as store:
        await store.apply(HISTORY)
    invert(file, start=0.8, end=0.9)

    unchecked = Store(file, LOG_ID, views, checked_at_start=0)
    assert unchecked.applied == HISTORY[-1].sequence
    with pytest.raises(Unavailable, match="the read model is damaged and will be rebuilt"):
        await unchecked.fail_when_damaged()
    await unchecked.close()
    assert not file.exists()


async def test_a_large_wal_is_written_back_beside_transactions_and_then_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WAL_BYTES", 1)
    file = tmp_path / "read.db"
    async with Store(file, LOG_ID, views) as store:
        await store.apply(HISTORY)
        async with asyncio.timeout(WAIT):
            while not is_written_back(file, HISTORY[-1].sequence):  # noqa: ASYNC110 - in a thread of its own
                await asyncio.sleep(0.01)
        # The file shows all a moment before the WAL says that it does; a transaction in between adds to the WAL.
        async with asyncio.timeout(WAIT):
            while times_begun(file) == 0:
                await store.write(lambda connection: connection.execute("UPDATE checkpoint SET id = id"))


def times_begun(file: Path) -> int:
    """Of its WAL (https://www.sqlite.org/fileformat.html#walformat: the checkpoint sequence number)."""
    header = file.with_name(f"{file.name}-wal").read_bytes()[:16]
    return int.from_bytes(header[12:], "big")


async def test_another_process_that_opens_and_closes_the_file_does_not_remove_its_wal(tmp_path: Path) -> None:
    """As a catalog that was replaced does. Closing the last connection removes it; locks say that there are others."""
    file = tmp_path / "read.db"
    read = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM checkpoint').fetchall()"
    async with Store(file, LOG_ID, views) as store:
        await store.apply(HISTORY[:-1])
        wal = file.with_name("read.db-wal").stat().st_ino
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", read, file)
        assert await process.wait() == 0
        assert file.with_name("read.db-wal").stat().st_ino == wal
        await store.apply(HISTORY[-1:])


def is_written_back(file: Path, sequence: int) -> bool:
    """Whether the file shows the commits up to a sequence without its WAL."""
    with closing(in_memory(file.read_bytes())) as connection:
        try:
            return checkpoint(connection).sequence == sequence
        except sqlite3.DatabaseError:  # pages are being written
            return False


@pytest.mark.parametrize("how", ["middle", "end", "emptied"])
async def test_a_damaged_file_is_rebuilt_at_the_start(tmp_path: Path, how: str) -> None:
    file = tmp_path / "read.db"
    store = Store(file, LOG_ID, views)
    await store.apply(HISTORY)
    await store.close()
    damage_file(file, how, file)

    rebuilt = Store(file, LOG_ID, views)
    assert rebuilt.applied == 0
    await rebuilt.apply(HISTORY)
    await rebuilt.close()
