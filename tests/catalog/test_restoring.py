"""Restoring: every commit that any copy has comes back where it was, and what no copy has is never passed over."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from catalog import views
from catalog.archive import Archive
from catalog.entries import last_sequence
from catalog.keys import Keys
from catalog.restoring import Lost, Restored, catch_up, refill, salvage
from catalog.store import Store
from contracts import subjects
from contracts.errors import Conflict, LogDamaged, SetupError
from contracts.events import LogRestored, LogVoided, Stored
from contracts.ids import ImageId
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog
from contracts.wire.refill import make_anew, put_back
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import wanted
from tests.catalog.histories import LOG_ID, Scribe, everything
from tests.conftest import NOW

HISTORY = everything().commits
SHORT = HISTORY[:30]


class Place:
    """A server and a catalog's folder, each with as much of a history as a test wants."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self.bus, self.folder, self.backup = bus, home / "catalog", home / "backup"
        self.said: list[str] = []

    async def log(self, commits: Sequence[Stored], lost: Sequence[int] = (), log_id: str = LOG_ID) -> None:
        """A log that holds these, but for those the disk lost."""
        js = self.bus.jetstream()
        config = next(config for config in wanted() if config.name == subjects.FACTS)
        await js.add_stream(replace(config, metadata={"log_id": log_id}, deny_delete=False))
        await put_back(self.bus, commits)
        for sequence in lost:
            await js.delete_msg(subjects.FACTS, sequence)

    async def put_away(self) -> None:
        await self.bus.jetstream().delete_stream(subjects.FACTS)

    async def archive(self, commits: Sequence[Stored], folder: Path | None = None, log_id: str = LOG_ID) -> None:
        archive = Archive(folder or self.folder)
        await archive.append(commits)
        await archive.rename(log_id)
        await archive.close()

    def damage(self, change: str = "UPDATE entry SET body = body || ' ' WHERE sequence = 7") -> None:
        connection = sqlite3.connect(self.folder / "archive.db", isolation_level=None)
        connection.execute(change)
        connection.close()

    async def salvage(self, *, backup: bool = False, accept_loss: bool = False) -> int:
        return await salvage(
            self.bus,
            self.folder,
            at=NOW,
            say=self.said.append,
            backup=self.backup if backup else None,
            accept_loss=accept_loss,
        )

    async def refill(self) -> Restored:
        return await refill(self.bus, self.folder, at=NOW, say=self.said.append)

    async def archived(self) -> list[Stored]:
        """All of it, when its chains hold."""
        async with self.opened() as archive:
            await archive.verify()
            return await archive.commits(0, 10_000)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Archive]:
        archive = Archive(self.folder)
        yield archive
        await archive.close()


@pytest.fixture
async def place(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Place]:
    user, password = server.credentials("admin")
    bus = await connect(server.url, user, password, "test")
    yield Place(bus, tmp_path)
    await bus.close()


# --- the log from the archive


async def test_every_commit_comes_back_where_it_was_and_the_log_says_so(place: Place) -> None:
    await place.archive(HISTORY)

    made = await place.refill()

    log = EventLog(place.bus)
    found = [await log.stored(stored.sequence) for stored in HISTORY]
    assert [stored and stored.body for stored in found] == [stored.body for stored in HISTORY]
    last = await log.stored(len(HISTORY) + 1)
    assert last is not None
    assert last.commit.facts == (LogRestored(log_id=made.log_id, before=LOG_ID, voided=1),)
    assert (made.sequence, made.voided) == (len(HISTORY), 1)  # the history has one void
    assert made.log_id != LOG_ID
    assert (place.folder / "log_id").read_text() == made.log_id
    async with place.opened() as archive:
        assert await archive.judge(log) == made.log_id
        assert await archive.read(last_sequence) == len(HISTORY) + 1


async def test_a_read_model_that_fits_is_kept_and_another_is_made_anew(place: Place) -> None:
    await place.archive(SHORT)
    for commits in (SHORT, [*SHORT[:29], replaced(SHORT[29], SHORT[28].body)]):
        store = Store(place.folder / "read.db", LOG_ID, views)
        await store.apply(commits)
        await store.close()

        made = await place.refill()

        kept = Store(place.folder / "read.db", made.log_id, views)
        assert kept.applied == (30 if commits is SHORT else 0)
        await kept.close()
        await place.put_away()
        (place.folder / "read.db").unlink()


def replaced(stored: Stored, body: bytes) -> Stored:
    return Stored(sequence=stored.sequence, recorded=stored.recorded, commit=stored.commit, body=body)


async def test_a_log_that_is_there_is_not_written_over(place: Place) -> None:
    await place.archive(SHORT)
    await place.log(SHORT[:10])

    with pytest.raises(Conflict, match="put away"):
        await place.refill()


async def test_a_restore_that_was_cut_off_is_begun_again(place: Place) -> None:
    await place.archive(SHORT)
    await make_anew(place.bus, "01JHALF")
    await put_back(place.bus, SHORT[:10])

    assert await place.salvage() == 30
    await place.put_away()
    assert (await place.refill()).sequence == 30


async def test_who_else_writes_meanwhile_is_noticed(place: Place) -> None:
    await make_anew(place.bus, "01JNEW")
    await place.bus.jetstream().publish(subjects.fact("log", "another"), b"{}")

    with pytest.raises(LogDamaged, match="commit 1 was stored as 2"):
        await put_back(place.bus, SHORT)


async def test_from_nothing_no_log_is_made(place: Place) -> None:
    with pytest.raises(SetupError, match="there is no archive"):
        await place.refill()
    await place.archive([])
    with pytest.raises(SetupError, match="the archive is empty"):
        await place.refill()


# --- the archive from all copies


async def test_a_log_that_is_gone_takes_nothing_with_it(place: Place) -> None:
    await place.archive(SHORT)

    assert await place.salvage() == 30
    assert place.said == ["there is no log on the server"]
    assert await place.archived() == SHORT


async def test_what_the_damaged_log_has_beyond_the_archive_is_not_lost(place: Place) -> None:
    await place.archive(SHORT[:20])
    await place.log(SHORT, lost=[5, 6, 20])  # what it lost the archive has

    assert await place.salvage() == 30
    assert [stored.body for stored in await place.archived()] == [stored.body for stored in SHORT]


async def test_a_commit_that_no_copy_has_stops_the_restore_unless_its_loss_is_accepted(place: Place) -> None:
    await place.archive(SHORT[:20])
    await place.log(SHORT, lost=[23, 24])

    with pytest.raises(Lost, match="commit 23 is in no copy") as caught:
        await place.salvage()
    assert caught.value.facts == {"first_lost": 23}

    assert await place.salvage(accept_loss=True) == 30
    archived = await place.archived()
    assert {stored.sequence for stored in archived if isinstance(stored.commit.facts[0], LogVoided)} == {23, 24}
    assert [stored.body for stored in archived[24:]] == [stored.body for stored in SHORT[24:]]
    times = [stored.recorded for stored in archived]
    assert times[20:] == sorted(times[20:])
    await place.put_away()
    assert (await place.refill()).voided == 2


async def test_a_log_that_tells_another_story_is_not_mixed_in(place: Place) -> None:
    other = Scribe()
    for number in range(39):
        other.dataset(f"ds_{number}", "never said")
    await place.archive(SHORT)
    await place.log(other.commits)

    assert await place.salvage() == 30
    assert place.said == ["the log tells another story than the archive; what it says where they differ is not taken"]
    assert await place.archived() == SHORT


async def test_a_damaged_archive_is_made_anew_from_the_log_and_kept(place: Place) -> None:
    await place.archive(SHORT)
    place.damage()
    await place.log(SHORT)

    assert await place.salvage() == 30
    assert [stored.body for stored in await place.archived()] == [stored.body for stored in SHORT]
    assert [path.name for path in place.folder.glob("damaged-*")] == ["damaged-20261121T120000Z-archive.db"]
    async with place.opened() as archive:
        assert await archive.judge(EventLog(place.bus)) == LOG_ID


async def test_what_a_damaged_archive_speaks_of_is_not_forgotten(place: Place) -> None:
    await place.archive(SHORT)
    place.damage()
    await place.log(SHORT[:25])

    with pytest.raises(Lost, match="commit 26 is in no copy"):
        await place.salvage()
    assert not list(place.folder.glob("damaged-*"))  # all is as it was

    await place.archive(SHORT[:28], place.backup)
    with pytest.raises(Lost, match="commit 29 is in no copy"):
        await place.salvage(backup=True)
    await place.archive(SHORT, place.backup)
    assert await place.salvage(backup=True) == 30
    assert await place.archived() == SHORT


async def test_what_only_the_read_model_speaks_of_is_not_forgotten(place: Place) -> None:
    store = Store(place.folder / "read.db", LOG_ID, views)
    await store.apply(SHORT)
    await store.close()
    await place.log(SHORT[:25])

    with pytest.raises(Lost, match="commit 26 is in no copy"):
        await place.salvage()


async def test_archive_and_log_both_gone_come_back_from_a_backup_with_its_keys(place: Place) -> None:
    await place.archive(SHORT, place.backup)
    keys = Keys(place.backup / "keys.db")
    made = await keys.new_keys([ImageId("img_1")])
    await keys.close()
    place.folder.mkdir()

    assert await place.salvage(backup=True) == 30
    assert await place.archived() == SHORT
    async with place.opened() as archive:
        assert await archive.belongs_to() == LOG_ID
    keys = Keys(place.folder / "keys.db")
    assert await keys.keys_of(made) == made
    await keys.close()


async def test_where_there_is_no_copy_a_backup_is_asked_for(place: Place) -> None:
    place.folder.mkdir()

    with pytest.raises(SetupError, match="give a backup with --from"):
        await place.salvage()


async def test_a_backup_of_another_log_is_refused(place: Place) -> None:
    other = Scribe()
    other.dataset("ds_other")
    await place.archive(SHORT)
    await place.archive(other.commits, place.backup)

    with pytest.raises(SetupError, match="is of another log"):
        await place.salvage(backup=True)


async def test_a_long_log_with_an_old_commit_changed_is_not_called_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.archive.judge.AT_START", 10)
    await place.log(SHORT)
    found = [await EventLog(place.bus).stored(sequence) for sequence in range(1, 31)]
    await place.archive([replaced(one, one.body + b" ") if one.sequence == 1 else one for one in found if one])

    assert await catch_up(place.bus, place.folder) == 30  # only the ends were looked at
    with pytest.raises(LogDamaged, match="commit 1 of the log was changed"):
        await catch_up(place.bus, place.folder, whole=True)


async def test_an_archive_that_is_behind_catches_up(place: Place) -> None:
    await place.log(SHORT)
    found = [await EventLog(place.bus).stored(sequence) for sequence in range(1, 21)]
    await place.archive([stored for stored in found if stored])

    assert await catch_up(place.bus, place.folder) == 30
    assert [stored.body for stored in await place.archived()] == [stored.body for stored in SHORT]
