"""The log laid beside the archive, commit by commit: what does it lack, what has it otherwise?"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from catalog.archive.chain import Tail, link
from catalog.archive.file import ArchiveFile, Entry
from contracts import subjects
from contracts.audit import Damage, Kind
from contracts.errors import LogDamaged
from contracts.wire.log import EventLog
from contracts.wire.scan import Message, log_state, scan

SAME_TIME = 2
"""Microseconds. The server tells nanoseconds, and they reach the archive rounded."""
CURE = "; `loratory restore` puts them back"


@dataclass(frozen=True)
class Comparison:
    """How many archived commits were laid beside the log's, and the damage found on either side."""

    compared: int = 0
    damage: tuple[Damage, ...] = ()


@dataclass
class _Findings:
    """What was found up to a place. A sequence of 0 is none."""

    at: int = 0
    chain: bytes = b""
    first: int = 0
    kind: Kind = "missing"
    missing: int = 0
    changed: int = 0
    other_time: int = 0

    def come_to(self, sequence: int) -> None:
        """Here is the next commit; what would lie between is missing."""
        lost = sequence - self.at - 1
        if lost and not self.first:
            self.first, self.kind = self.at + 1, "missing"
        self.missing += lost
        self.at = sequence

    def look(self, message: Message, entry: Entry | None, *, timed: bool) -> None:
        """Where they differ, the archived hash tells which of the two was changed."""
        self.come_to(message.sequence)
        if entry is None:
            self.chain = b""
            return
        subject = subjects.fact(entry.kind, entry.thing)  # type: ignore[arg-type]  # as it stands there
        if message.body == entry.body and message.subject == subject:
            if timed and abs(message.recorded - entry.recorded) > SAME_TIME:
                self.other_time = self.other_time or message.sequence
        elif entry.chain != link(self.chain, message.sequence, message.subject, message.body):
            if not self.first:
                self.first, self.kind = message.sequence, "changed"
            self.changed += 1
        self.chain = entry.chain


async def compare(file: ArchiveFile, log: EventLog, tail: Tail, *, bits: int | None = None) -> Comparison:
    """All commits up to where the archive ends; `bits` a second at most. Unavailable when the log does not answer."""
    found = _Findings()
    try:
        state = await log_state(log.bus)
    except LogDamaged as error:
        found.come_to(tail.sequence + 1)
        return Comparison(0, (await dated(file, _of_log(tail, found, what=error.detail, kind="missing")),))
    restored = await file.restored_up_to()
    async for batch in scan(log.bus, 0, min(state.last, tail.sequence), bits=bits):
        entries = await file.entries(batch[0].sequence - 1, batch[-1].sequence)
        _look_through(batch, entries, found, restored)
    compared = found.at
    found.come_to(tail.sequence + 1)
    damage: list[Damage] = []
    known = await file.belongs_to()
    if known not in {"", state.log_id}:
        what = f"this server holds the log {state.log_id or 'of nobody'}, but the archive was made from {known}"
        damage.append(_of_log(tail, found, what=what, kind="replaced"))
    elif found.first:
        what = f"commit {found.first} " + ("is not in the log" if found.kind == "missing" else "of the log was changed")
        damage.append(_of_log(tail, found, what=what, kind=found.kind))
    if found.other_time:
        what = f"commit {found.other_time} of the archive says another time than the log"
        damage.append(Damage(where="archive", kind="changed", first_bad=found.other_time, detail=what))
    return Comparison(compared, tuple([await dated(file, one) for one in damage]))


async def ends_agree(file: ArchiveFile, log: EventLog, tail: Tail) -> bool:
    """A quick look: the same log, without holes its server knows of, and the same commit where the archive ends?"""
    try:
        state = await log_state(log.bus)
    except LogDamaged:
        return False
    if state.log_id != await file.belongs_to() or not state.dense or state.last < tail.sequence:
        return False
    entries = await file.entries(tail.sequence - 1, tail.sequence)
    last = [message async for batch in scan(log.bus, tail.sequence - 1, tail.sequence) for message in batch]
    return bool(last) and last[0].body == entries[tail.sequence].body


async def dated(file: ArchiveFile, damage: Damage) -> Damage:
    """With the time of the last good commit; as it is where that is told already."""
    if damage.since is not None:
        return damage
    since = await file.recorded_at(damage.first_bad - 1)
    if since is None:
        return damage
    last = f"; the last good one is commit {damage.first_bad - 1} of {since:%Y-%m-%d %H:%M:%S} UTC"
    return msgspec.structs.replace(damage, since=since, detail=damage.detail + last)


def _look_through(batch: list[Message], entries: Mapping[int, Entry], found: _Findings, restored: int) -> None:
    for message in batch:
        found.look(message, entries.get(message.sequence), timed=message.sequence > restored)


def _of_log(tail: Tail, found: _Findings, *, what: str, kind: Kind) -> Damage:
    first = found.first or tail.sequence + 1
    counted = f"{found.missing} are missing and {found.changed} changed, from commit {first} on"
    return Damage(
        where="log",
        kind=kind,
        first_bad=first,
        missing=found.missing,
        changed=found.changed,
        detail=f"{what}: of {tail.sequence} archived commits {counted}{CURE}",
    )
