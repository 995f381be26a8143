"""Making good what was lost: first the archive from all copies there are, then a new log from the archive.

What was archived is believed before what a backup says, and that before what a damaged log says. Nothing is removed: a
damaged archive is renamed, and the damaged log must have been put away by who calls `refill`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.archive import Archive
from catalog.backups import ARCHIVE, CURVES, KEYS, opened
from catalog.database import SUFFIXES, copy, peek, remove
from catalog.entries import last_sequence
from catalog.store import checkpoint, rename_log
from contracts.commands import Origin
from contracts.errors import LogDamaged, LoratoryError, SetupError
from contracts.events import LogRestored, LogVoided, Stored
from contracts.ids import new_command_id, ulid
from contracts.telemetry import LossBlock
from contracts.wire.bus import Bus
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog, Head, decode, draw_up
from contracts.wire.refill import make_anew, make_metrics, put_back, survivors
from contracts.wire.scan import log_state
from contracts.wire.telling import keep_losses

AT_ONCE = 500
NEWS_EVERY = 50_000
"""Commits put back between two lines for who waits."""
ACTOR = "svc:restore"

Say = Callable[[str], None]


class Lost(LoratoryError):
    """Some commits are in no copy."""

    code = "commits-lost"


@dataclass(frozen=True)
class Restored:
    """A log that was made anew: its id, the last sequence that was put back, and how many of those are voids."""

    log_id: str
    sequence: int
    voided: int


async def catch_up(bus: Bus, folder: Path, *, whole: bool = False) -> int:
    """Archive what the log holds beyond the archive; the last sequence. For a catalog that is stopped.

    LogDamaged where the log is not the one that was archived; `whole`: every commit is compared, also of a long log.
    """
    archive = Archive(folder)
    try:
        log = EventLog(bus)
        await archive.judge(log, whole=whole)
        _, end = await log.end()
        if archive.tail.sequence < end:
            async with aclosing(Follower(bus, archive.tail.sequence).batches()) as batches:
                async for batch in batches:
                    await archive.append(batch)
                    if archive.tail.sequence >= end:
                        break
        return archive.tail.sequence
    finally:
        await archive.close()


async def salvage(  # noqa: PLR0913 - what there is to restore from, and what is wanted
    bus: Bus, folder: Path, *, at: datetime, say: Say, backup: Path | None = None, accept_loss: bool = False
) -> int:
    """Make the archive in `folder` hold every commit that any copy has; its last sequence.

    Lost: a commit is in none; with `accept_loss` a void commit takes the place of each. SetupError: the backup is of
    another log. LogDamaged: it is not whole.
    """
    claimed = await asyncio.to_thread(_claimed, folder)
    place = folder if await _whole(folder) else folder / "rebuilt"
    if place != folder:
        await asyncio.to_thread(_begin_anew, place, backup)
    archive = Archive(place)
    try:
        if backup is not None:
            await _take_backup(archive, backup)
        found = _of_log(bus, archive, say)
        await _add(archive, _gapless(found, await archive.read(last_sequence), claimed, _Void(at, accept_loss)))
        last = await archive.read(last_sequence)
        if last == 0:
            raise SetupError("there is nothing here to restore from; give a backup with --from")
    finally:
        await archive.close()
    if place != folder:
        await asyncio.to_thread(_swap_in, place, folder, at, say)
    if backup is not None and not (folder / KEYS).exists() and (backup / KEYS).exists():
        await asyncio.to_thread(copy, backup / KEYS, folder / KEYS)
        say("the keys were gone; they are the backup's now")
    return last


async def refill(bus: Bus, folder: Path, *, at: datetime, say: Say) -> Restored:
    """Make the log anew from the archive, each commit at its sequence, and say so in it (`log.restored`).

    Conflict where the server still holds a log. When it fails in between, put that log away and begin again.
    """
    async with opened(folder) as archive:
        last = (await archive.verify()).sequence
        if last == 0:
            raise SetupError("the archive is empty: there is nothing to make a log from")
        before, log_id = await archive.belongs_to(), ulid()
        await make_anew(bus, log_id)
        voided = await _put_all_back(bus, archive, say)
        await _tell_restored(bus, archive, LogRestored(log_id=log_id, before=before, voided=voided), at)
        await archive.rename(log_id)
        rows = await asyncio.to_thread(peek, folder / "read.db", checkpoint)
        if rows and rows.sequence and await archive.digest_at(rows.sequence) == rows.digest:
            await asyncio.to_thread(rename_log, folder / "read.db", log_id)
    return Restored(log_id, last, voided)


async def put_curves_back(bus: Bus, folder: Path) -> None:
    """The loss curves that a backup left in `folder`, into their stream; the file is removed. For `admin`."""
    file = folder / CURVES
    if not file.exists():
        return
    await make_metrics(bus)
    with file.open("rb") as lines:
        for line in lines:
            await keep_losses(bus, msgspec.json.decode(line, type=LossBlock))
    file.unlink()


async def _put_all_back(bus: Bus, archive: Archive, say: Say) -> int:
    """How many of them are voids."""
    after, voided = 0, 0
    while batch := await archive.commits(after, AT_ONCE):
        await put_back(bus, batch)
        voided += sum(isinstance(fact, LogVoided) for stored in batch for fact in stored.commit.facts)
        if after // NEWS_EVERY != batch[-1].sequence // NEWS_EVERY:
            say(f"{batch[-1].sequence} commits put back")
        after = batch[-1].sequence
    return voided


async def _tell_restored(bus: Bus, archive: Archive, fact: LogRestored, at: datetime) -> None:
    origin = Origin(command=new_command_id(), actor=ACTOR, at=at)
    log = EventLog(bus)
    told = await log.append(draw_up("log", fact.log_id, [fact], after=Head(), origin=origin), Head())
    stored = await log.stored(told.sequence)  # with the server's own time
    await archive.append([stored or told])


# --- the copies there are


async def _whole(folder: Path) -> bool:
    """Is there an archive whose chain holds?"""
    if not (folder / ARCHIVE).exists():
        return False
    try:
        async with opened(folder) as archive:
            await archive.verify()
    except LogDamaged:
        return False
    return True


def _claimed(folder: Path) -> int:
    """The highest sequence that anything here speaks of: what came before it was acknowledged."""
    archived = peek(folder / ARCHIVE, last_sequence)
    shown = peek(folder / "read.db", checkpoint)
    return max(archived or 0, shown.sequence if shown else 0)


def _begin_anew(place: Path, backup: Path | None) -> None:
    place.mkdir(exist_ok=True)
    remove(place / ARCHIVE)
    if backup is not None:
        copy(backup / ARCHIVE, place / ARCHIVE)


async def _take_backup(archive: Archive, backup: Path) -> None:
    """What the backup has beyond the archive."""
    async with opened(backup) as copied:
        theirs = (await copied.verify()).sequence
        after = await archive.read(last_sequence)
        common = min(after, theirs)
        if await archive.digest_at(common) != await copied.digest_at(common):
            raise SetupError(f"the backup in {backup} is of another log")
        while batch := await copied.commits(after, AT_ONCE):
            await archive.append(batch)
            after = batch[-1].sequence
        if not await archive.belongs_to():
            await archive.rename(await copied.belongs_to())


async def _of_log(bus: Bus, archive: Archive, say: Say) -> AsyncIterator[Stored]:
    """What the damaged log has beyond the archive, if it tells the same story up to there."""
    log, after = EventLog(bus), await archive.read(last_sequence)
    try:
        state = await log_state(bus)
    except LogDamaged:
        say("there is no log on the server")
        return
    if not await _agree(log, archive, min(after, state.last)):
        say("the log tells another story than the archive; what it says where they differ is not taken")
        return
    if not await archive.belongs_to():
        await archive.rename(state.log_id)
    async for stored in survivors(bus, after):
        yield stored


async def _agree(log: EventLog, archive: Archive, common: int) -> bool:
    """Does the last commit that both can read say the same? Where damage took all, nothing speaks against it."""
    for sequence in range(common, 0, -1):
        try:
            stored = await log.stored(sequence)
        except LogDamaged:
            continue
        if stored is not None:
            return (await archive.commits(sequence - 1, 1))[0].body == stored.body
    return True


@dataclass(frozen=True)
class _Void:
    """What takes the place of a lost commit, if that is wanted."""

    at: datetime
    wanted: bool

    def __call__(self, sequence: int, recorded: datetime) -> Stored:
        if not self.wanted:
            raise Lost(
                f"commit {sequence} is in no copy; give a backup that has it (--from), or have void commits put in the "
                "place of all that is lost (--accept-loss)",
                first_lost=sequence,
            )
        origin = Origin(command=new_command_id(), actor=ACTOR, at=self.at)
        fact = LogVoided(reason="no copy had this commit when the log was restored")
        commit = draw_up("log", f"void-{sequence}", [fact], after=Head(), origin=origin)
        return decode(sequence, recorded, msgspec.json.encode(commit))


async def _gapless(found: AsyncIterator[Stored], after: int, until: int, void: _Void) -> AsyncIterator[Stored]:
    """Each sequence once, up to `until` at least. A void has the time of the commit before it: times rise in a log."""
    recorded = void.at
    async for stored in found:
        for missing in range(after + 1, stored.sequence):
            yield void(missing, min(recorded, stored.recorded))
        yield stored
        after, recorded = stored.sequence, stored.recorded
    for missing in range(after + 1, until + 1):
        yield void(missing, recorded)


async def _add(archive: Archive, commits: AsyncIterator[Stored]) -> None:
    batch: list[Stored] = []
    async for stored in commits:
        batch.append(stored)
        if len(batch) == AT_ONCE:
            await archive.append(batch)
            batch = []
    await archive.append(batch)


def _swap_in(place: Path, folder: Path, at: datetime, say: Say) -> None:
    """The rebuilt archive takes the place of the damaged one, which is kept under another name."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    for suffix in SUFFIXES:
        damaged = folder / f"{ARCHIVE}{suffix}"
        if damaged.exists():
            damaged.replace(folder / f"damaged-{stamp}-{ARCHIVE}{suffix}")
    (place / ARCHIVE).replace(folder / ARCHIVE)
    say(f"the archive was made anew; the damaged one is kept as damaged-{stamp}-{ARCHIVE} in {folder}")
