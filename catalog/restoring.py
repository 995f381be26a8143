"""Disaster recovery: first rebuild the archive from all copies there are, then a new log from the archive.

Where copies differ, the archive wins over a backup, and a backup over a damaged log. Nothing is deleted: a damaged
archive is renamed, and the caller of `refill` must have moved the damaged log away.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.appending import append_event, append_root, build_root_commit
from catalog.archive.archive import DEFAULT_POLICY, Archive, VerificationPolicy, open_archive
from catalog.archive.file import LOG_ID_FILE
from catalog.archive.rows import ARCHIVE
from catalog.backups.extraction import refuse_newer_files
from catalog.backups.manifest import CURVES
from catalog.database import SUFFIXES, Connection, copy_database, peek, remove_database
from catalog.entries import last_sequence, lineage
from catalog.key_file import KeysDamaged, log_ids, open_keys
from catalog.keys import KEYS
from catalog.root_keys import begin_archive, id_on_server
from catalog.rows import EPOCH, MICROSECOND
from catalog.service_keys import check_root
from catalog.store import checkpoint, rename_log
from contracts import subjects
from contracts.commits import RecordedCommit, StreamRevision, encode_commit
from contracts.errors import LogDamaged, LoratoryError, SetupError
from contracts.events.log import LogRestored, LogVoided
from contracts.ids import ulid
from contracts.log_message import LogMessage
from contracts.signatures import Signer, SigningKey
from contracts.telemetry import LossBlock
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.log.recreate import readable_messages, recreate_metrics_stream, recreate_stream, restore_entries
from contracts.wire.log.scan import log_state
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import store_loss_block
from contracts.wire.system.files import move_into_place

COMMIT_BATCH_SIZE = 500
PROGRESS_INTERVAL_COMMITS = 50_000
"""Commits restored between two progress messages."""

NOTHING_LEFT = (
    "there is nothing here to restore from: log and archive are both lost; give a backup with --from. Without one, "
    "history, tags and names cannot be brought back: `loratory up --data FOLDER` with a new folder starts a new "
    "workshop, into which the pictures among the files in `blobs` can be imported"
)

OnProgress = Callable[[str], None]


class CommitsLost(LoratoryError):
    """Some commits are in none of the copies."""

    code = "commits-lost"


@dataclass(frozen=True)
class RestoredLog:
    """A recreated log: its id, the last restored sequence, and how many of the restored commits are void."""

    log_id: str
    sequence: int
    voided: int


async def catch_up(bus: Bus, folder: Path, policy: VerificationPolicy = DEFAULT_POLICY) -> int:
    """Archive the log's commits that are not archived yet; returns the last sequence. The catalog must be stopped.

    LogDamaged if the log is not the archived one.
    """
    log = EventLog(bus)
    async with Archive(folder, policy) as archive:
        await archive.verify_on_start(log)
        _, end = await log.end()
        await begin_archive(bus, archive, [folder / KEYS])
        if archive.tail.sequence < end:
            async with aclosing(Follower(bus, archive.tail.sequence).batches()) as batches:
                async for batch in batches:
                    await archive.receive(batch)
                    if archive.tail.sequence >= end:
                        break
        return archive.tail.sequence


async def salvage(  # noqa: PLR0913 - the copies and the options
    bus: Bus, folder: Path, *, at: datetime, report: OnProgress, backup: Path | None = None, accept_loss: bool = False
) -> int:
    """Complete the archive in `folder` with every commit that any copy has; returns its last sequence.

    CommitsLost: a commit is in no copy; with `accept_loss` a void commit replaces each of them. SetupError: the backup
    is of another log, or a newer version wrote it. LogDamaged: the backup is damaged.
    """
    if backup is not None:
        refuse_newer_files(backup / ARCHIVE, backup / KEYS)
    known_ids = await asyncio.to_thread(_known_log_ids, folder) | await id_on_server(bus)
    claimed = await asyncio.to_thread(_highest_known_sequence, folder, known_ids)
    target = folder if await _has_valid_archive(folder, known_ids) else folder / "rebuilt"
    if target != folder:
        await asyncio.to_thread(_start_rebuild, target, backup)
    async with Archive(target) as archive:
        if backup is not None:
            await archive.begin()
            await _append_from_backup(archive, backup)
        root = await begin_archive(bus, archive, [file / KEYS for file in (folder, backup) if file is not None])
        messages = _read_log_beyond_archive(bus, archive, report)
        last = await archive.read(last_sequence)
        if last == 0 and not await id_on_server(bus):
            raise SetupError(NOTHING_LEFT)
        voiding = _Voiding(at, archive, root, accept_loss)
        await _receive_in_batches(archive, _fill_gaps(messages, last, claimed, voiding))
        last = await archive.read(last_sequence)
    if last == 0:
        raise SetupError(NOTHING_LEFT)
    if target != folder:
        await asyncio.to_thread(_replace_damaged_archive, target, folder, at, report)
    return last


async def refill(bus: Bus, folder: Path, *, at: datetime, report: OnProgress) -> RestoredLog:
    """Recreate the log from the archive, every commit at its old sequence, then append `log.restored`.

    Conflict: the server still holds a log. If this fails midway, move the incomplete log away and start over.
    KeysDamaged: the keys are lost, and with them the root key that signs `log.restored`; restore them first.
    """
    async with AsyncExitStack() as stack:
        archive = await stack.enter_async_context(open_archive(folder))
        last = (await archive.verify()).sequence
        if last == 0:
            raise SetupError("the archive is empty: there is nothing to make a log from")
        previous_id, log_id = await archive.belongs_to(), ulid()
        ids = await archive.read(lineage)
        keys = await stack.enter_async_context(await open_keys(folder, ids, log_id, required=last > 1))
        await check_root(archive, keys, EventLog(bus))
        await recreate_stream(bus, log_id)
        voided = await _restore_all_commits(bus, archive, report)
        restored = LogRestored(log_id=log_id, before=previous_id, voided=voided)
        log, root = EventLog(bus), await keys.root_key()
        if archive.trust.root not in {"", root.id}:  # the lost one was given up, and the log does not say so yet
            log.signer = Signer(root, previous_id)
            await append_root(log, archive, root, at)
        log.signer = Signer(root, log_id)
        await append_event(log, archive, ("log", log_id), restored, at)
        await archive.set_log_id(log_id)
        rows = await asyncio.to_thread(peek, folder / "read.db", checkpoint)
        if rows and rows.sequence and await archive.digest_at(rows.sequence) == rows.digest:
            await asyncio.to_thread(rename_log, folder / "read.db", log_id)
    return RestoredLog(log_id, last, voided)


async def restore_loss_curves(bus: Bus, folder: Path) -> None:
    """Publish the loss curves that a backup left in `folder` to their stream; deletes the file. Needs user `admin`."""
    file = folder / CURVES
    if not file.exists():
        return
    await recreate_metrics_stream(bus)
    with file.open("rb") as lines:
        for line in lines:
            await store_loss_block(bus, msgspec.json.decode(line, type=LossBlock))
    file.unlink()


async def _restore_all_commits(bus: Bus, archive: Archive, report: OnProgress) -> int:
    """Put every archived commit into the log; returns how many of them are void."""
    last, voided = 0, 0
    while batch := await archive.entries(last, COMMIT_BATCH_SIZE):
        await restore_entries(bus, batch)
        commits = [entry.commit for entry in batch if isinstance(entry, RecordedCommit)]
        voided += sum(isinstance(event, LogVoided) for commit in commits for event in commit.events)
        if last // PROGRESS_INTERVAL_COMMITS != batch[-1].sequence // PROGRESS_INTERVAL_COMMITS:
            report(f"{batch[-1].sequence} commits restored")
        last = batch[-1].sequence
    return voided


# --- reading the copies


async def _has_valid_archive(folder: Path, known_ids: AbstractSet[str]) -> bool:
    """Whether there is an archive whose chains are intact, and of this workshop."""
    if not (folder / ARCHIVE).exists():
        return False
    try:
        async with open_archive(folder) as archive:
            await archive.verify()
            return await archive.read(lambda connection: _is_own(connection, known_ids))
    except LogDamaged:
        return False


def _known_log_ids(folder: Path) -> frozenset[str]:
    """The ids of the log according to the files beside the archive."""
    noted = folder / LOG_ID_FILE
    noted_id = noted.read_text(encoding="utf-8", errors="replace").strip() if noted.exists() else ""
    return (peek(folder / KEYS, log_ids) or frozenset()) | ({noted_id} if noted_id else frozenset())


def _is_own(connection: Connection, known_ids: AbstractSet[str]) -> bool:
    """Whether an archive is of the workshop whose other files name these logs. An empty one is."""
    found = lineage(connection)
    return not found or not known_ids or bool(found & known_ids)


def _highest_known_sequence(folder: Path, known_ids: AbstractSet[str]) -> int:
    """The highest sequence in the archive or the read model: all commits up to it were acknowledged."""
    is_own = peek(folder / ARCHIVE, lambda connection: _is_own(connection, known_ids))
    archived = peek(folder / ARCHIVE, last_sequence) if is_own is not False else 0
    shown = peek(folder / "read.db", checkpoint)
    is_shown = shown is not None and (not known_ids or shown.log_id in known_ids)
    return max(archived or 0, shown.sequence if shown and is_shown else 0)


def _start_rebuild(target: Path, backup: Path | None) -> None:
    target.mkdir(exist_ok=True)
    remove_database(target / ARCHIVE)
    if backup is not None:
        copy_database(backup / ARCHIVE, target / ARCHIVE)


async def _append_from_backup(archive: Archive, backup: Path) -> None:
    """Append the backup's commits that the archive lacks."""
    async with open_archive(backup) as copied:
        theirs = (await copied.verify()).sequence
        last = await archive.read(last_sequence)
        common = min(last, theirs)
        if await archive.digest_at(common) != await copied.digest_at(common):
            raise SetupError(f"the backup in {backup} is of another log")
        while batch := await copied.entries(last, COMMIT_BATCH_SIZE):
            await archive.append(batch)
            last = batch[-1].sequence
        if not await archive.belongs_to():
            await archive.set_log_id(await copied.belongs_to())


async def _read_log_beyond_archive(bus: Bus, archive: Archive, report: OnProgress) -> AsyncIterator[LogMessage]:
    """The damaged log's messages that the archive lacks, if the two agree up to there."""
    log, last = EventLog(bus), await archive.read(last_sequence)
    try:
        state = await log_state(bus)
    except LogDamaged:
        report("there is no log on the server")
        return
    if not await _log_agrees_with_archive(log, archive, min(last, state.last)):
        report("the log differs from the archive; nothing is restored from the log")
        return
    if not await archive.belongs_to():
        await archive.set_log_id(state.log_id)
    async for message in readable_messages(bus, last):
        yield message


async def _log_agrees_with_archive(log: EventLog, archive: Archive, common: int) -> bool:
    """Whether the last commit that both have readable is the same; True if no common commit is readable."""
    for sequence in range(common, 0, -1):
        message = await log.message_at(sequence)
        if message is not None:
            return (await archive.entries(sequence - 1, 1))[0].body == message.body
    return True


@dataclass(frozen=True)
class _Voiding:
    """Replaces lost commits by void ones, signed with the root key."""

    at: datetime
    archive: Archive
    root: SigningKey | None
    accept_loss: bool

    def message(self, sequence: int, recorded_us: int) -> LogMessage:
        """CommitsLost: the loss is not accepted. KeysDamaged: there is no root key."""
        if not self.accept_loss:
            raise CommitsLost(
                f"commit {sequence} is in no copy; give a backup that has it (--from), or replace all lost commits "
                "with void ones (--accept-loss)",
                first_lost=sequence,
            )
        if self.root is None:
            raise KeysDamaged("the key file is lost, whose root key signs the void commits", where="all keys")
        event = LogVoided(reason="no copy had this commit when the log was restored")
        commit = build_root_commit(("log", f"void-{sequence}"), event, self.at, StreamRevision())
        subject, body = subjects.aggregate("log", commit.aggregate_id), encode_commit(commit)
        signature = Signer(self.root, self.archive.trust.log_id).sign(subject, body)
        return LogMessage(sequence, recorded_us, subject, body, signature)


async def _fill_gaps(
    messages: AsyncIterator[LogMessage], last: int, until: int, voiding: _Voiding
) -> AsyncIterator[LogMessage]:
    """Every sequence after `last` once, at least up to `until`, with void commits in the gaps.

    A void commit has the time of the commit before it, because times in a log never decrease. CommitsLost: there is a
    gap, and the loss is not accepted.
    """
    recorded_us = (voiding.at - EPOCH) // MICROSECOND
    async for message in messages:
        for missing in range(last + 1, message.sequence):
            yield voiding.message(missing, min(recorded_us, message.recorded_us))
        yield message
        last, recorded_us = message.sequence, message.recorded_us
    for missing in range(last + 1, until + 1):
        yield voiding.message(missing, recorded_us)


async def _receive_in_batches(archive: Archive, messages: AsyncIterator[LogMessage]) -> None:
    batch: list[LogMessage] = []
    async for message in messages:
        batch.append(message)
        if len(batch) == COMMIT_BATCH_SIZE:
            await archive.receive(batch)
            batch = []
    await archive.receive(batch)


def _replace_damaged_archive(target: Path, folder: Path, at: datetime, report: OnProgress) -> None:
    """Replace the damaged archive with the rebuilt one; the damaged one is kept under another name."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    for suffix in SUFFIXES:
        damaged = folder / f"{ARCHIVE}{suffix}"
        if damaged.exists():
            damaged.replace(folder / f"damaged-{stamp}-{ARCHIVE}{suffix}")
    move_into_place(target / ARCHIVE, folder / ARCHIVE)
    report(f"the archive was rebuilt; the damaged one is kept as damaged-{stamp}-{ARCHIVE} in {folder}")
