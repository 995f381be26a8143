"""Schema numbers: files of every older version are brought to today's number, files of a newer one are refused."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from catalog.archive.archive import Archive
from catalog.archive.rows import ARCHIVE_SCHEMA
from catalog.keys import KEYS_SCHEMA, Keys
from catalog.migrations import Schema
from contracts.errors import SetupError
from contracts.ids import ImageId
from contracts.wire.server.embedded import EmbeddedServer
from tests.conftest import BusOf
from tests.limits import WAIT

GOLDEN = Path(__file__).parents[1] / "golden"
"""One file of each older schema number, written by the version that had it: `keys-0.db` and so on."""
ONE = ("CREATE TABLE one (a)", "INSERT INTO one VALUES (1)")
TWO = ("ALTER TABLE one ADD COLUMN b DEFAULT 2",)
BAD = ("INSERT INTO one VALUES (3)", "no SQL")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "some.db", isolation_level=None)) as connection:
        yield connection


def number_of(file: Path | sqlite3.Connection) -> int:
    if isinstance(file, Path):
        with closing(sqlite3.connect(file)) as connection:
            return number_of(connection)
    return int(file.execute("PRAGMA user_version").fetchone()[0])


def write_number(file: Path, number: int) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")


# --- the mechanism


def test_steps_are_executed_once_in_order_from_any_number(connection: sqlite3.Connection) -> None:
    Schema("some.db", (ONE,)).migrate(connection)
    assert number_of(connection) == 1
    for _ in range(2):
        Schema("some.db", (ONE, TWO)).migrate(connection)
        assert number_of(connection) == 2
        assert connection.execute("SELECT * FROM one").fetchall() == [(1, 2)]


def test_a_step_that_fails_changes_nothing_and_those_before_it_stay(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError):
        Schema("some.db", (ONE, BAD)).migrate(connection)
    assert (number_of(connection), connection.execute("SELECT a FROM one").fetchall()) == (1, [(1,)])
    Schema("some.db", (ONE, TWO)).migrate(connection)
    assert number_of(connection) == 2


def test_a_step_that_another_process_has_just_executed_is_skipped(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    schema = Schema("some.db", (ONE, TWO))

    class Overtaken(sqlite3.Connection):
        """Before its first transaction, another process migrates the file."""

        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE" and number_of(connection) == 0:
                schema.migrate(connection)
            return super().execute(sql, parameters)

    with closing(sqlite3.connect(tmp_path / "some.db", isolation_level=None, factory=Overtaken)) as overtaken:
        schema.migrate(overtaken)
    assert connection.execute("SELECT * FROM one").fetchall() == [(1, 2)]


# --- the files


@pytest.mark.parametrize("schema", [KEYS_SCHEMA, ARCHIVE_SCHEMA], ids=lambda schema: schema.file)
def test_each_older_number_has_a_file_of_its_time(schema: Schema) -> None:
    name = Path(schema.file).stem
    assert [number_of(GOLDEN / f"{name}-{number}.db") for number in range(len(schema.steps))] == [
        *range(len(schema.steps))
    ]
    assert not (GOLDEN / f"{name}-{len(schema.steps)}.db").exists()


@pytest.mark.parametrize("number", range(len(KEYS_SCHEMA.steps)))
async def test_keys_of_an_older_version_are_kept(tmp_path: Path, number: int) -> None:
    file = Path(shutil.copy(GOLDEN / f"keys-{number}.db", tmp_path / "keys.db"))
    one, erased, three = (ImageId(f"img_{one}") for one in (1, 2, 3))
    expected = {
        one: "483004a05933285c5bd081b12ba432b938d64f62018188316a7d1c2c4e63f9c8",
        three: "22295fc635655a78f7068175c5f960a19fb30f4b724d4b37c369cdd7359eed9b",
    }

    keys = await Keys.open(file)
    found = {image: key.hex() for image, key in (await keys.create_keys([one, erased, three])).items()}
    backups = [(str(backup.path), backup.at.isoformat()) for backup in await keys.backups()]
    public_key = (await keys.public_key()).hex()
    erased_images = await keys.erased_images("", 10)
    await keys.close()

    assert found == expected
    assert erased_images == [erased]
    assert backups == [("/mnt/disk/loratory", "2026-11-21T12:00:00+00:00")]
    assert public_key == "da0d38de1e420cb74da4471737c3f953a4c0e8d7e5e856ec5d978752765ecd4c"
    assert number_of(file) == len(KEYS_SCHEMA.steps)


@pytest.mark.parametrize("number", range(ARCHIVE_SCHEMA.oldest))
def test_an_archive_from_before_signatures_is_refused_and_unchanged(tmp_path: Path, number: int) -> None:
    file = Path(shutil.copy(GOLDEN / f"archive-{number}.db", tmp_path / "archive.db"))
    before = file.read_bytes()
    with pytest.raises(SetupError, match=r"^archive\.db was written by an older version of Loratory, in a format that"):
        Archive(tmp_path)
    assert file.read_bytes() == before


async def test_new_files_have_the_newest_number(tmp_path: Path) -> None:
    archive, keys = Archive(tmp_path), await Keys.open(tmp_path / "keys.db")
    await archive.close()
    await keys.close()
    assert number_of(tmp_path / "archive.db") == len(ARCHIVE_SCHEMA.steps)
    assert number_of(tmp_path / "keys.db") == len(KEYS_SCHEMA.steps)


async def test_files_of_a_newer_version_are_refused_and_unchanged(tmp_path: Path) -> None:
    for name in ("keys", "archive"):
        file = Path(shutil.copy(GOLDEN / f"{name}-0.db", tmp_path / f"{name}.db"))
        write_number(file, 99)
        before = file.read_bytes()
        sentence = rf"^{name}\.db was written by a newer version of Loratory \(schema 99; this one knows \d+\); upgrade"
        with pytest.raises(SetupError, match=sentence):
            await Keys.open(file) if name == "keys" else Archive(tmp_path)
        assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keys", "archive"])
async def test_the_catalog_does_not_start_with_files_of_a_newer_version(
    bus_of: BusOf, server_in_use: EmbeddedServer, tmp_path: Path, name: str
) -> None:
    write_number(Path(shutil.copy(GOLDEN / f"{name}-0.db", tmp_path / f"{name}.db")), 99)
    _, key = server_in_use.credentials("catalog")
    settings = {"NATS_URL": server_in_use.url, "NATS_NKEY_FILE": key.path}
    folders = {"CATALOG": tmp_path, "STAGING": tmp_path / "staging", "BLOBS": tmp_path / "blobs"}
    environment = {f"LORATORY_{key}": str(value) for key, value in {**settings, **folders}.items()}

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "catalog"),
        env=os.environ | environment | {"LORATORY_HEALTH_FILE": str(tmp_path / "health.json")},
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WAIT):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    last_line = errors.decode().strip().rpartition("\n")[2]
    assert last_line.startswith(f"{name}.db was written by a newer version of Loratory (schema 99; this one knows ")
    assert process.returncode == 2
