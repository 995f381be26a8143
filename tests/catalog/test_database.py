"""A database file on a full disk, one that cannot be opened, and its snapshots."""

import asyncio
import errno
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from catalog.database import Connection, Database, create_tables, is_corrupt, open_reader, open_writer, peek
from contracts.errors import SetupError, Unavailable

TABLE = "CREATE TABLE IF NOT EXISTS lot (body BLOB)"


def fill(connection: Connection) -> None:
    connection.execute("PRAGMA max_page_count = 8")
    connection.execute("INSERT INTO lot VALUES (zeroblob(100000))")


def grow(connection: Connection) -> None:
    connection.execute("PRAGMA max_page_count = 10000")
    connection.execute("INSERT INTO lot VALUES (zeroblob(100000))")


def count(connection: Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM lot").fetchone()[0])


async def test_a_full_disk_is_reported_as_such_and_later_writes_succeed(tmp_path: Path) -> None:
    file = tmp_path / "some.db"
    database = Database(file, open_writer(file, partial(create_tables, TABLE)))
    with pytest.raises(OSError, match=r"there is no room for some\.db") as full:
        await database.write(fill)
    assert full.value.errno == errno.ENOSPC
    assert await database.read(count) == 0
    await database.write(grow)
    assert await database.read(count) == 1
    await database.close()


def fill_at_once(connection: Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS lot (body BLOB)")
    fill(connection)


def test_a_disk_that_is_full_while_a_file_is_opened_says_nothing_about_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"there is no room for some\.db") as full:
        open_writer(tmp_path / "some.db", fill_at_once)
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=r"there is no room for some\.db"):
        peek(tmp_path / "some.db", fill)


def test_a_file_that_cannot_be_opened_now_may_be_intact_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"some\.db cannot be opened now: unable to open database file"):
        open_reader(tmp_path / "missing" / "some.db")
    (tmp_path / "damaged.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(SetupError, match=r"damaged\.db cannot be opened: file is not a database"):
        open_reader(tmp_path / "damaged.db")
    assert peek(tmp_path / "damaged.db", count) is None


async def test_a_snapshot_does_not_change_and_the_wal_is_emptied_after_its_end(tmp_path: Path) -> None:
    file = tmp_path / "some.db"
    async with Database(file, open_writer(file, partial(create_tables, TABLE))) as database:
        await database.write(grow)
        async with database.snapshot() as snapshot:
            assert await snapshot.read(count) == 1
            await database.write(grow)
            assert (await snapshot.read(count), await database.read(count)) == (1, 2)
            emptied = asyncio.create_task(database.truncate_wal())
            await database.write(grow)  # the writer does not wait for the snapshot
            later = asyncio.create_task(_count_in_snapshot(database))
            await asyncio.sleep(0)
            assert not emptied.done()
        await emptied
        assert file.with_name("some.db-wal").stat().st_size == 0
        assert await later == 3


async def _count_in_snapshot(database: Database) -> int:
    async with database.snapshot() as snapshot:
        return await snapshot.read(count)


def test_text_that_is_not_utf8_is_damage_and_a_closed_connection_is_not() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.OperationalError) as garbled:
        connection.execute("SELECT CAST(x'ff00' AS TEXT)").fetchone()
    with pytest.raises(sqlite3.ProgrammingError) as closed:
        connection.execute("SELECT 1")
    assert (is_corrupt(garbled.value), is_corrupt(closed.value)) == (True, False)
