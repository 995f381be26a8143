"""Disaster recovery: first rebuild the archive from all copies there are, then a new log from the archive.

Where copies differ, the archive wins over a backup, and a backup over a damaged log. Nothing is deleted: a damaged
archive is renamed, and the caller of `refill` must have moved the damaged log away.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.archive.archive import DEFAULT_POLICY, Archive, VerificationPolicy, open_archive
from catalog.archive.rows import ARCHIVE
from catalog.backups.extraction import refuse_newer_files
from catalog.backups.manifest import CURVES
from catalog.database import SUFFIXES, copy_database, peek, remove_database
from catalog.entries import last_sequence
from catalog.keys import KEYS, Keys
from catalog.rows import EPOCH, MICROSECOND
from catalog.service_keys import check_root
from catalog.store import checkpoint, rename_log
from contracts import subjects
from contracts.commands.base import CommandMetadata
from contracts.commits import Commit, RecordedCommit, StreamRevision, build_commit, encode_commit
from contracts.errors import LogDamaged, LoratoryError, SetupError
from contracts.events.log import LogRestored, LogVoided
from contracts.ids import new_command_id, ulid
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
ACTOR = "svc:restore"

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
        await _begin(archive, folder, end)
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
    claimed = await asyncio.to_thread(_highest_known_sequence, folder)
    target = folder if await _has_valid_archive(folder) else folder / "rebuilt"
    if target != folder:
        await asyncio.to_thread(_start_rebuild, target, backup)
    root = await _root_key(folder, backup)
    async with Archive(target) as archive:
        await archive.begin(b"" if root is None else root.public)
        if backup is not None:
            await _append_from_backup(archive, backup)
        messages = _read_log_beyond_archive(bus, archive, report)
        last = await archive.read(last_sequence)
        voiding = _Voiding(at, archive, root, accept_loss)
        await _receive_in_batches(archive, _fill_gaps(messages, last, claimed, voiding))
        last = await archive.read(last_sequence)
    if last == 0:
        raise SetupError("there is nothing here to restore from; give a backup with --from")
    if target != folder:
        await asyncio.to_thread(_replace_damaged_archive, target, folder, at, report)
    if backup is not None and not (folder / KEYS).exists() and (backup / KEYS).exists():
        await asyncio.to_thread(copy_database, backup / KEYS, folder / KEYS)
        report("the keys were missing; they were restored from the backup")
    return last


async def refill(bus: Bus, folder: Path, *, at: datetime, report: OnProgress) -> RestoredLog:
    """Recreate the log from the archive, every commit at its old sequence, then append `log.restored`.

    Conflict: the server still holds a log. If this fails midway, move the incomplete log away and start over.
    """
    async with open_archive(folder) as archive, await Keys.open(folder / KEYS) as keys:
        last = (await archive.verify()).sequence
        if last == 0:
            raise SetupError("the archive is empty: there is nothing to make a log from")
        await check_root(archive, keys)
        previous_id, log_id = await archive.belongs_to(), ulid()
        await recreate_stream(bus, log_id)
        voided = await _restore_all_commits(bus, archive, report)
        restored = LogRestored(log_id=log_id, before=previous_id, voided=voided)
        await _append_log_restored(bus, archive, restored, at, Signer(await keys.root_key(), log_id))
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


async def _append_log_restored(bus: Bus, archive: Archive, event: LogRestored, at: datetime, signer: Signer) -> None:
    log = EventLog(bus)
    log.signer = signer
    appended = await log.append(_build_commit(event.log_id, event, at), StreamRevision())
    recorded = await log.commit_at(appended.sequence)  # with the server's time
    await archive.append([recorded or appended])


def _build_commit(aggregate_id: str, event: LogRestored | LogVoided, at: datetime) -> Commit:
    metadata = CommandMetadata(command_id=new_command_id(), actor=ACTOR, at=at)
    return build_commit("log", aggregate_id, [event], expected_revision=StreamRevision(), metadata=metadata)


# --- reading the copies


async def _has_valid_archive(folder: Path) -> bool:
    """Whether there is an archive whose chains are intact."""
    if not (folder / ARCHIVE).exists():
        return False
    try:
        async with open_archive(folder) as archive:
            await archive.verify()
    except LogDamaged:
        return False
    return True


def _highest_known_sequence(folder: Path) -> int:
    """The highest sequence in the archive or the read model: all commits up to it were acknowledged."""
    archived = peek(folder / ARCHIVE, last_sequence)
    shown = peek(folder / "read.db", checkpoint)
    return max(archived or 0, shown.sequence if shown else 0)


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
        """CommitsLost: the loss is not accepted. SetupError: there is no root key."""
        if not self.accept_loss:
            raise CommitsLost(
                f"commit {sequence} is in no copy; give a backup that has it (--from), or replace all lost commits "
                "with void ones (--accept-loss)",
                first_lost=sequence,
            )
        if self.root is None:
            raise SetupError("keys.db is missing, whose root key signs the void commits; restore it from a backup")
        event = LogVoided(reason="no copy had this commit when the log was restored")
        commit = _build_commit(f"void-{sequence}", event, self.at)
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


async def _begin(archive: Archive, folder: Path, end: int) -> None:
    """Without `keys.db` the root key is the one that the archive names. SetupError: there is neither, but a log."""
    if (folder / KEYS).exists():
        async with await Keys.open(folder / KEYS) as keys:
            await check_root(archive, keys)
        return
    await archive.begin()
    if not archive.trust.root and end > 1:
        raise SetupError(
            f"{folder / KEYS} is missing, whose root key says who may write to the log; "
            "`loratory restore --from BACKUP` brings it back"
        )


async def _root_key(folder: Path, backup: Path | None) -> SigningKey | None:
    """The root key in `keys.db`, or in the backup's where that is missing."""
    for file in (folder / KEYS, *([backup / KEYS] if backup else [])):
        if file.exists():
            async with await Keys.open(file) as keys:
                return await keys.root_key()
    return None


def _replace_damaged_archive(target: Path, folder: Path, at: datetime, report: OnProgress) -> None:
    """Replace the damaged archive with the rebuilt one; the damaged one is kept under another name."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    for suffix in SUFFIXES:
        damaged = folder / f"{ARCHIVE}{suffix}"
        if damaged.exists():
            damaged.replace(folder / f"damaged-{stamp}-{ARCHIVE}{suffix}")
    move_into_place(target / ARCHIVE, folder / ARCHIVE)
    report(f"the archive was rebuilt; the damaged one is kept as damaged-{stamp}-{ARCHIVE} in {folder}")
