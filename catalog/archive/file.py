"""The archive's file: rows in, rows out, and the hashes over them."""

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from catalog.archive.chain import UNTIED, VOIDED, Knot, Tail, Walk, link, misfit, tie, walk
from catalog.database import Connection, Database
from contracts import subjects
from contracts.audit import Damage, damaged
from contracts.errors import LogDamaged, SetupError
from contracts.events import Stored
from contracts.subjects import Kind
from contracts.wire.log import decode

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

RENAME = "INSERT INTO log VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET log_id = excluded.log_id"
LOG = "SELECT log_id FROM log"
ADD = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)"
LAST = "SELECT sequence, chain FROM entry ORDER BY sequence DESC LIMIT 1"
BODY = "SELECT body FROM entry WHERE sequence = ?"
CHAIN = "SELECT chain FROM entry WHERE sequence = ?"
RECORDED = "SELECT recorded FROM entry WHERE sequence = ?"
ALL = "SELECT sequence, kind, thing, id, CAST(body AS BLOB), CAST(chain AS BLOB) FROM entry ORDER BY sequence"
AFTER = "SELECT sequence, recorded, body FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?"
BETWEEN = "SELECT sequence, kind, thing, recorded, body, chain FROM entry WHERE sequence > ? AND sequence <= ?"
RESTORED = "SELECT IFNULL(MAX(sequence), 0) FROM entry WHERE kind = 'log' AND instr(body, '\"log.restored\"')"
NO_DATABASE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
SOUND = "PRAGMA integrity_check(1)"

NEWEST = "SELECT sequence, body FROM entry WHERE kind = ? AND thing = ? ORDER BY sequence DESC LIMIT 1"
LAST_VOID = "SELECT IFNULL(MAX(sequence), 0) FROM entry WHERE kind = 'log' AND instr(body, '\"log.voided\"')"

T = TypeVar("T")
Thing = tuple[Kind, str]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST_KNOTS = 20_000
NOTE = "log_id"
"""The file beside the archive that tells the migrate step which log was archived."""


class Entry(NamedTuple):
    """One archived commit as it lies there. `recorded`: microseconds since 1970, by the server's clock."""

    sequence: int
    kind: str
    thing: str
    recorded: int
    body: bytes
    chain: bytes


class ArchiveFile:
    """`folder/archive.db`, and beside it `log_id`, which tells the migrate step what log belongs to it."""

    def __init__(self, folder: Path) -> None:
        """LogDamaged when the file is there and is no database."""
        self._folder = folder
        self._database = _opened(folder / "archive.db")
        self.tail = Tail()
        self.log_id = ""
        self._knots: dict[Thing, Knot] = {}
        """Where the histories of the things written last end."""

    async def append(self, batch: Sequence[Stored]) -> None:
        """Keep commits in the order of the log; those kept before change nothing.

        LogDamaged, and nothing kept, at a gap, or at a commit that does not continue the history of its thing.
        """
        self.tail = await self._database.write(lambda connection: self._append(connection, batch))

    async def commits(self, after: int, limit: int) -> list[Stored]:
        """What was archived after a sequence, oldest first."""
        return await self._database.read(lambda connection: _commits(connection, after, limit))

    async def entries(self, after: int, to: int) -> dict[int, Entry]:
        """By sequence, without looking into them."""
        return await self._database.read(lambda connection: _entries(connection, after, to))

    async def digest_at(self, sequence: int) -> str | None:
        """sha256 of the commit's body; none where nothing is archived."""
        body = await self._database.read(lambda connection: _one(connection, BODY, sequence))
        return None if body is None else hashlib.sha256(body).hexdigest()

    async def chain_at(self, sequence: int) -> bytes | None:
        """The log's chain after this commit; none where nothing is archived."""
        return await self._database.read(lambda connection: _one(connection, CHAIN, sequence))

    async def recorded_at(self, sequence: int) -> datetime | None:
        """When the server stored this commit; none where nothing is archived, or the file is too broken to say."""
        try:
            found = await self._database.read(lambda connection: _one(connection, RECORDED, sequence))
        except sqlite3.DatabaseError:
            return None
        return None if found is None else _time(found)

    async def restored_up_to(self) -> int:
        """Commits up to here were put back after a loss, so the log has them with other times. 0: none."""
        return await self._database.read(lambda connection: int(connection.execute(RESTORED).fetchone()[0]))

    async def belongs_to(self) -> str:
        """The id of the log it was made from; empty before the first."""
        return await self._database.read(_log_id)

    def noted(self) -> str:
        """The log's id as noted beside the archive; it may have outlived an archive that is gone. Empty: none was."""
        file = self._folder / NOTE
        return file.read_text(encoding="utf-8").strip() if file.exists() else ""

    async def rename(self, log_id: str) -> None:
        """From now on the archive belongs to this log, also in the eyes of the migrate step."""
        await self._database.write(lambda connection: connection.execute(RENAME, (log_id,)))
        await asyncio.to_thread(_write_whole, self._folder / NOTE, log_id)
        self.log_id = log_id

    async def walk(self) -> Walk:
        """Compute all chains again, from the file and not from what is in memory of it."""
        return await self._database.read_afresh(_walked)

    async def end(self) -> Tail:
        """Where the file ends, whether what stands there is right or not."""
        return await self._database.read(_tail)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The answer of one snapshot; the questions are in `catalog.entries`."""
        return await self._database.read(work)

    async def close(self) -> None:
        await self._database.close()

    def _append(self, connection: Connection, batch: Sequence[Stored]) -> Tail:
        if len(self._knots) > MOST_KNOTS:
            self._knots.clear()
        try:
            return _append(connection, batch, self._knots)
        except BaseException:
            self._knots.clear()  # some may be of commits that are not kept now
            raise


def _opened(path: Path) -> Database:
    try:
        return Database(path, TABLES)
    except SetupError as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode in NO_DATABASE:
            detail = f"the archive's file is damaged: {cause}; `loratory restore` makes it anew"
            raise damaged(Damage(where="archive", kind="unreadable", first_bad=1, detail=detail)) from error
        raise


def _log_id(connection: Connection) -> str:
    row = connection.execute(LOG).fetchone()
    return "" if row is None else str(row["log_id"])


def _tail(connection: Connection) -> Tail:
    row = connection.execute(LAST).fetchone()
    return Tail() if row is None else Tail(row["sequence"], row["chain"])


def _walked(connection: Connection) -> Walk:
    """Also whether the file is sound: with a wrong index, answers are wrong though every entry is right."""
    walked, rows = Walk(), _plain(connection)
    try:
        walk(rows.execute(ALL), walked)
        if walked.damage is None and (wrong := rows.execute(SOUND).fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(wrong.strip().replace("\n", ", "))
    except sqlite3.DatabaseError as error:
        detail = f"the archive's file is damaged after commit {walked.sequence}: {error}"
        walked.damage = Damage(where="archive", kind="unreadable", first_bad=walked.sequence + 1, detail=detail)
    return walked


def _append(connection: Connection, batch: Sequence[Stored], knots: dict[Thing, Knot]) -> Tail:
    tail = _tail(connection)
    sequence, chain = tail.sequence, tail.chain
    rows: list[tuple[Any, ...]] = []
    for stored in batch:
        if stored.sequence <= sequence:
            continue
        sequence += 1
        if stored.sequence != sequence:
            raise LogDamaged(f"commit {sequence} is missing before {stored.sequence}", first_bad=sequence)
        commit = stored.commit
        thing = commit.kind, commit.thing
        knot = knots.get(thing) or _knot(connection, *thing)
        if (why := misfit(commit, knot)) and _voided(connection, rows) <= knot.sequence:
            raise LogDamaged(f"commit {sequence} does not go on from what was archived: {why}", first_bad=sequence)
        knots[thing] = Knot(sequence, commit.version, hashlib.sha256(stored.body).hexdigest())
        chain = link(chain, sequence, subjects.fact(*thing), stored.body)
        recorded = (stored.recorded - EPOCH) // MICROSECOND
        rows.append((sequence, *thing, commit.id, recorded, stored.body, chain))
    connection.executemany(ADD, rows)
    return Tail(sequence, chain)


def _knot(connection: Connection, kind: str, thing: str) -> Knot:
    """Where the thing's history ends in the file."""
    row = connection.execute(NEWEST, (kind, thing)).fetchone()
    return UNTIED if row is None else tie(row["sequence"], row["body"])


def _voided(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """The newest place that is kept for a commit that is lost; 0: none."""
    fresh = [sequence for sequence, kind, _, _, _, body, _ in rows if kind == "log" and VOIDED in body]
    return fresh[-1] if fresh else int(connection.execute(LAST_VOID).fetchone()[0])


def _one(connection: Connection, question: str, sequence: int) -> Any:
    row = connection.execute(question, (sequence,)).fetchone()
    return None if row is None else row[0]


def _commits(connection: Connection, after: int, limit: int) -> list[Stored]:
    rows = _plain(connection).execute(AFTER, (after, limit)).fetchall()
    return [decode(sequence, _time(recorded), body) for sequence, recorded, body in rows]


def _entries(connection: Connection, after: int, to: int) -> dict[int, Entry]:
    return {row[0]: Entry._make(row) for row in _plain(connection).execute(BETWEEN, (after, to))}


def _plain(connection: Connection) -> sqlite3.Cursor:
    """Rows as tuples: they cost a third less than named ones."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor


def _time(microseconds: int) -> datetime:
    """Exact: seconds of our time as a float have a quarter of a microsecond."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _write_whole(path: Path, text: str) -> None:
    """The old file or the new one, never a part, also after a power cut."""
    draft = path.with_suffix(".draft")
    with draft.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
