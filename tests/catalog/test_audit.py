"""The audit: whatever was changed in the log or its archive is found, and named with its place."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from catalog.archive import Archive
from catalog.audit import Auditor, genuine
from catalog.keys import Keys
from contracts import events as e
from contracts.audit import AuditHead, Damage
from contracts.errors import Conflict, LogDamaged
from contracts.wire.bus import Bus
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.server import EmbeddedServer
from tests.catalog.histories import Scribe
from tests.conftest import BusOf, origin
from tests.damage import LOST_LINES, blocks, change, delete_log, flip_in, forget_index
from tests.limits import WAIT

pytestmark = LOST_LINES
COMMITS = 20


class Watched:
    """A log, its archive, and who audits them."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.folder = folder
        self.log = EventLog(bus)
        self.archive = Archive(folder)
        self.keys = Keys(folder / "keys.db")
        self.auditor = Auditor(self.archive, self.log, self.keys)
        self._bus = bus
        self._heads: dict[str, Head] = {}

    async def say(self, thing: str, name: str) -> None:
        head = self._heads.get(thing, Head())
        fact = e.DatasetRenamed(name=name)
        stored = await self.log.append(draw_up("dataset", thing, [fact], after=head, origin=origin()), head)
        self._heads[thing] = head_of(stored)

    async def keep(self) -> None:
        """Until the archive has all of the log."""
        _, end = await self.log.end()
        async with (
            asyncio.timeout(WAIT),
            aclosing(Follower(self._bus, self.archive.tail.sequence).batches()) as batches,
        ):
            async for batch in batches:
                await self.archive.append(batch)
                if self.archive.tail.sequence == end:
                    return

    async def damage(self, head: AuditHead | None = None) -> list[tuple[str, str, int]]:
        return [(one.where, one.kind, one.first_bad) for one in (await self.auditor.verify(head)).damage]

    async def close(self) -> None:
        await self.keys.close()
        await self.archive.close()


@pytest.fixture
async def watched(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[Watched]:
    """Two data sets that were renamed in turn: commits 2 to 20, after the log's own."""
    watched = Watched(await bus_of("catalog"), tmp_path / "catalog")
    await watched.archive.judge(watched.log)
    for number in range(2, COMMITS + 1):
        await watched.say(f"ds_{number % 2}", f"name {number:02}")
    await watched.keep()
    yield watched
    await watched.close()


async def test_whole_history_is_said_to_be_whole(watched: Watched) -> None:
    report = await watched.auditor.verify()
    assert report.whole
    assert (report.commits, report.things, report.compared) == (COMMITS, 3, COMMITS)
    assert report.chain == watched.archive.tail.digest
    assert report.log_id == watched.archive.log_id


@pytest.mark.parametrize(
    ("statement", "kind", "first_bad"),
    [
        ("UPDATE entry SET body = replace(body, 'name 07', 'name 08') WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET body = CAST(replace(body, 'name 07', 'name 08') AS BLOB) WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET id = id || 'x' WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET kind = 'job' WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET recorded = recorded + 1000 WHERE sequence = 7", "changed", 7),
        ("DELETE FROM entry WHERE sequence = 7", "missing", 7),
        ("DELETE FROM entry WHERE sequence = 1", "missing", 1),
    ],
)
async def test_a_change_of_the_archive_is_held_against_the_archive(
    watched: Watched, statement: str, kind: str, first_bad: int
) -> None:
    change(watched.folder / "archive.db", statement)
    assert await watched.damage() == [("archive", kind, first_bad)]


async def test_a_byte_changed_in_the_file_is_found_though_the_catalog_has_read_it_before(watched: Watched) -> None:
    change(watched.folder / "archive.db", "PRAGMA wal_checkpoint(TRUNCATE)")
    assert await watched.damage() == []
    flip_in(watched.folder / "archive.db", b'"dataset.renamed","name":"name 07')
    assert await watched.damage() == [("archive", "changed", 7)]


async def test_a_file_whose_pages_are_broken_is_named_as_such(watched: Watched) -> None:
    change(watched.folder / "archive.db", "PRAGMA wal_checkpoint(TRUNCATE)")
    with (watched.folder / "archive.db").open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 200)
    ((where, kind, _),) = await watched.damage()
    assert (where, kind) == ("archive", "unreadable")


Harm = Callable[[Path], object]


@pytest.mark.parametrize(
    ("harm", "kind", "first_bad", "lost"),
    [
        (lambda nats: flip_in(blocks(nats)[0], b"name 07"), "missing", 7, 1),
        (lambda nats: (flip_in(blocks(nats)[0], b"name 07"), forget_index(nats)), "missing", 7, COMMITS - 6),
        (lambda nats: blocks(nats)[0].unlink(), "missing", 1, COMMITS),
        (delete_log, "missing", 1, COMMITS),
    ],
    ids=["a bit", "a bit after a crash", "a lost block", "a lost log"],
)
async def test_what_the_log_has_lost_is_held_against_the_log(  # noqa: PLR0917 - three fixtures, three facts
    watched: Watched, server: EmbeddedServer, harm: Harm, kind: str, first_bad: int, lost: int
) -> None:
    await server.stop()
    harm(server.folder)
    await server.start()
    (damage,) = (await watched.auditor.verify()).damage
    assert (damage.where, damage.kind, damage.first_bad, damage.missing) == ("log", kind, first_bad, lost)
    assert (
        f"of {COMMITS} archived commits {lost} are missing and 0 changed, from commit {first_bad} on" in damage.detail
    )
    assert damage.since == await watched.archive.recorded_at(first_bad - 1)


async def test_a_log_that_tells_another_story_is_held_against_the_log(
    watched: Watched, server: EmbeddedServer, tmp_path: Path
) -> None:
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "an hour ago")
    await server.start()
    told = dict(watched._heads)
    await watched.say("ds_0", "name 21")
    await watched.say("ds_1", "name 22")
    await watched.keep()
    await server.stop()
    shutil.rmtree(server.folder / "streams")
    shutil.copytree(tmp_path / "an hour ago", server.folder / "streams")
    await server.start()
    watched._heads = told
    await watched.say("ds_0", "never said before")

    (damage,) = (await watched.auditor.verify()).damage
    assert (damage.where, damage.kind, damage.first_bad) == ("log", "changed", 21)
    assert (damage.missing, damage.changed) == (1, 1)


async def test_two_audits_at_once_are_one_too_many(watched: Watched) -> None:
    first = asyncio.create_task(watched.auditor.verify())
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="already"):
        await watched.auditor.verify()
    assert (await first).whole


# --- a long log


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of more than five commits counts as long."""
    monkeypatch.setattr("catalog.archive.judge.AT_START", 5)


async def test_of_a_long_log_the_ends_are_looked_at_first_and_the_patrol_finds_the_rest(
    short: None, watched: Watched, server: EmbeddedServer, tmp_path: Path
) -> None:
    await server.stop()
    flip_in(blocks(server.folder)[0], b"name 07")
    await server.start()
    again = Archive(watched.folder)
    assert await again.judge(watched.log) == watched.archive.log_id
    with pytest.raises(LogDamaged, match="commit 7 is not in the log") as caught:
        async with asyncio.timeout(WAIT):
            await again.patrol(watched.log)
    assert caught.value.facts["first_bad"] == 7
    await again.close()


async def test_of_a_long_log_whose_end_is_another_the_first_difference_is_named(
    short: None, watched: Watched, server: EmbeddedServer
) -> None:
    await server.stop()
    flip_in(blocks(server.folder)[0], b"name 07")
    forget_index(server.folder)
    await server.start()
    again = Archive(watched.folder)
    with pytest.raises(LogDamaged, match=f"of {COMMITS} archived commits {COMMITS - 6} are missing"):
        await again.judge(watched.log)
    await again.close()


async def test_the_patrol_of_a_whole_log_goes_on(short: None, watched: Watched) -> None:
    again = Archive(watched.folder)
    await again.judge(watched.log)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await again.patrol(watched.log)
    await again.close()


# --- heads


async def test_a_head_that_was_kept_shows_that_nothing_was_rewritten_since(watched: Watched) -> None:
    head = await watched.auditor.head()
    assert (head.sequence, head.chain) == (COMMITS, watched.archive.tail.digest)
    await watched.say("ds_0", "later")
    await watched.keep()
    assert await watched.damage(head) == []
    assert (await watched.auditor.head()).public_key == head.public_key


async def test_a_head_is_the_same_for_who_checks_it_elsewhere(watched: Watched) -> None:
    head = msgspec.json.decode(msgspec.json.encode(await watched.auditor.head()), type=AuditHead)
    assert genuine(head)
    assert head.signed().decode().splitlines() == [
        "loratory audit head 1",
        head.log_id,
        str(COMMITS),
        head.chain,
        head.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 3},
        {"chain": "0" * 64},
        {"at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"signature": "00" * 64},
        {"signature": "no hex"},
        {"public_key": "00"},
    ],
    ids=str,
)
async def test_a_head_that_was_changed_is_no_witness(watched: Watched, changes: dict[str, object]) -> None:
    head = msgspec.structs.replace(await watched.auditor.head(), **changes)
    assert await watched.damage(head) == [("head", "changed", head.sequence)]


async def test_a_head_betrays_who_rewrote_log_and_archive_together(watched: Watched, tmp_path: Path) -> None:
    head = await watched.auditor.head()
    rewritten = Archive(tmp_path / "rewritten")
    scribe = Scribe()
    for number in range(COMMITS):
        scribe.dataset(f"ds_{number}", "as if it had always been so")
    await rewritten.append(scribe.commits)
    auditor = Auditor(rewritten, watched.log, watched.keys)
    found = [one for one in (await auditor.verify(head)).damage if one.where == "head"]
    assert [(one.kind, one.first_bad) for one in found] == [("rewritten", COMMITS)]
    await rewritten.close()


async def test_a_head_betrays_who_cut_log_and_archive_together(watched: Watched) -> None:
    head = await watched.auditor.head()
    change(watched.folder / "archive.db", "DELETE FROM entry WHERE sequence > 15")
    found: list[Damage] = list((await watched.auditor.verify(head)).damage)
    assert [(one.where, one.kind, one.first_bad) for one in found] == [("head", "missing", 16)]
