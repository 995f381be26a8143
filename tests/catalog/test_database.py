"""A database file on a full disk."""

import errno
from functools import partial
from pathlib import Path

import pytest

from catalog.database import Connection, Database, create_tables, open_writer

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
