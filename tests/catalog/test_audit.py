"""The audit: every change of the log or its archive is detected and located."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from catalog.archive.archive import Archive, VerificationPolicy
from catalog.archive.rows import ARCHIVE
from catalog.audit import Auditor, is_genuine
from catalog.keys import Keys
from contracts.audit import AuditHead, Damage
from contracts.commits import StreamRevision, build_commit, revision_of
from contracts.errors import Conflict, LogDamaged
from contracts.events.datasets import DatasetRenamed
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus
from tests.catalog.log_builder import LogBuilder
from tests.conftest import BusOf, command_metadata
from tests.damage import IGNORE_UNCLOSED_SOCKETS, block_files, delete_index, delete_log, execute_sql, flip_bit_in_text
from tests.limits import WAIT
from tests.signing import append_keys

pytestmark = IGNORE_UNCLOSED_SOCKETS
COMMITS = 20


class AuditedLog:
    """A log, its archive, and their auditor."""

    def __init__(self, bus: Bus, folder: Path, keys: Keys) -> None:
        self.folder = folder
        self.log = EventLog(bus)
        self.archive = Archive(folder)
        self.keys = keys
        self.auditor = Auditor(self.archive, self.log, self.keys)
        self._bus = bus
        self._revisions: dict[str, StreamRevision] = {}

    async def rename_dataset(self, aggregate_id: str, name: str) -> None:
        revision = self._revisions.get(aggregate_id, StreamRevision())
        event = DatasetRenamed(name=name)
        recorded = await self.log.append(
            build_commit("dataset", aggregate_id, [event], expected_revision=revision, metadata=command_metadata()),
            revision,
        )
        self._revisions[aggregate_id] = revision_of(recorded)

    async def archive_all(self) -> None:
        """Archive all commits of the log."""
        _, end = await self.log.end()
        async with (
            asyncio.timeout(WAIT),
            aclosing(Follower(self._bus, self.archive.tail.sequence).batches()) as batches,
        ):
            async for batch in batches:
                await self.archive.receive(batch)
                if self.archive.tail.sequence == end:
                    return

    async def damage(self, head: AuditHead | None = None) -> list[tuple[str, str, int]]:
        return [(item.where, item.kind, item.first_bad) for item in (await self.auditor.verify(head)).damage]

    async def close(self) -> None:
        await self.keys.close()
        await self.archive.close()


@pytest.fixture
async def audited(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[AuditedLog]:
    """Two data sets renamed in turn: commits 4 to 20, after the log's first commit and two about keys."""
    folder = tmp_path / "catalog"
    audited = AuditedLog(await bus_of("catalog"), folder, await Keys.open(folder / "keys.db"))
    await audited.archive.verify_on_start(audited.log)
    root = await audited.keys.root_key()
    await audited.archive.begin(root.public)
    audited.log.signer = (await append_keys(await bus_of("catalog"), root))["catalog"]
    for number in range(4, COMMITS + 1):
        await audited.rename_dataset(f"ds_{number % 2}", f"name {number:02}")
    await audited.archive_all()
    yield audited
    await audited.close()


async def test_an_unchanged_history_is_reported_as_intact(audited: AuditedLog) -> None:
    report = await audited.auditor.verify()
    assert report.is_intact
    assert (report.commits, report.aggregates, report.compared) == (COMMITS, 5, COMMITS)
    assert report.chain == audited.archive.tail.digest
    assert report.log_id == audited.archive.log_id


@pytest.mark.parametrize(
    ("statement", "kind", "first_bad"),
    [
        ("UPDATE entry SET body = replace(body, 'name 07', 'name 08') WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET body = CAST(replace(body, 'name 07', 'name 08') AS BLOB) WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET id = id || 'x' WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET aggregate_kind = 'job' WHERE sequence = 7", "changed", 7),
        ("UPDATE entry SET recorded = recorded + 1000 WHERE sequence = 7", "changed", 7),
        ("DELETE FROM entry WHERE sequence = 7", "missing", 7),
        ("DELETE FROM entry WHERE sequence = 1", "missing", 1),
    ],
)
async def test_a_changed_archive_is_reported_as_damage_of_the_archive(
    audited: AuditedLog, statement: str, kind: str, first_bad: int
) -> None:
    execute_sql(audited.folder / "archive.db", statement)
    assert await audited.damage() == [("archive", kind, first_bad)]


async def test_a_byte_changed_in_the_file_is_detected_after_the_page_was_cached(audited: AuditedLog) -> None:
    execute_sql(audited.folder / "archive.db", "PRAGMA wal_checkpoint(TRUNCATE)")
    assert await audited.damage() == []
    flip_bit_in_text(audited.folder / "archive.db", b'"dataset.renamed","name":"name 07')
    assert await audited.damage() == [("archive", "changed", 7)]


async def test_a_file_with_corrupt_pages_is_reported_as_unreadable(audited: AuditedLog) -> None:
    execute_sql(audited.folder / "archive.db", "PRAGMA wal_checkpoint(TRUNCATE)")
    with (audited.folder / "archive.db").open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 200)
    ((where, kind, _),) = await audited.damage()
    assert (where, kind) == ("archive", "unreadable")


DamageFiles = Callable[[Path], object]


def flip_bit(nats: Path) -> None:
    flip_bit_in_text(block_files(nats)[0], b"name 07")


def flip_bit_after_a_crash(nats: Path) -> None:
    flip_bit(nats)
    delete_index(nats)


@pytest.mark.parametrize(
    ("damage_files", "kind", "first_bad", "missing"),
    [
        (flip_bit, "missing", 7, 1),
        (flip_bit_after_a_crash, "missing", 7, COMMITS - 6),
        (lambda nats: block_files(nats)[0].unlink(), "missing", 1, COMMITS),
        (delete_log, "missing", 1, COMMITS),
    ],
    ids=["a bit", "a bit after a crash", "a lost block", "a lost log"],
)
async def test_missing_commits_are_reported_as_damage_of_the_log(  # noqa: PLR0917 - three fixtures, three expectations
    audited: AuditedLog, server: EmbeddedServer, damage_files: DamageFiles, kind: str, first_bad: int, missing: int
) -> None:
    await server.stop()
    damage_files(server.folder)
    await server.start()
    (damage,) = (await audited.auditor.verify()).damage
    assert (damage.where, damage.kind, damage.first_bad, damage.missing) == ("log", kind, first_bad, missing)
    assert (
        f"of {COMMITS} archived commits {missing} are missing and 0 changed, from commit {first_bad} on"
        in damage.detail
    )
    assert damage.since == await audited.archive.recorded_at(first_bad - 1)


async def test_a_log_with_other_commits_is_reported_as_damage_of_the_log(
    audited: AuditedLog, server: EmbeddedServer, tmp_path: Path
) -> None:
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "old_streams")
    await server.start()
    revisions = dict(audited._revisions)
    await audited.rename_dataset("ds_0", "name 21")
    await audited.rename_dataset("ds_1", "name 22")
    await audited.archive_all()
    await server.stop()
    shutil.rmtree(server.folder / "streams")
    shutil.copytree(tmp_path / "old_streams", server.folder / "streams")
    await server.start()
    audited._revisions = revisions
    await audited.rename_dataset("ds_0", "never appended before")

    (damage,) = (await audited.auditor.verify()).damage
    assert (damage.where, damage.kind, damage.first_bad) == ("log", "changed", 21)
    assert (damage.missing, damage.changed) == (1, 1)


async def test_a_second_concurrent_audit_is_refused(audited: AuditedLog) -> None:
    first = asyncio.create_task(audited.auditor.verify())
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="already"):
        await audited.auditor.verify()
    assert (await first).is_intact


# --- a long log


SHORT_START = VerificationPolicy(max_commits_at_start=5)


@pytest.mark.parametrize("policy", [SHORT_START, VerificationPolicy(max_bytes_at_start=1)], ids=["long", "large"])
async def test_a_long_log_is_compared_at_its_end_first_and_fully_by_periodic_verification(
    audited: AuditedLog, server: EmbeddedServer, policy: VerificationPolicy
) -> None:
    await server.stop()
    flip_bit_in_text(block_files(server.folder)[0], b"name 07")
    await server.start()
    reopened = Archive(audited.folder, policy)
    assert await reopened.verify_on_start(audited.log) == audited.archive.log_id
    with pytest.raises(LogDamaged, match="commit 7 is not in the log") as caught:
        async with asyncio.timeout(WAIT):
            await reopened.verify_periodically(audited.log)
    assert caught.value.extra["first_bad"] == 7
    await reopened.close()


async def test_a_large_archive_is_verified_after_the_start_and_before_anything_is_computed_from_it(
    audited: AuditedLog,
) -> None:
    change = "UPDATE entry SET body = replace(body, 'name', 'NAME') WHERE sequence = 7"
    execute_sql(audited.folder / ARCHIVE, change)
    for verify in (Archive.ensure_verified, partial(Archive.verify_periodically, log=audited.log)):
        reopened = Archive(audited.folder, VerificationPolicy(max_bytes_at_start=1))
        assert await reopened.verify_on_start(audited.log) == audited.archive.log_id
        with pytest.raises(LogDamaged, match="commit 7 of the archive: its hash differs"):
            await verify(reopened)
        await reopened.close()


async def test_a_long_log_with_another_end_is_compared_fully_at_start(
    audited: AuditedLog, server: EmbeddedServer
) -> None:
    await server.stop()
    flip_bit_in_text(block_files(server.folder)[0], b"name 07")
    delete_index(server.folder)
    await server.start()
    reopened = Archive(audited.folder, SHORT_START)
    with pytest.raises(LogDamaged, match=f"of {COMMITS} archived commits {COMMITS - 6} are missing"):
        await reopened.verify_on_start(audited.log)
    await reopened.close()


async def test_periodic_verification_of_an_intact_log_keeps_running(audited: AuditedLog) -> None:
    reopened = Archive(audited.folder, VerificationPolicy(max_commits_at_start=5, interval_seconds=0.001))
    await reopened.verify_on_start(audited.log)
    with capture_logs() as logs:
        running = asyncio.create_task(reopened.verify_periodically(audited.log))
        async with asyncio.timeout(WAIT):
            while len(logs) < 3:  # noqa: ASYNC110 - a background task logs
                await asyncio.sleep(0.01)
    assert not running.done()
    assert {(line["event"], line["commits"]) for line in logs} == {("log_compared", COMMITS)}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await reopened.close()


# --- heads


async def test_an_exported_head_matches_a_log_that_only_grew(audited: AuditedLog) -> None:
    head = await audited.auditor.head()
    assert (head.sequence, head.chain) == (COMMITS, audited.archive.tail.digest)
    await audited.rename_dataset("ds_0", "later")
    await audited.archive_all()
    assert await audited.damage(head) == []
    assert (await audited.auditor.head()).public_key == head.public_key


async def test_a_head_can_be_verified_from_its_json(audited: AuditedLog) -> None:
    head = msgspec.json.decode(msgspec.json.encode(await audited.auditor.head()), type=AuditHead)
    assert is_genuine(head)
    assert head.signed_bytes().decode().splitlines() == [
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
async def test_a_changed_head_is_detected(audited: AuditedLog, changes: dict[str, object]) -> None:
    head = msgspec.structs.replace(await audited.auditor.head(), **changes)
    assert await audited.damage(head) == [("head", "changed", head.sequence)]


async def test_a_head_shows_that_log_and_archive_were_rewritten_together(audited: AuditedLog, tmp_path: Path) -> None:
    head = await audited.auditor.head()
    rewritten = Archive(tmp_path / "rewritten")
    builder = LogBuilder()
    for number in range(COMMITS):
        builder.create_dataset(f"ds_{number}", "a rewritten name")
    await rewritten.append(builder.commits)
    auditor = Auditor(rewritten, audited.log, audited.keys)
    damage_found = [item for item in (await auditor.verify(head)).damage if item.where == "head"]
    assert [(item.kind, item.first_bad) for item in damage_found] == [("rewritten", COMMITS)]
    await rewritten.close()


async def test_a_head_shows_that_log_and_archive_were_truncated_together(audited: AuditedLog) -> None:
    head = await audited.auditor.head()
    execute_sql(audited.folder / "archive.db", "DELETE FROM entry WHERE sequence > 15")
    damage_found: list[Damage] = list((await audited.auditor.verify(head)).damage)
    assert [(item.where, item.kind, item.first_bad) for item in damage_found] == [("head", "missing", 16)]
