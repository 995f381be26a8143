"""Restoring: every commit that any copy has is restored at its sequence; a commit without a copy is never ignored."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from catalog import views
from catalog.archive.archive import COMPARE_ALL_AT_START, Archive, VerificationPolicy
from catalog.entries import last_sequence
from catalog.restoring import CommitsLost, RestoredLog, catch_up, refill, salvage
from catalog.store import Store
from contracts import subjects
from contracts.commits import ForeignMessage, RecordedCommit
from contracts.errors import Conflict, LogDamaged, SetupError
from contracts.events.log import LogRestored, LogVoided
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.recreate import recreate_stream, restore_entries
from contracts.wire.log.streams import stream_configs
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from tests.catalog.log_builder import LOG_ID, LogBuilder, full_history
from tests.catalog.test_backups import set_schema_number
from tests.conftest import NOW
from tests.signing import write_root_key

HISTORY = full_history().commits
SHORT_HISTORY = HISTORY[:30]


class RestoreWorkspace:
    """A server, a catalog folder and a backup folder, each with the part of the history that a test needs."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self.bus, self.folder, self.backup = bus, home / "catalog", home / "backup"
        self.folder.mkdir()
        write_root_key(self.folder / "keys.db")
        self.messages: list[str] = []

    async def create_log(
        self, commits: Sequence[RecordedCommit], missing: Sequence[int] = (), log_id: str = LOG_ID
    ) -> None:
        """Create a log with these commits, except the `missing` ones."""
        js = self.bus.jetstream()
        config = next(config for config in stream_configs() if config.name == subjects.EVENTS)
        await js.add_stream(replace(config, metadata={"log_id": log_id}, deny_delete=False))
        await restore_entries(self.bus, commits)
        for sequence in missing:
            await js.delete_msg(subjects.EVENTS, sequence)

    async def delete_log(self) -> None:
        await self.bus.jetstream().delete_stream(subjects.EVENTS)

    async def write_archive(
        self, commits: Sequence[RecordedCommit], folder: Path | None = None, log_id: str = LOG_ID
    ) -> None:
        archive = Archive(folder or self.folder)
        await archive.append(commits)
        await archive.set_log_id(log_id)
        await archive.close()

    def damage_archive(self, change: str = "UPDATE entry SET body = body || ' ' WHERE sequence = 7") -> None:
        connection = sqlite3.connect(self.folder / "archive.db", isolation_level=None)
        connection.execute(change)
        connection.close()

    async def salvage(self, *, backup: bool = False, accept_loss: bool = False) -> int:
        return await salvage(
            self.bus,
            self.folder,
            at=NOW,
            report=self.messages.append,
            backup=self.backup if backup else None,
            accept_loss=accept_loss,
        )

    async def refill(self) -> RestoredLog:
        return await refill(self.bus, self.folder, at=NOW, report=self.messages.append)

    async def read_archive(self) -> list[RecordedCommit]:
        """All archived commits, after verifying the chains."""
        async with self.open_archive() as archive:
            await archive.verify()
            entries = await archive.entries(0, 10_000)
            assert not [entry for entry in entries if isinstance(entry, ForeignMessage)]
            return [entry for entry in entries if isinstance(entry, RecordedCommit)]

    @asynccontextmanager
    async def open_archive(self) -> AsyncIterator[Archive]:
        archive = Archive(self.folder)
        yield archive
        await archive.close()


@pytest.fixture
async def workspace(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[RestoreWorkspace]:
    bus = await connect(server.url, *server.credentials("admin"), "test")
    yield RestoreWorkspace(bus, tmp_path)
    await bus.close()


# --- the log from the archive


async def test_refill_restores_every_commit_at_its_sequence_and_records_it(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(HISTORY)

    restored = await workspace.refill()

    log = EventLog(workspace.bus)
    recorded_commits = [await log.commit_at(recorded.sequence) for recorded in HISTORY]
    assert [recorded and recorded.body for recorded in recorded_commits] == [recorded.body for recorded in HISTORY]
    last = await log.commit_at(len(HISTORY) + 1)
    assert last is not None
    assert last.commit.events == (LogRestored(log_id=restored.log_id, before=LOG_ID, voided=1),)
    assert (restored.sequence, restored.voided) == (len(HISTORY), 1)  # the history has one void
    assert restored.log_id != LOG_ID
    assert (workspace.folder / "log_id").read_text() == restored.log_id
    async with workspace.open_archive() as archive:
        assert await archive.verify_on_start(log) == restored.log_id
        assert await archive.read(last_sequence) == len(HISTORY) + 1


async def test_a_matching_read_model_is_kept_and_another_is_rebuilt(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)
    for commits in (SHORT_HISTORY, [*SHORT_HISTORY[:29], with_body(SHORT_HISTORY[29], SHORT_HISTORY[28].body)]):
        store = Store(workspace.folder / "read.db", LOG_ID, views)
        await store.apply(commits)
        await store.close()

        restored = await workspace.refill()

        kept = Store(workspace.folder / "read.db", restored.log_id, views)
        assert kept.applied == (30 if commits is SHORT_HISTORY else 0)
        await kept.close()
        await workspace.delete_log()
        (workspace.folder / "read.db").unlink()


def with_body(recorded: RecordedCommit, body: bytes) -> RecordedCommit:
    return RecordedCommit(
        sequence=recorded.sequence, recorded_at=recorded.recorded_at, commit=recorded.commit, body=body
    )


async def test_an_existing_log_is_not_overwritten(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)
    await workspace.create_log(SHORT_HISTORY[:10])

    with pytest.raises(Conflict, match="moved away"):
        await workspace.refill()


async def test_an_interrupted_restore_can_start_over(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)
    await recreate_stream(workspace.bus, "01JHALF")
    await restore_entries(workspace.bus, SHORT_HISTORY[:10])

    assert await workspace.salvage() == 30
    await workspace.delete_log()
    assert (await workspace.refill()).sequence == 30


async def test_a_concurrent_writer_during_restore_is_detected(workspace: RestoreWorkspace) -> None:
    await recreate_stream(workspace.bus, "01JNEW")
    await workspace.bus.jetstream().publish(subjects.aggregate("log", "another"), b"{}")

    with pytest.raises(LogDamaged, match="commit 1 was stored as 2"):
        await restore_entries(workspace.bus, SHORT_HISTORY)


async def test_no_log_is_created_without_archived_commits(workspace: RestoreWorkspace) -> None:
    with pytest.raises(SetupError, match="there is no archive"):
        await workspace.refill()
    await workspace.write_archive([])
    with pytest.raises(SetupError, match="the archive is empty"):
        await workspace.refill()


# --- the archive from all copies


async def test_salvage_without_a_log_keeps_the_archive(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)

    assert await workspace.salvage() == 30
    assert workspace.messages == ["there is no log on the server"]
    assert await workspace.read_archive() == SHORT_HISTORY


async def test_salvage_takes_commits_that_only_the_damaged_log_has(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY[:20])
    await workspace.create_log(SHORT_HISTORY, missing=[5, 6, 20])  # the archive has the missing ones

    assert await workspace.salvage() == 30
    assert [recorded.body for recorded in await workspace.read_archive()] == [
        recorded.body for recorded in SHORT_HISTORY
    ]


async def test_a_commit_without_a_copy_stops_the_restore_unless_its_loss_is_accepted(
    workspace: RestoreWorkspace,
) -> None:
    await workspace.write_archive(SHORT_HISTORY[:20])
    await workspace.create_log(SHORT_HISTORY, missing=[23, 24])

    with pytest.raises(CommitsLost, match="commit 23 is in no copy") as caught:
        await workspace.salvage()
    assert caught.value.extra == {"first_lost": 23}

    assert await workspace.salvage(accept_loss=True) == 30
    read_archive = await workspace.read_archive()
    assert {recorded.sequence for recorded in read_archive if isinstance(recorded.commit.events[0], LogVoided)} == {
        23,
        24,
    }
    assert [recorded.body for recorded in read_archive[24:]] == [recorded.body for recorded in SHORT_HISTORY[24:]]
    times = [recorded.recorded_at for recorded in read_archive]
    assert times[20:] == sorted(times[20:])
    await workspace.delete_log()
    assert (await workspace.refill()).voided == 2


async def test_salvage_takes_nothing_from_a_log_that_differs(workspace: RestoreWorkspace) -> None:
    other = LogBuilder()
    for number in range(39):
        other.create_dataset(f"ds_{number}", "never appended")
    await workspace.write_archive(SHORT_HISTORY)
    await workspace.create_log(other.commits)

    assert await workspace.salvage() == 30
    assert workspace.messages == ["the log differs from the archive; nothing is restored from the log"]
    assert await workspace.read_archive() == SHORT_HISTORY


async def test_a_damaged_archive_is_rebuilt_from_the_log_and_kept(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)
    workspace.damage_archive()
    await workspace.create_log(SHORT_HISTORY)

    assert await workspace.salvage() == 30
    assert [recorded.body for recorded in await workspace.read_archive()] == [
        recorded.body for recorded in SHORT_HISTORY
    ]
    assert [path.name for path in workspace.folder.glob("damaged-*")] == ["damaged-20261121T120000Z-archive.db"]
    async with workspace.open_archive() as archive:
        assert await archive.verify_on_start(EventLog(workspace.bus)) == LOG_ID


async def test_commits_known_from_a_damaged_archive_are_required(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)
    workspace.damage_archive()
    await workspace.create_log(SHORT_HISTORY[:25])

    with pytest.raises(CommitsLost, match="commit 26 is in no copy"):
        await workspace.salvage()
    assert not list(workspace.folder.glob("damaged-*"))  # nothing was changed

    await workspace.write_archive(SHORT_HISTORY[:28], workspace.backup)
    with pytest.raises(CommitsLost, match="commit 29 is in no copy"):
        await workspace.salvage(backup=True)
    await workspace.write_archive(SHORT_HISTORY, workspace.backup)
    assert await workspace.salvage(backup=True) == 30
    assert await workspace.read_archive() == SHORT_HISTORY


async def test_commits_known_from_the_read_model_are_required(workspace: RestoreWorkspace) -> None:
    store = Store(workspace.folder / "read.db", LOG_ID, views)
    await store.apply(SHORT_HISTORY)
    await store.close()
    await workspace.create_log(SHORT_HISTORY[:25])

    with pytest.raises(CommitsLost, match="commit 26 is in no copy"):
        await workspace.salvage()


async def test_a_lost_archive_and_log_are_restored_from_a_backup(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY, workspace.backup)
    (workspace.folder / "keys.db").unlink()

    assert await workspace.salvage(backup=True) == 30
    assert await workspace.read_archive() == SHORT_HISTORY
    async with workspace.open_archive() as archive:
        assert await archive.belongs_to() == LOG_ID


async def test_without_any_copy_a_backup_is_required(workspace: RestoreWorkspace) -> None:
    with pytest.raises(SetupError, match="give a backup with --from"):
        await workspace.salvage()


async def test_a_backup_of_another_log_is_refused(workspace: RestoreWorkspace) -> None:
    other = LogBuilder()
    other.create_dataset("ds_other")
    await workspace.write_archive(SHORT_HISTORY)
    await workspace.write_archive(other.commits, workspace.backup)

    with pytest.raises(SetupError, match="is of another log"):
        await workspace.salvage(backup=True)


@pytest.mark.parametrize("name", ["archive.db", "keys.db"])
async def test_a_backup_of_a_newer_version_is_refused_before_anything_is_restored(
    workspace: RestoreWorkspace, name: str
) -> None:
    await workspace.write_archive(SHORT_HISTORY, workspace.backup)
    set_schema_number(workspace.backup / name, 99)
    with pytest.raises(SetupError, match=rf"^{name} was written by a newer version of Loratory"):
        await workspace.salvage(backup=True)
    assert [file.name for file in workspace.folder.iterdir()] == ["keys.db"]


async def test_an_archive_of_a_newer_version_is_not_taken_for_a_damaged_one(workspace: RestoreWorkspace) -> None:
    await workspace.write_archive(SHORT_HISTORY)
    set_schema_number(workspace.folder / "archive.db", 99)

    for command in (workspace.salvage, workspace.refill):
        with pytest.raises(SetupError, match="upgrade Loratory"):
            await command()


async def test_catch_up_can_compare_every_commit_of_a_long_log(workspace: RestoreWorkspace) -> None:
    shorter = VerificationPolicy(max_commits_at_start=10)
    await workspace.create_log(SHORT_HISTORY)
    recorded_commits = [await EventLog(workspace.bus).commit_at(sequence) for sequence in range(1, 31)]
    await workspace.write_archive(
        [with_body(item, item.body + b" ") if item.sequence == 1 else item for item in recorded_commits if item]
    )

    assert await catch_up(workspace.bus, workspace.folder, shorter) == 30  # only the last commit was compared
    with pytest.raises(LogDamaged, match="commit 1 of the log was changed"):
        await catch_up(workspace.bus, workspace.folder, COMPARE_ALL_AT_START)


async def test_catch_up_archives_the_missing_commits(workspace: RestoreWorkspace) -> None:
    await workspace.create_log(SHORT_HISTORY)
    recorded_commits = [await EventLog(workspace.bus).commit_at(sequence) for sequence in range(1, 21)]
    await workspace.write_archive([recorded for recorded in recorded_commits if recorded])

    assert await catch_up(workspace.bus, workspace.folder) == 30
    assert [recorded.body for recorded in await workspace.read_archive()] == [
        recorded.body for recorded in SHORT_HISTORY
    ]
