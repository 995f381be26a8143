"""The read model's file: batches of commits go in with the checkpoint in one transaction, questions are snapshots.

It may be deleted at any time and comes back the same, so a file of another schema or another log is simply made anew.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from catalog.database import Connection, Database, peek, remove
from contracts.errors import Behind, LogDamaged
from contracts.events import Stored

T = TypeVar("T")

CACHE_KIB = 48 * 1024
"""Rows of a view lie far apart: what is not kept in memory is read again for each batch."""

CHECKPOINT = """
CREATE TABLE IF NOT EXISTS checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    schema INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest TEXT NOT NULL
);
"""
READ_CHECKPOINT = "SELECT schema, log_id, sequence, digest FROM checkpoint"
BEGIN_CHECKPOINT = "INSERT OR IGNORE INTO checkpoint VALUES (1, ?, ?, 0, '')"
RENAME_LOG = "UPDATE checkpoint SET log_id = ?"
MOVE_CHECKPOINT = "UPDATE checkpoint SET sequence = ?, digest = ?"


class ReadModel(Protocol):
    """All views together. A new VERSION means that the tables are made anew from the log."""

    @property
    def VERSION(self) -> int: ...  # noqa: N802 - a module's constant

    @property
    def TABLES(self) -> str: ...  # noqa: N802 - a module's constant

    def apply(self, connection: Connection, commits: Sequence[Stored]) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """How far the rows have come: the last commit's sequence and the sha256 of its body."""

    schema: int
    log_id: str
    sequence: int
    digest: str


class Store:
    """`applied` is the sequence that readers see at least."""

    def __init__(self, path: Path, log_id: str, model: ReadModel) -> None:
        self._path = path
        self._log_id = log_id
        self._model = model
        self._moved = asyncio.Condition()
        self._open()

    def _open(self) -> None:
        kept = peek(self._path, checkpoint)
        if kept is None or (kept.schema, kept.log_id) != (self._model.VERSION, self._log_id):
            remove(self._path)
            kept = None
        self._database = Database(
            self._path, CHECKPOINT + self._model.TABLES, secure_delete=True, rebuilt=True, cache_kib=CACHE_KIB
        )
        self.applied = kept.sequence if kept else 0

    async def apply(self, batch: Sequence[Stored]) -> int:
        """Take in commits in the order of the log; those taken in before change nothing. The new `applied`.

        LogDamaged, and nothing changed, when a commit is missing between the last one and the next.
        """
        applied = await self._database.write(lambda connection: self._apply(connection, batch))
        self.applied = max(self.applied, applied)
        async with self._moved:
            self._moved.notify_all()
        return self.applied

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The answer of one snapshot; see `checkpoint` for where it stands."""
        return await self._database.read(work)

    async def wait_for(self, sequence: int, timeout: float = 2.0) -> None:
        """Returns when readers see this sequence; Behind when they do not within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(lambda: self.applied >= sequence)
        except TimeoutError as error:
            raise Behind(applied=self.applied, asked=sequence) from error

    async def let_go(self) -> None:
        """Leave nothing of rows that are gone, in the file or in its WAL. Unavailable while a reader does not end."""
        await self._database.truncate_wal()

    async def start_over(self) -> None:
        """Forget all rows; the next batch must begin at the log's first commit."""
        await self._database.close()
        remove(self._path)
        self._open()

    async def close(self) -> None:
        await self._database.close()

    def _apply(self, connection: Connection, batch: Sequence[Stored]) -> int:
        connection.execute(BEGIN_CHECKPOINT, (self._model.VERSION, self._log_id))
        at = checkpoint(connection).sequence
        fresh = [stored for stored in batch if stored.sequence > at]
        for expected, stored in enumerate(fresh, start=at + 1):
            if stored.sequence != expected:
                raise LogDamaged(f"commit {expected} is missing before {stored.sequence}", first_bad=expected)
        if fresh:
            self._model.apply(connection, fresh)
            digest = hashlib.sha256(fresh[-1].body).hexdigest()
            connection.execute(MOVE_CHECKPOINT, (fresh[-1].sequence, digest))
        return at + len(fresh)


def checkpoint(connection: Connection) -> Checkpoint:
    """Where this snapshot stands."""
    row: sqlite3.Row | None = connection.execute(READ_CHECKPOINT).fetchone()
    return Checkpoint(*row) if row else Checkpoint(0, "", 0, "")


def rename_log(path: Path, log_id: str) -> None:
    """The rows stand for a log with another id now, in which the same commits were put back. For a closed file."""
    peek(path, lambda connection: connection.execute(RENAME_LOG, (log_id,)))
