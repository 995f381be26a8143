"""The archive's SQLite file, and beside it the id of the log that is archived."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from catalog.archive import rows
from catalog.archive.chain import ChainVerification, Tail
from catalog.archive.rows import ARCHIVE, ARCHIVE_SCHEMA, MAX_CACHED_CHAIN_HEADS, StoredRow, Writing
from catalog.database import Connection, Database, error_code, open_writer
from catalog.rows import fetch_number, fetch_value, from_microseconds
from contracts.audit import Damage, damage_error
from contracts.commits import LogEntry
from contracts.errors import SetupError
from contracts.log_message import LogMessage
from contracts.signatures import OwnSignatures
from contracts.verification import Trust
from contracts.wire.system.files import write_atomically

SET_LOG_ID = "INSERT INTO log VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET log_id = excluded.log_id"
LOG = "SELECT log_id FROM log"
BODY = "SELECT body FROM entry WHERE sequence = ?"
CHAIN = "SELECT chain FROM entry WHERE sequence = ?"
RECORDED = "SELECT recorded FROM entry WHERE sequence = ?"
LAST_RESTORED = """
SELECT IFNULL(MAX(sequence), 0) FROM entry
WHERE aggregate_kind = 'log' AND foreign_reason = '' AND instr(body, '"log.restored"')
"""
CORRUPT_FILE_CODES = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
LOG_ID_FILE = "log_id"
"""The file beside the archive from which the migrate step reads which log was archived."""

T = TypeVar("T")


class ArchiveFile(Database):
    """`folder/archive.db`, and beside it the file `log_id`, from which the migrate step reads the archived log's id."""

    def __init__(self, folder: Path) -> None:
        """LogDamaged: the file exists and is not a database. SetupError: a newer version wrote it."""
        self.folder = folder
        super().__init__(folder / ARCHIVE, _open_writer(folder / ARCHIVE))
        self.tail = Tail()
        self.log_id = ""
        self.verified = False
        """Whether the log was verified since the start."""
        self.own_signatures = OwnSignatures()
        """Of this process's signers, which need not be verified when the log has them."""
        self._writing: Writing | None = None

    @property
    def trust(self) -> Trust:
        """What the archived commits say about the log and the keys of its writers, once `begin` was called."""
        return self._writing.trust if self._writing else Trust()

    async def begin(self, *roots: bytes) -> None:
        """Before anything is archived. `roots`: the public key of `keys.db`, if messages are to be received.

        Before it come lost ones, oldest first, of which each replaced the one before.
        """
        self._writing = Writing(await self.read(rows.trust), roots, self.own_signatures.is_valid)

    async def receive(self, messages: Sequence[LogMessage]) -> list[LogEntry]:
        """Verify the next messages of the log and archive them, also foreign ones. Returns those not archived before.

        LogDamaged, and nothing archived, at a gap.
        """
        entries, self.tail = await self._write_on_top(
            lambda connection, writing: rows.receive(connection, messages, writing)
        )
        return entries

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Archive entries of another archive, which were verified there; those archived before are skipped.

        LogDamaged, and nothing archived, at a gap or at a commit that does not continue the history of its aggregate.
        """
        self.tail = await self._write_on_top(lambda connection, writing: rows.append(connection, entries, writing))

    async def entries(self, after: int, limit: int) -> list[LogEntry]:
        """At most `limit` messages archived after a sequence, oldest first."""
        return await self.read(
            lambda connection: list(rows.read_entries(connection, rows.ENTRIES_AFTER, (after, limit)))
        )

    async def next_batch(self, after: int) -> list[LogEntry]:
        """The next messages after a sequence, as many as are applied together; none: there are no more."""
        return await self.read(lambda connection: rows.read_batch(connection, after))

    async def rows(self, after: int, to: int) -> dict[int, StoredRow]:
        """The messages after one sequence and up to another, by sequence, not decoded."""
        return await self.read(lambda connection: rows.rows_between(connection, after, to))

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
        file = self.folder / LOG_ID_FILE
        return file.read_text(encoding="utf-8", errors="replace").strip() if file.exists() else ""

    async def set_log_id(self, log_id: str) -> None:
        """Assign the archive to this log, also in the file that the migrate step reads."""
        await self.write(lambda connection: connection.execute(SET_LOG_ID, (log_id,)))
        await asyncio.to_thread(write_atomically, self.folder / LOG_ID_FILE, log_id.encode())
        self.log_id = log_id

    async def verify_chains(self) -> ChainVerification:
        """Recompute all chains from the file itself, not from cached pages."""
        return await self.read_uncached(rows.verify_all_chains)

    async def end(self) -> Tail:
        """The last entry of the file, verified or not."""
        return await self.read(rows.tail)

    async def _write_on_top(self, work: Callable[[Connection, Writing], T]) -> T:
        if self._writing is None:
            await self.begin()
        writing = self._writing
        assert writing is not None  # noqa: S101 - begin() made it
        before = writing.trust
        if len(writing.chain_heads) > MAX_CACHED_CHAIN_HEADS:
            writing.forget()
        try:
            return await self.write(lambda connection: work(connection, writing))
        except BaseException:
            writing.forget()
            writing.trust = before
            raise


def _open_writer(path: Path) -> Connection:
    try:
        return open_writer(path, ARCHIVE_SCHEMA.migrate)
    except SetupError as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.DatabaseError) and error_code(cause) in CORRUPT_FILE_CODES:
            detail = f"the archive's file is damaged: {cause}"
            raise damage_error(Damage(where="archive", kind="unreadable", first_bad=1, detail=detail)) from error
        raise
