"""Keys: created once, kept in their own file, readable only by its owner."""

import asyncio
import errno
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.database import open_reader
from catalog.keys import Keys, open_if_present
from contracts.errors import SetupError, Unavailable
from contracts.ids import ImageId
from contracts.sealed import CAPTION, KEY_BYTES, NotOpened, seal
from tests.conftest import NOW
from tests.limits import WAIT

ONE, TWO = ImageId("img_1"), ImageId("img_2")


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    keys = await Keys.open(tmp_path / "keys.db")
    yield keys
    await keys.close()


async def test_creating_a_key_again_returns_the_existing_one(keys: Keys) -> None:
    first = await keys.create_keys([ONE])

    again = await keys.create_keys([ONE, TWO])

    assert again[ONE] == first[ONE] == await keys.key_of(ONE)
    assert again[TWO] != again[ONE]
    assert len(again[TWO]) == KEY_BYTES


async def test_keys_are_persistent(keys: Keys, tmp_path: Path) -> None:
    created = await keys.create_keys([ONE, TWO])

    reopened = await Keys.open(tmp_path / "keys.db")

    assert await reopened.keys_of([ONE, TWO, ImageId("img_3")]) == created
    await reopened.close()


async def test_text_of_an_image_without_a_key_is_empty(keys: Keys) -> None:
    created = await keys.create_keys([ONE])
    sealed = seal(created[ONE], "a cat", CAPTION)

    assert open_if_present(created, ONE, sealed, CAPTION) == "a cat"
    assert open_if_present({}, ONE, sealed, CAPTION) == ""
    with pytest.raises(NotOpened):
        open_if_present(created, ONE, sealed, "name")


async def test_backups_stay_registered_until_they_are_forgotten(keys: Keys, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    await keys.register_backup(two, NOW)
    await keys.register_backup(one, NOW + timedelta(seconds=1))
    await keys.register_backup(two, NOW + timedelta(seconds=2))  # updated

    assert [(backup.path, backup.at) for backup in await keys.backups()] == [
        (one, NOW + timedelta(seconds=1)),
        (two, NOW + timedelta(seconds=2)),
    ]

    await keys.forget_backup(one)
    await keys.forget_backup(one)

    assert [backup.path for backup in await keys.backups()] == [two]
    with pytest.raises(ValueError, match="not absolute"):
        await keys.register_backup(Path("here"), NOW)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
async def test_only_the_owner_can_read_the_files(keys: Keys, tmp_path: Path) -> None:
    await keys.create_keys([ONE])

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("keys.db*")}

    assert set(modes.values()) == {0o600}
    assert "keys.db-wal" in modes


async def test_a_cancelled_write_is_done_whole_or_not_at_all(keys: Keys) -> None:
    outcomes = set()
    for number in range(20):
        group = [ImageId(f"img_{number}_{one}") for one in range(50)]
        task = asyncio.create_task(keys.create_keys(group))
        await asyncio.sleep(0)  # now the transaction is about to begin
        while number % 2 and not keys._writer.in_transaction and not task.done():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not keys._writer.in_transaction
        stored = await keys.keys_of(group)
        assert len(stored) in {0, len(group)}
        outcomes.add(task.cancelled())
    assert True in outcomes


async def test_writes_of_several_tasks_do_not_mix(keys: Keys) -> None:
    groups = [[ImageId(f"img_{number}"), ImageId(f"img_{number + 1}")] for number in range(20)]
    results = await asyncio.gather(*(keys.create_keys(group) for group in groups))

    for group, result in zip(groups, results, strict=True):
        assert result == await keys.keys_of(group)


async def test_a_full_disk_is_reported_as_such_and_later_writes_succeed(keys: Keys) -> None:
    await keys._writer.execute("PRAGMA max_page_count = 6")
    with pytest.raises(OSError, match=r"there is no room for keys\.db") as full:
        await keys.create_keys(ImageId(f"img_{number}") for number in range(1000))
    assert full.value.errno == errno.ENOSPC

    await keys._writer.execute("PRAGMA max_page_count = 10000")
    assert await keys.create_keys([ONE]) == await keys.keys_of([ONE, ImageId("img_2")])


async def test_a_destroyed_key_is_in_no_file(keys: Keys, tmp_path: Path) -> None:
    created = await keys.create_keys([ONE, TWO])
    assert any(created[ONE] in file.read_bytes() for file in tmp_path.glob("keys.db*"))

    await keys.destroy([ONE])

    assert not any(created[ONE] in file.read_bytes() for file in tmp_path.glob("keys.db*"))
    assert await keys.create_keys([ONE, TWO]) == {TWO: created[TWO]}


async def test_keys_cannot_be_destroyed_for_good_while_a_reader_uses_the_wal(keys: Keys, tmp_path: Path) -> None:
    await keys.create_keys([ONE])
    await keys._writer.execute("PRAGMA busy_timeout = 1")
    with closing(open_reader(tmp_path / "keys.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM key").fetchone()
        with pytest.raises(Unavailable, match="is in use"):
            await keys.destroy([ONE])

    await keys.destroy([ONE])
    assert await keys.key_of(ONE) is None


async def test_no_thread_outlives_a_close_that_was_cancelled(tmp_path: Path) -> None:
    """Python waits for such a thread at its end, so a catalog that is stopped twice would never exit."""
    before = set(threading.enumerate())
    keys = await Keys.open(tmp_path / "keys.db")
    started = [one for one in threading.enumerate() if one not in before and not one.name.startswith("asyncio")]
    closing_keys = asyncio.create_task(keys.close())
    await asyncio.sleep(0)  # now it waits for the reader

    closing_keys.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing_keys

    for thread in started:
        await asyncio.to_thread(thread.join, WAIT)
    assert [thread.is_alive() for thread in started] == [False, False]


async def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SetupError, match=r"keys\.db cannot be opened: file is not a database"):
        await Keys.open(tmp_path / "keys.db")


def test_no_key_is_logged_at_any_level(tmp_path: Path) -> None:
    """aiosqlite logs each statement with its parameters; the catalog's log settings must drop that."""
    program = f"""
import asyncio
from pathlib import Path
from catalog.keys import Keys
from contracts.wire.service.boot import configure_logs

async def main():
    keys = await Keys.open(Path({str(tmp_path / "keys.db")!r}))
    await keys.create_keys(["img_1"])
    await keys.close()

configure_logs("catalog", "debug")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
