"""Rebuilding the read model next to the live one: identical to the last row, or the first difference is reported."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from catalog import views
from catalog.archive.archive import Archive
from catalog.rebuild import rebuild
from catalog.replays import Replays
from catalog.store import Store
from contracts.audit import ReplayReport
from contracts.errors import Conflict, LoratoryError
from contracts.queries.log import GetReplay, StartReplay
from tests.catalog.log_builder import LOG_ID, full_history
from tests.limits import WAIT

HISTORY = full_history().commits


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A catalog's folder, its files closed."""
    archive, store = Archive(tmp_path), Store(tmp_path / "read.db", LOG_ID, views)
    await archive.append(HISTORY)
    await store.apply(HISTORY)
    await archive.close()
    await store.close()
    return tmp_path


def replay(folder: Path, report: Callable[[ReplayReport], None] = lambda _: None) -> ReplayReport:
    target = folder / "again.db"
    target.unlink(missing_ok=True)
    return rebuild(folder, target, report)


def tamper(folder: Path, change: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "read.db", isolation_level=None)) as connection:
        assert connection.execute(change, values).rowcount


def test_equal_rows_are_counted_by_table(folder: Path) -> None:
    report = replay(folder)
    assert (report.state, report.difference, report.sequence) == ("same", None, len(HISTORY))
    with closing(sqlite3.connect(folder / "read.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {name: len(connection.execute(f"SELECT * FROM {name}").fetchall()) for name in tables}  # noqa: S608 - ours
    assert {"checkpoint": 1} | report.rows == counts
    assert counts["image"] > 3


def test_a_changed_value_is_reported_with_both_versions(folder: Path) -> None:
    tamper(folder, "UPDATE job SET dataset_id = 'ds_lies' WHERE id = 'job_3'")
    difference = replay(folder).difference
    assert difference is not None
    assert (difference.table, difference.key) == ("job", {"id": "job_3"})
    assert (difference.live, difference.replayed) == ({"dataset_id": "ds_lies"}, {"dataset_id": "ds_cats"})


def test_missing_and_surplus_rows_are_distinguished(folder: Path) -> None:
    tamper(folder, "DELETE FROM version WHERE version_id = 'ver_1'")
    gone = replay(folder).difference
    assert gone is not None
    assert (gone.table, gone.key, gone.live) == ("version", {"version_id": "ver_1"}, None)
    assert gone.replayed is not None and gone.replayed["number"] == 1

    another = "SELECT class, id, 1, worker, resumes, started_at, ended, reason FROM attempt LIMIT 1"
    tamper(folder, f"INSERT INTO attempt {another}")
    many = replay(folder).difference
    assert many is not None
    assert (many.table, many.key["attempt"], many.replayed) == ("attempt", 1, None)


def test_the_first_difference_is_by_table_name_and_key(folder: Path) -> None:
    tamper(folder, "UPDATE version SET number = 9")
    tamper(folder, "UPDATE job SET created_sequence = 0")
    report = replay(folder)
    assert report.difference is not None
    assert (report.difference.table, report.difference.key) == ("job", {"id": "job_1"})
    assert report.rows["job"] == 0
    assert "version" not in report.rows


def test_an_unknown_table_is_a_difference(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "read.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE beside (a)")
    difference = replay(folder).difference
    assert difference is not None
    assert (difference.table, difference.live, difference.replayed) == ("beside", {}, None)


def test_a_checkpoint_with_another_digest_is_a_difference(folder: Path) -> None:
    tamper(folder, "UPDATE checkpoint SET digest = ?", "0" * 64)
    difference = replay(folder).difference
    assert difference is not None
    assert (difference.table, difference.key) == ("checkpoint", {"sequence": len(HISTORY)})


def test_the_live_rows_are_compared_as_of_their_own_checkpoint(folder: Path, tmp_path_factory: Any) -> None:
    """The archive is ahead of the read model for a moment after each commit."""
    behind = tmp_path_factory.mktemp("behind")

    async def create() -> None:
        archive, store = Archive(behind), Store(behind / "read.db", LOG_ID, views)
        await archive.append(HISTORY)
        await store.apply(HISTORY[:20])
        await archive.close()
        await store.close()

    asyncio.run(create())
    report = replay(behind)
    assert (report.state, report.sequence) == ("same", 20)


def test_an_archive_with_a_gap_is_an_error(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "archive.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM entry WHERE sequence = 7")
    with pytest.raises(LoratoryError, match="lacks commits"):
        replay(folder)


# --- as a child process of the catalog


@asynccontextmanager
async def run_replays(folder: Path, **limits: float) -> AsyncIterator[Replays]:
    found = Replays(folder, **limits)
    task = asyncio.create_task(found.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not (folder / "replay").exists()


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[Replays]:
    async with run_replays(folder) as found:
        yield found


async def ended(running: Replays) -> ReplayReport:
    async with asyncio.timeout(WAIT):
        while not (report := await running.last(GetReplay())).ended:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.02)
    return report


@pytest.mark.slow
async def test_a_replay_runs_in_the_background_and_its_report_is_kept(running: Replays, folder: Path) -> None:
    assert (await running.last(GetReplay())).state == "never"
    started = await running.start(StartReplay())
    assert started.state == "running"
    report = await ended(running)
    assert (report.state, report.sequence, report.started_at) == ("same", len(HISTORY), started.started_at)
    assert report.ended_at is not None

    tamper(folder, "UPDATE job SET created_sequence = 0")
    await running.start(StartReplay())
    assert (await ended(running)).state == "different"


async def test_only_one_replay_runs_at_a_time(running: Replays) -> None:
    await running.start(StartReplay())
    with pytest.raises(Conflict):
        await running.start(StartReplay())
    await ended(running)
    assert (await running.start(StartReplay())).state == "running"


async def test_a_failed_replay_reports_its_error(running: Replays, folder: Path) -> None:
    (folder / "archive.db").write_bytes(b"this is no database" * 1000)
    await running.start(StartReplay())
    report = await ended(running)
    assert report.state == "failed"
    assert "database" in str(report.error)


async def test_a_replay_that_takes_too_long_is_stopped_and_another_can_be_started(folder: Path) -> None:
    async with run_replays(folder, timeout=0.001) as stopped:
        for _ in range(2):
            await stopped.start(StartReplay())
            assert "longer than" in str((await ended(stopped)).error)
    async with run_replays(folder) as running:
        await running.start(StartReplay())
        assert (await ended(running)).state == "same"
