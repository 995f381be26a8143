"""The archive: commits are kept verbatim, and a log that differs from them is detected."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from catalog.archive.archive import Archive
from contracts import signatures
from contracts.commits import RecordedCommit, StreamRevision, build_commit, decode_message, revision_of
from contracts.errors import LogDamaged
from contracts.events.datasets import DatasetCreated, DatasetRemoved, DatasetRenamed
from contracts.signatures import Signature, Signer, is_valid
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.service.bus import Bus
from tests.catalog.log_builder import LOG_ID, LogBuilder, add_keys, full_history
from tests.conftest import BusOf, command_metadata
from tests.contracts.test_verification import message_of
from tests.signing import key_named


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path / "catalog")
    yield archive
    await archive.close()


def execute_on_archive(archive_folder: Path, change: str, *values: object) -> None:
    connection = sqlite3.connect(archive_folder / "archive.db", isolation_level=None)
    connection.execute(change, values)
    connection.close()


async def test_archived_commits_are_returned_unchanged(archive: Archive) -> None:
    history = full_history().commits

    await archive.append(history[:20])
    await archive.append(history[10:])  # delivered twice, archived once

    assert await archive.entries(0, 1000) == history
    assert archive.tail.sequence == len(history)
    assert await archive.verify() == archive.tail


async def test_any_batching_gives_the_same_tail(archive: Archive, tmp_path: Path) -> None:
    history = full_history().commits
    await archive.append(history)

    other = Archive(tmp_path / "other")
    for recorded in history:
        await other.append([recorded])

    assert other.tail == archive.tail
    await other.close()


async def test_what_this_process_signed_is_archived_without_verifying_it_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, own, verified = LogBuilder(), key_named("catalog"), list[str]()
    add_keys(builder)
    builder.create_dataset()
    builder.add_image(0)

    def note(signature: Signature, public_key: bytes, message: bytes) -> bool:
        verified.append(signature.key_id)
        return is_valid(signature, public_key, message)

    monkeypatch.setattr(signatures, "is_valid", note)
    signer = Signer(own, LOG_ID, archive.own_signatures)
    for recorded in builder.commits:
        if recorded.signature.startswith(own.id):
            assert signer.sign(recorded.subject, recorded.body) == recorded.signature
    await archive.begin(key_named("root").public)

    assert await archive.receive([message_of(recorded) for recorded in builder.commits]) == builder.commits
    assert verified and own.id not in verified


async def test_a_gap_is_not_archived(archive: Archive) -> None:
    history = full_history().commits

    with pytest.raises(LogDamaged, match="commit 1 is missing"):
        await archive.append(history[1:])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET body = body || ' ' WHERE sequence = 7",
        "UPDATE entry SET aggregate_id = 'another' WHERE sequence = 7",
        "DELETE FROM entry WHERE sequence = 7",
        "UPDATE entry SET chain = zeroblob(32) WHERE sequence = 7",
    ],
)
async def test_a_changed_entry_is_detected_with_its_sequence(archive: Archive, tmp_path: Path, change: str) -> None:
    await archive.append(full_history().commits)

    execute_on_archive(tmp_path / "catalog", change)

    with pytest.raises(LogDamaged) as caught:
        await archive.verify()
    assert caught.value.extra["first_bad"] == 7


# --- verifying the log


async def archive_log(bus: Bus, archive: Archive, commits: int) -> list[RecordedCommit]:
    """A log with this many commits of one data set, archived and verified; returns all archived commits."""
    log, revision = EventLog(bus), StreamRevision()
    for number in range(commits):
        event = DatasetRenamed(name=f"name {number}") if number else DatasetCreated(name="name")
        recorded = await log.append(
            build_commit("dataset", "ds_1", [event], expected_revision=revision, metadata=command_metadata()), revision
        )
        revision = revision_of(recorded)
    await archive.verify_on_start(log)
    async for batch in Follower(bus, archive.tail.sequence).batches():
        await archive.append([decode_message(message) for message in batch])
        if archive.tail.sequence == commits + 1:
            break
    return [entry for entry in await archive.entries(0, 1000) if isinstance(entry, RecordedCommit)]


async def test_the_archived_log_is_accepted(bus_of: BusOf, archive: Archive, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    await archive_log(bus, archive, 5)
    log_id, _ = await EventLog(bus).end()

    reopened = Archive(tmp_path / "catalog")
    assert await reopened.verify_on_start(EventLog(bus)) == log_id
    assert reopened.verified
    assert reopened.tail.sequence == 6
    assert (tmp_path / "catalog" / "log_id").read_text() == log_id
    await reopened.close()


async def test_a_truncated_log_is_detected_with_the_first_missing_commit(bus_of: BusOf, archive: Archive) -> None:
    bus = await bus_of("catalog")
    *_, last = await archive_log(bus, archive, 3)
    longer = LogBuilder()
    longer.revisions["dataset", "ds_1"] = revision_of(last)
    longer.commits = [last] * last.sequence
    await archive.append([longer.append("dataset", "ds_1", DatasetRemoved())])

    with pytest.raises(LogDamaged) as caught:
        await archive.verify_on_start(EventLog(bus))
    assert caught.value.extra["first_bad"] == 5


async def test_a_rewritten_log_is_detected_with_the_first_changed_commit(
    bus_of: BusOf, archive: Archive, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    history = await archive_log(bus, archive, 12)
    other = Archive(tmp_path / "other")
    await other.verify_on_start(EventLog(bus))
    rewritten = LogBuilder()
    rewritten.commits, rewritten.revisions["dataset", "ds_1"] = history[:8], revision_of(history[7])
    for number in range(5):
        rewritten.append("dataset", "ds_1", DatasetRenamed(name=f"never appended {number}"))
    await other.append(rewritten.commits)

    with pytest.raises(LogDamaged) as caught:
        await other.verify_on_start(EventLog(bus))
    assert caught.value.extra["first_bad"] == 9
    await other.close()


async def test_another_log_is_refused(bus_of: BusOf, archive: Archive, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    await archive.verify_on_start(EventLog(bus))
    execute_on_archive(tmp_path / "catalog", "UPDATE log SET log_id = ?", "01JANOTHER")

    with pytest.raises(LogDamaged, match="01JANOTHER"):
        await archive.verify_on_start(EventLog(bus))


async def test_damage_found_elsewhere_is_reported_with_the_last_good_commit(archive: Archive) -> None:
    history = full_history().commits
    await archive.append(history)

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(found())

    async def found() -> None:
        raise LogDamaged("the log ends at 6, but commits up to 9 were read from it", first_bad=7)

    with pytest.raises(LogDamaged, match="the last good one is commit 6 of 2026-11-21 12:00:06 UTC") as caught:
        await archive.explain_damage(follow())
    assert caught.value.extra["first_bad"] == 7


async def test_other_errors_pass_through_unchanged(archive: Archive) -> None:
    async def fail() -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        await archive.explain_damage(fail())


async def test_a_deleted_archive_is_recreated_only_from_the_same_log(
    bus_of: BusOf, archive: Archive, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    await archive_log(bus, archive, 3)
    await archive.close()
    for file in (tmp_path / "catalog").glob("archive.db*"):
        file.unlink()

    recreated = Archive(tmp_path / "catalog")
    assert await recreated.verify_on_start(EventLog(bus)) == (await EventLog(bus).end())[0]
    await recreated.close()

    for file in (tmp_path / "catalog").glob("archive.db*"):
        file.unlink()
    (tmp_path / "catalog" / "log_id").write_text("01JANOTHER")
    other = Archive(tmp_path / "catalog")
    with pytest.raises(LogDamaged, match="01JANOTHER was archived here"):
        await other.verify_on_start(EventLog(bus))
    await other.close()
