"""Every commit of the log verbatim, chained by hashes, in a file apart from NATS: backup, audit source, and the witness
that says when the log was cut, changed, replaced or put back.

Entry n holds `sha256(chain of n-1 + sequence as 8 bytes + subject + body)`: whoever changes an old entry changes every
chain after it.
"""

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from catalog.database import Connection, Database
from contracts import subjects
from contracts.errors import LogDamaged
from contracts.events import Stored
from contracts.ids import Digest
from contracts.wire.log import EventLog, decode

TABLES = """
CREATE TABLE IF NOT EXISTS log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    log_id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS entry (
    sequence INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    thing TEXT NOT NULL,
    id TEXT NOT NULL,
    recorded INTEGER NOT NULL,
    body BLOB NOT NULL,
    chain BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS entry_of_thing ON entry (kind, thing, sequence);
"""

NAME = "INSERT OR IGNORE INTO log VALUES (1, ?)"
LOG = "SELECT log_id FROM log"
ADD = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)"
LAST = "SELECT sequence, chain FROM entry ORDER BY sequence DESC LIMIT 1"
BODY = "SELECT body FROM entry WHERE sequence = ?"
ALL = "SELECT sequence, kind, thing, CAST(body AS BLOB), CAST(chain AS BLOB) FROM entry ORDER BY sequence"
AFTER = "SELECT sequence, recorded, body FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?"

T = TypeVar("T")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Tail:
    """Where the archive ends: the last sequence and the chain's hash there."""

    sequence: int = 0
    chain: bytes = b""

    @property
    def digest(self) -> Digest:
        return Digest(self.chain.hex() or hashlib.sha256().hexdigest())


class Archive:
    """`folder/archive.db`, and beside it `log_id`, which tells the migrate step what log belongs to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = Database(folder / "archive.db", TABLES)
        self.tail = Tail()
        self.log_id = ""
        self.verified = False
        """Has the log been compared with the archive since the start?"""

    async def judge(self, log: EventLog) -> str:
        """Is this log the one that was archived, whole and unchanged? Its id; LogDamaged names the first bad sequence.

        The catalog alone judges, and before anybody writes. An empty archive takes the log as its own.
        """
        log_id, end = await log.end()
        self.log_id = await self._database.read(_log_id)
        if self.log_id not in {"", log_id}:
            raise LogDamaged(f"this server holds the log {log_id}, but the archive was made from {self.log_id}")
        self.tail = await self.verify()
        await self._compare(log, end)
        await self._database.write(lambda connection: connection.execute(NAME, (log_id,)))
        await asyncio.to_thread(_write_whole, self._folder / "log_id", log_id)
        self.log_id, self.verified = log_id, True
        return log_id

    async def verify(self) -> Tail:
        """Compute the whole chain again; LogDamaged at the first entry that is not what was archived."""
        try:
            return await self._database.read(_verified)
        except sqlite3.DatabaseError as error:
            raise LogDamaged(f"the archive is damaged: {error}; it must be restored from a copy") from error

    async def append(self, batch: Sequence[Stored]) -> None:
        """Keep commits in the order of the log; those kept before change nothing. LogDamaged at a gap."""
        self.tail = await self._database.write(lambda connection: _append(connection, batch))

    async def commits(self, after: int, limit: int) -> list[Stored]:
        """What was archived after a sequence, oldest first."""
        return await self._database.read(lambda connection: _commits(connection, after, limit))

    async def digest_at(self, sequence: int) -> str | None:
        """sha256 of the commit's body; none where nothing is archived."""
        body = await self._database.read(lambda connection: _body(connection, sequence))
        return None if body is None else hashlib.sha256(body).hexdigest()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The answer of one snapshot; the questions are in `catalog.entries`."""
        return await self._database.read(work)

    async def close(self) -> None:
        await self._database.close()

    async def _compare(self, log: EventLog, end: int) -> None:
        known = min(end, self.tail.sequence)
        bad = await self._first_difference(log, known)
        if bad is None and end < self.tail.sequence:
            bad = end + 1
        if bad is not None:
            sentence = f"the log differs from the archive from commit {bad} on (it ends at {end}"
            raise LogDamaged(f"{sentence}, the archive at {self.tail.sequence}); restore it", first_bad=bad)

    async def _first_difference(self, log: EventLog, known: int) -> int | None:
        """What damages a log damages its end: so the last commits are compared, and the first bad one found between."""
        if known == 0 or await self._same(log, known):
            return None
        good, bad = 0, known
        while bad - good > 1:
            middle = (good + bad) // 2
            if await self._same(log, middle):
                good = middle
            else:
                bad = middle
        return bad

    async def _same(self, log: EventLog, sequence: int) -> bool:
        try:
            stored = await log.stored(sequence)
        except LogDamaged:
            return False
        body = await self._database.read(lambda connection: _body(connection, sequence))
        return stored is not None and stored.body == body


def _log_id(connection: Connection) -> str:
    row = connection.execute(LOG).fetchone()
    return "" if row is None else str(row["log_id"])


def _tail(connection: Connection) -> Tail:
    row = connection.execute(LAST).fetchone()
    return Tail() if row is None else Tail(row["sequence"], row["chain"])


def _verified(connection: Connection) -> Tail:
    tail = Tail()
    for sequence, kind, thing, body, chain in connection.execute(ALL):
        expected = _link(tail.chain, sequence, kind, thing, body)
        if sequence != tail.sequence + 1 or chain != expected:
            bad = tail.sequence + 1
            raise LogDamaged(f"the archive is damaged at commit {bad}; it or its copy must be restored", first_bad=bad)
        tail = Tail(sequence, expected)
    return tail


def _append(connection: Connection, batch: Sequence[Stored]) -> Tail:
    tail = _tail(connection)
    for stored in batch:
        if stored.sequence <= tail.sequence:
            continue
        if stored.sequence != tail.sequence + 1:
            bad = tail.sequence + 1
            raise LogDamaged(f"commit {bad} is missing before {stored.sequence}", first_bad=bad)
        commit = stored.commit
        chain = _link(tail.chain, stored.sequence, commit.kind, commit.thing, stored.body)
        recorded = (stored.recorded - EPOCH) // timedelta(microseconds=1)
        row = (stored.sequence, commit.kind, commit.thing, commit.id, recorded, stored.body, chain)
        connection.execute(ADD, row)
        tail = Tail(stored.sequence, chain)
    return tail


def _link(before: bytes, sequence: int, kind: Any, thing: str, body: bytes) -> bytes:
    return hashlib.sha256(before + sequence.to_bytes(8) + subjects.fact(kind, thing).encode() + body).digest()


def _body(connection: Connection, sequence: int) -> bytes | None:
    row = connection.execute(BODY, (sequence,)).fetchone()
    return None if row is None else row["body"]


def _commits(connection: Connection, after: int, limit: int) -> list[Stored]:
    rows = connection.execute(AFTER, (after, limit))
    return [decode(sequence, _recorded(recorded), body) for sequence, recorded, body in rows]


def _recorded(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _write_whole(path: Path, text: str) -> None:
    """The old file or the new one, never a part, also after a power cut."""
    draft = path.with_suffix(".draft")
    with draft.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
