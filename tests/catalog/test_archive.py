"""The archive: what was told stays told, and a log that is not the one it was is found out."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from catalog.archive import Archive
from contracts import events as e
from contracts.errors import LogDamaged
from contracts.wire.bus import Bus
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog, Head, draw_up, head_of
from tests.catalog.histories import Scribe, everything
from tests.conftest import BusOf, origin


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path / "catalog")
    yield archive
    await archive.close()


def damage(archive_folder: Path, change: str, *values: object) -> None:
    connection = sqlite3.connect(archive_folder / "archive.db", isolation_level=None)
    connection.execute(change, values)
    connection.close()


async def test_commits_come_back_as_they_were(archive: Archive) -> None:
    history = everything().commits

    await archive.append(history[:20])
    await archive.append(history[10:])  # told twice, kept once

    assert await archive.commits(0, 1000) == history
    assert archive.tail.sequence == len(history)
    assert await archive.verify() == archive.tail


async def test_any_split_gives_the_same_head(archive: Archive, tmp_path: Path) -> None:
    history = everything().commits
    await archive.append(history)

    other = Archive(tmp_path / "other")
    for stored in history:
        await other.append([stored])

    assert other.tail == archive.tail
    await other.close()


async def test_a_gap_is_not_archived(archive: Archive) -> None:
    history = everything().commits

    with pytest.raises(LogDamaged, match="commit 1 is missing"):
        await archive.append(history[1:])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET body = body || ' ' WHERE sequence = 7",
        "UPDATE entry SET thing = 'another' WHERE sequence = 7",
        "DELETE FROM entry WHERE sequence = 7",
        "UPDATE entry SET chain = zeroblob(32) WHERE sequence = 7",
    ],
)
async def test_a_changed_entry_is_found_and_named(archive: Archive, tmp_path: Path, change: str) -> None:
    await archive.append(everything().commits)

    damage(tmp_path / "catalog", change)

    with pytest.raises(LogDamaged) as caught:
        await archive.verify()
    assert caught.value.facts["first_bad"] == 7


# --- judging the log


async def archived(bus: Bus, archive: Archive, commits: int) -> list[e.Stored]:
    """A log with so many data sets and its archive, judged."""
    log, head = EventLog(bus), Head()
    for number in range(commits):
        fact = e.DatasetRenamed(name=f"name {number}") if number else e.DatasetCreated(name="name")
        stored = await log.append(draw_up("dataset", "ds_1", [fact], after=head, origin=origin()), head)
        head = head_of(stored)
    await archive.judge(log)
    async for batch in Follower(bus, archive.tail.sequence).batches():
        await archive.append(batch)
        if archive.tail.sequence == commits + 1:
            break
    return await archive.commits(0, 1000)


async def test_the_log_that_was_archived_is_recognised(bus_of: BusOf, archive: Archive, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    await archived(bus, archive, 5)
    log_id, _ = await EventLog(bus).end()

    again = Archive(tmp_path / "catalog")
    assert await again.judge(EventLog(bus)) == log_id
    assert again.verified
    assert again.tail.sequence == 6
    assert (tmp_path / "catalog" / "log_id").read_text() == log_id
    await again.close()


async def test_a_log_that_went_back_is_named_with_what_is_missing(bus_of: BusOf, archive: Archive) -> None:
    bus = await bus_of("catalog")
    *_, last = await archived(bus, archive, 3)
    ahead = Scribe()
    ahead.heads["dataset", "ds_1"] = head_of(last)
    ahead.commits = [last] * last.sequence
    await archive.append([ahead.write("dataset", "ds_1", e.DatasetRemoved())])

    with pytest.raises(LogDamaged) as caught:
        await archive.judge(EventLog(bus))
    assert caught.value.facts["first_bad"] == 5


async def test_a_log_rewritten_from_some_commit_on_is_named_with_that_commit(
    bus_of: BusOf, archive: Archive, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    history = await archived(bus, archive, 12)
    other = Archive(tmp_path / "other")
    await other.judge(EventLog(bus))
    rewritten = Scribe()
    rewritten.commits, rewritten.heads["dataset", "ds_1"] = history[:8], head_of(history[7])
    for number in range(5):
        rewritten.write("dataset", "ds_1", e.DatasetRenamed(name=f"never said {number}"))
    await other.append(rewritten.commits)

    with pytest.raises(LogDamaged) as caught:
        await other.judge(EventLog(bus))
    assert caught.value.facts["first_bad"] == 9
    await other.close()


async def test_another_log_is_refused(bus_of: BusOf, archive: Archive, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    await archive.judge(EventLog(bus))
    damage(tmp_path / "catalog", "UPDATE log SET log_id = ?", "01JANOTHER")

    with pytest.raises(LogDamaged, match="01JANOTHER"):
        await archive.judge(EventLog(bus))


async def test_damage_that_others_found_is_told_with_the_last_good_commit(archive: Archive) -> None:
    history = everything().commits
    await archive.append(history)

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(found())

    async def found() -> None:
        raise LogDamaged("the log ends at 6, but commits up to 9 were read from it", first_bad=7)

    with pytest.raises(LogDamaged, match="the last good one is commit 6 of 2026-11-21 12:00:06 UTC") as caught:
        await archive.explaining(follow())
    assert caught.value.facts["first_bad"] == 7


async def test_what_is_no_damage_goes_through_unchanged(archive: Archive) -> None:
    async def fail() -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        await archive.explaining(fail())


async def test_a_deleted_archive_is_made_anew_from_its_own_log_but_from_no_other(
    bus_of: BusOf, archive: Archive, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    await archived(bus, archive, 3)
    await archive.close()
    for file in (tmp_path / "catalog").glob("archive.db*"):
        file.unlink()

    anew = Archive(tmp_path / "catalog")
    assert await anew.judge(EventLog(bus)) == (await EventLog(bus).end())[0]
    await anew.close()

    for file in (tmp_path / "catalog").glob("archive.db*"):
        file.unlink()
    (tmp_path / "catalog" / "log_id").write_text("01JANOTHER")
    other = Archive(tmp_path / "catalog")
    with pytest.raises(LogDamaged, match="01JANOTHER was archived here"):
        await other.judge(EventLog(bus))
    await other.close()
