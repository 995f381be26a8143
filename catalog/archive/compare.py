"""Compares the log with the archive, commit by commit: which commits are missing from it, which were changed?"""

from dataclasses import dataclass

import msgspec

from catalog.archive.chain import Tail, chain_hash
from catalog.archive.file import ArchiveFile
from catalog.archive.rows import StoredRow
from contracts import subjects
from contracts.audit import Damage, DamageKind
from contracts.errors import LogDamaged
from contracts.log_message import LogMessage
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.scan import log_state, scan

TIME_TOLERANCE_MICROSECONDS = 2
"""The server records nanoseconds, and they are rounded on their way to the archive."""
REPAIR_ADVICE = "; a restore puts them back"


@dataclass(frozen=True)
class Comparison:
    """How many archived commits were compared with the log's, and the damage found on either side."""

    compared: int = 0
    damage: tuple[Damage, ...] = ()


@dataclass
class _Differences:
    """The differences found up to sequence `at`. For `first_bad` and `wrong_time`, 0 means none."""

    at: int = 0
    chain: bytes = b""
    first_bad: int = 0
    kind: DamageKind = "missing"
    missing: int = 0
    changed: int = 0
    wrong_time: int = 0

    def advance_to(self, sequence: int) -> None:
        """Go on to the next commit in the log; sequences skipped on the way are missing."""
        gap = sequence - self.at - 1
        if gap and not self.first_bad:
            self.first_bad, self.kind = self.at + 1, "missing"
        self.missing += gap
        self.at = sequence

    def compare(self, message: LogMessage, entry: StoredRow | None, *, timed: bool) -> None:
        """Compare one commit; where they differ, the archived chain hash decides which side was changed."""
        self.advance_to(message.sequence)
        if entry is None:
            self.chain = b""
            return
        subject = subjects.aggregate(entry.aggregate_kind, entry.aggregate_id)
        stored = (entry.body, subject, entry.signature)
        if (message.body, message.subject, message.signature) == stored:
            if timed and abs(message.recorded_us - entry.recorded) > TIME_TOLERANCE_MICROSECONDS:
                self.wrong_time = self.wrong_time or message.sequence
        elif entry.chain != chain_hash(self.chain, message.sequence, message.subject, message.signature, message.body):
            if not self.first_bad:
                self.first_bad, self.kind = message.sequence, "changed"
            self.changed += 1
        self.chain = entry.chain


async def compare(file: ArchiveFile, log: EventLog, tail: Tail, *, bits: int | None = None) -> Comparison:
    """Compare all commits up to `tail`, at most `bits` bits per second. Unavailable: the log does not respond."""
    differences = _Differences()
    try:
        state = await log_state(log.bus)
    except LogDamaged as error:
        differences.advance_to(tail.sequence + 1)
        missing = _log_damage(tail, differences, summary=error.detail, kind="missing")
        return Comparison(0, (await with_last_good_time(file, missing),))
    restored = await file.restored_up_to()
    async for batch in scan(log.bus, 0, min(state.last, tail.sequence), bits_per_second=bits):
        entries = await file.rows(batch[0].sequence - 1, batch[-1].sequence)
        for message in batch:
            differences.compare(message, entries.get(message.sequence), timed=message.sequence > restored)
    compared = differences.at
    differences.advance_to(tail.sequence + 1)
    damage: list[Damage] = []
    archived_log_id = await file.belongs_to()
    if archived_log_id not in {"", state.log_id}:
        found_id = state.log_id or "without an id"
        summary = f"this server holds the log {found_id}, but the archive was made from {archived_log_id}"
        damage.append(_log_damage(tail, differences, summary=summary, kind="replaced"))
    elif differences.first_bad:
        problem = "is not in the log" if differences.kind == "missing" else "of the log was changed"
        summary = f"commit {differences.first_bad} {problem}"
        damage.append(_log_damage(tail, differences, summary=summary, kind=differences.kind))
    if differences.wrong_time:
        summary = f"commit {differences.wrong_time} has another time in the archive than in the log"
        damage.append(Damage(where="archive", kind="changed", first_bad=differences.wrong_time, detail=summary))
    return Comparison(compared, tuple([await with_last_good_time(file, one) for one in damage]))


async def ends_agree(file: ArchiveFile, log: EventLog, tail: Tail) -> bool:
    """Quick check: is it the same log, without gaps known to its server, with the same commit at the archive's end?"""
    try:
        state = await log_state(log.bus)
    except LogDamaged:
        return False
    if state.log_id != await file.belongs_to() or not state.is_dense or state.last < tail.sequence:
        return False
    entries = await file.rows(tail.sequence - 1, tail.sequence)
    last = [message async for batch in scan(log.bus, tail.sequence - 1, tail.sequence) for message in batch]
    return bool(last) and (last[0].body, last[0].signature) == (
        entries[tail.sequence].body,
        entries[tail.sequence].signature,
    )


async def with_last_good_time(file: ArchiveFile, damage: Damage) -> Damage:
    """Add the time of the last good commit to the damage, unless it has one or the time is unknown."""
    if damage.since is not None:
        return damage
    since = await file.recorded_at(damage.first_bad - 1)
    if since is None:
        return damage
    last = f"; the last good one is commit {damage.first_bad - 1} of {since:%Y-%m-%d %H:%M:%S} UTC"
    return msgspec.structs.replace(damage, since=since, detail=damage.detail + last)


def _log_damage(tail: Tail, differences: _Differences, *, summary: str, kind: DamageKind) -> Damage:
    first_bad = differences.first_bad or tail.sequence + 1
    counted = f"{differences.missing} are missing and {differences.changed} changed, from commit {first_bad} on"
    return Damage(
        where="log",
        kind=kind,
        first_bad=first_bad,
        missing=differences.missing,
        changed=differences.changed,
        detail=f"{summary}: of {tail.sequence} archived commits {counted}{REPAIR_ADVICE}",
    )
