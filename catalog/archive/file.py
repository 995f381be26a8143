"""The archive's SQLite file: its rows and the hashes over them."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from catalog.archive.chain import VOIDED, ChainVerification, Tail, advance, chain_hash, check_link, verify_chains
from catalog.database import Connection, Database, open_writer
from catalog.migrations import Schema
from catalog.rows import EPOCH, MICROSECOND, fetch_number, fetch_value, from_microseconds
from contracts import subjects
from contracts.audit import Damage, damage_error
from contracts.commits import RecordedCommit, StreamRevision, decode, revision_of
from contracts.errors import LogDamaged, SetupError
from contracts.wire.system.files import write_atomically

ARCHIVE = "archive.db"
ARCHIVE_SCHEMA = Schema(
    ARCHIVE,
    (
        (  # 1; a file from before there were numbers has these tables already
            "CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1), log_id TEXT NOT NULL)",
            """
            CREATE TABLE IF NOT EXISTS entry (
                sequence INTEGER PRIMARY KEY,
                aggregate_kind TEXT NOT NULL,
                aggregate_id TEXT NOT NULL,
                id TEXT NOT NULL,
                recorded INTEGER NOT NULL,
                body BLOB NOT NULL,
                chain BLOB NOT NULL
            )
            """,
            "CREATE INDEX IF NOT EXISTS entry_of_aggregate ON entry (aggregate_kind, aggregate_id, sequence)",
        ),
    ),
)

SET_LOG_ID = "INSERT INTO log VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET log_id = excluded.log_id"
LOG = "SELECT log_id FROM log"
ADD = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)"
TAIL = "SELECT sequence, chain FROM entry ORDER BY sequence DESC LIMIT 1"
BODY = "SELECT body FROM entry WHERE sequence = ?"
CHAIN = "SELECT chain FROM entry WHERE sequence = ?"
RECORDED = "SELECT recorded FROM entry WHERE sequence = ?"
ALL_ENTRIES = """
SELECT sequence, aggregate_kind, aggregate_id, id, CAST(body AS BLOB), CAST(chain AS BLOB) FROM entry ORDER BY sequence
"""
COMMITS_AFTER = "SELECT sequence, recorded, body FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?"
ENTRIES_BETWEEN = """
SELECT sequence, aggregate_kind, aggregate_id, recorded, body, chain FROM entry WHERE sequence > ? AND sequence <= ?
"""
LAST_RESTORED = (
    "SELECT IFNULL(MAX(sequence), 0) FROM entry WHERE aggregate_kind = 'log' AND instr(body, '\"log.restored\"')"
)
CORRUPT_FILE_CODES = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
INTEGRITY_CHECK = "PRAGMA integrity_check(1)"

LATEST_OF_AGGREGATE = """
SELECT sequence, body FROM entry WHERE aggregate_kind = ? AND aggregate_id = ? ORDER BY sequence DESC LIMIT 1
"""
LAST_VOID = "SELECT IFNULL(MAX(sequence), 0) FROM entry WHERE aggregate_kind = 'log' AND instr(body, '\"log.voided\"')"

T = TypeVar("T")
AggregateKey = tuple[str, str]
MAX_CACHED_CHAIN_HEADS = 20_000
LOG_ID_FILE = "log_id"
"""The file beside the archive from which the migrate step reads which log was archived."""


class Entry(NamedTuple):
    """One archived commit as stored. `recorded`: microseconds since 1970, by the server's clock."""

    sequence: int
    aggregate_kind: str
    aggregate_id: str
    recorded: int
    body: bytes
    chain: bytes


class ArchiveFile(Database):
    """`folder/archive.db`, and beside it the file `log_id`, from which the migrate step reads the archived log's id."""

    def __init__(self, folder: Path) -> None:
        """LogDamaged: the file exists and is not a database. SetupError: a newer version wrote it."""
        self._folder = folder
        super().__init__(folder / ARCHIVE, _open_writer(folder / ARCHIVE))
        self.tail = Tail()
        self.log_id = ""
        self._chain_heads: dict[AggregateKey, StreamRevision] = {}
        """Cache: the last commit of the aggregates that were written most recently."""

    async def append(self, batch: Sequence[RecordedCommit]) -> None:
        """Archive commits in the order of the log; those archived before are skipped.

        LogDamaged, and nothing archived, at a gap or at a commit that does not continue the history of its aggregate.
        """
        self.tail = await self.write(lambda connection: self._append(connection, batch))

    async def commits(self, after: int, limit: int) -> list[RecordedCommit]:
        """At most `limit` commits archived after a sequence, oldest first."""
        return await self.read(lambda connection: _commits(connection, after, limit))

    async def entries(self, after: int, to: int) -> dict[int, Entry]:
        """The entries after one sequence and up to another, by sequence, not decoded."""
        return await self.read(lambda connection: _entries(connection, after, to))

    async def digest_at(self, sequence: int) -> str | None:
        """sha256 of the commit's body; None if this sequence is not archived."""
        body = await self.read(lambda connection: fetch_value(connection, BODY, (sequence,)))
        return None if body is None else hashlib.sha256(body).hexdigest()

    async def chain_at(self, sequence: int) -> bytes | None:
        """The log's chain hash after this commit; None if this sequence is not archived."""
        return await self.read(lambda connection: fetch_value(connection, CHAIN, (sequence,)))

    async def recorded_at(self, sequence: int) -> datetime | None:
        """When the server stored this commit; None if it is not archived or the file cannot be read."""
        try:
            found = await self.read(lambda connection: fetch_value(connection, RECORDED, (sequence,)))
        except sqlite3.DatabaseError:
            return None
        return None if found is None else from_microseconds(found)

    async def restored_up_to(self) -> int:
        """The last sequence of a restore: the log has the commits up to here with other times. 0: never restored."""
        return await self.read(lambda connection: fetch_number(connection, LAST_RESTORED))

    async def belongs_to(self) -> str:
        """The id of the log that is archived here; empty while nothing is archived."""
        return await self.read(lambda connection: fetch_value(connection, LOG) or "")

    def noted_log_id(self) -> str:
        """The log id in the file beside the archive, which may have outlived the archive. Empty if there is none."""
        file = self._folder / LOG_ID_FILE
        return file.read_text(encoding="utf-8", errors="replace").strip() if file.exists() else ""

    async def set_log_id(self, log_id: str) -> None:
        """Assign the archive to this log, also in the file that the migrate step reads."""
        await self.write(lambda connection: connection.execute(SET_LOG_ID, (log_id,)))
        await asyncio.to_thread(write_atomically, self._folder / LOG_ID_FILE, log_id.encode())
        self.log_id = log_id

    async def verify_chains(self) -> ChainVerification:
        """Recompute all chains from the file itself, not from cached pages."""
        return await self.read_uncached(_verify_chains)

    async def end(self) -> Tail:
        """The last entry of the file, verified or not."""
        return await self.read(_tail)

    def _append(self, connection: Connection, batch: Sequence[RecordedCommit]) -> Tail:
        if len(self._chain_heads) > MAX_CACHED_CHAIN_HEADS:
            self._chain_heads.clear()
        try:
            return _append(connection, batch, self._chain_heads)
        except BaseException:
            self._chain_heads.clear()  # some may belong to commits that were rolled back
            raise


def _open_writer(path: Path) -> Connection:
    try:
        return open_writer(path, ARCHIVE_SCHEMA.migrate)
    except SetupError as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode in CORRUPT_FILE_CODES:
            detail = f"the archive's file is damaged: {cause}"
            raise damage_error(Damage(where="archive", kind="unreadable", first_bad=1, detail=detail)) from error
        raise


def _tail(connection: Connection) -> Tail:
    row = connection.execute(TAIL).fetchone()
    return Tail() if row is None else Tail(*row)


def _verify_chains(connection: Connection) -> ChainVerification:
    """Recompute the chains and run SQLite's integrity check: a wrong index gives wrong results from correct entries."""
    verification, rows = ChainVerification(), _tuple_cursor(connection)
    try:
        verify_chains(rows.execute(ALL_ENTRIES), verification)
        if verification.damage is None and (wrong := rows.execute(INTEGRITY_CHECK).fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(wrong.strip().replace("\n", ", "))
    except sqlite3.DatabaseError as error:
        detail = f"the archive's file is damaged after commit {verification.sequence}: {error}"
        first_bad = verification.sequence + 1
        verification.damage = Damage(where="archive", kind="unreadable", first_bad=first_bad, detail=detail)
    return verification


def _append(
    connection: Connection, batch: Sequence[RecordedCommit], chain_heads: dict[AggregateKey, StreamRevision]
) -> Tail:
    tail = _tail(connection)
    sequence, chain = tail.sequence, tail.chain
    rows: list[tuple[Any, ...]] = []
    for recorded in batch:
        if recorded.sequence <= sequence:
            continue
        sequence += 1
        if recorded.sequence != sequence:
            raise LogDamaged(f"commit {sequence} is missing before {recorded.sequence}", first_bad=sequence)
        commit = recorded.commit
        aggregate = commit.aggregate_kind, commit.aggregate_id
        chain_head = chain_heads.get(aggregate) or _chain_head(connection, *aggregate)
        if (why := check_link(commit, chain_head)) and _last_voided(connection, rows) <= chain_head.sequence:
            raise LogDamaged(f"commit {sequence} does not continue what was archived: {why}", first_bad=sequence)
        chain_heads[aggregate] = revision_of(recorded)
        chain = chain_hash(chain, sequence, subjects.aggregate(*aggregate), recorded.body)
        microseconds = (recorded.recorded_at - EPOCH) // MICROSECOND
        rows.append((sequence, *aggregate, commit.id, microseconds, recorded.body, chain))
    connection.executemany(ADD, rows)
    return Tail(sequence, chain)


def _chain_head(connection: Connection, aggregate_kind: str, aggregate_id: str) -> StreamRevision:
    """The last archived commit of an aggregate."""
    row = connection.execute(LATEST_OF_AGGREGATE, (aggregate_kind, aggregate_id)).fetchone()
    return StreamRevision() if row is None else advance(row["sequence"], row["body"])


def _last_voided(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """The sequence of the newest void commit, in `rows` or the file; 0: none."""
    voided = [sequence for sequence, kind, _, _, _, body, _ in rows if kind == "log" and VOIDED in body]
    return voided[-1] if voided else fetch_number(connection, LAST_VOID)


def _commits(connection: Connection, after: int, limit: int) -> list[RecordedCommit]:
    rows = _tuple_cursor(connection).execute(COMMITS_AFTER, (after, limit)).fetchall()
    return [decode(sequence, from_microseconds(recorded), body) for sequence, recorded, body in rows]


def _entries(connection: Connection, after: int, to: int) -> dict[int, Entry]:
    return {row[0]: Entry._make(row) for row in _tuple_cursor(connection).execute(ENTRIES_BETWEEN, (after, to))}


def _tuple_cursor(connection: Connection) -> sqlite3.Cursor:
    """A cursor whose rows are tuples, which cost a third less than named rows."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor
