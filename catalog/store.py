"""The read model's file: a batch of commits and the checkpoint are written in one transaction, reads are snapshots.

It may be deleted at any time and is rebuilt identically, so a file that is damaged, or of another schema or log, is
just replaced.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from catalog.database import (
    QUICK_CHECK,
    Connection,
    Database,
    Snapshot,
    check_integrity,
    create_tables,
    is_corrupt,
    open_writer,
    peek,
    remove_database,
)
from contracts.commits import Aggregate, ForeignMessage, LogEntry, RecordedCommit
from contracts.errors import Behind, LogDamaged, Unavailable

T = TypeVar("T")

CACHE_KIB = 48 * 1024
"""Large, because a batch touches rows far apart: pages that are not cached are read again for each batch."""

CHECKPOINT = """
CREATE TABLE IF NOT EXISTS checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest TEXT NOT NULL
);
"""
READ_CHECKPOINT = "SELECT schema, log_id, sequence, digest FROM checkpoint"
CREATE_CHECKPOINT = "INSERT OR IGNORE INTO checkpoint VALUES (1, ?, ?, 0, '')"
RENAME_LOG = "UPDATE checkpoint SET log_id = ?"
MOVE_CHECKPOINT = "UPDATE checkpoint SET sequence = ?, digest = ?"


class ReadModel(Protocol):
    """All views together. Another VERSION causes the tables to be rebuilt from the log."""

    VERSION: int
    TABLES: str

    def apply(self, connection: Connection, commits: Sequence[RecordedCommit]) -> None: ...

    def add_foreign(self, connection: Connection, messages: Sequence[ForeignMessage]) -> None: ...

    def foreign_heads(self, connection: Connection) -> dict[Aggregate, int]: ...


@dataclass(frozen=True)
class Checkpoint:
    """The last commit applied to the rows: its sequence and the sha256 of its body."""

    schema: int
    log_id: str
    sequence: int
    digest: str


class Store(Database):
    """`applied` is a sequence that every new snapshot includes; `checkpoint` reads that of a snapshot."""

    def __init__(self, path: Path, log_id: str, model: ReadModel) -> None:
        self._log_id = log_id
        self._model = model
        self._advanced = asyncio.Condition()
        self._pending: dict[Aggregate, int] = {}
        self._damaged = asyncio.Event()
        self.before_apply: list[Callable[[Sequence[LogEntry]], None]] = []
        """Called with the entries that the rows show next."""
        self.foreign_heads: dict[Aggregate, int] = {}
        """The newest foreign message on the subject of each aggregate (kind, id) that has any."""
        super().__init__(path, self._open_writer(path))

    def _open_writer(self, path: Path) -> Connection:
        found = peek(path, _intact_checkpoint)
        if found is None or (found.schema, found.log_id) != (self._model.VERSION, self._log_id):
            remove_database(path)
            found = None
        self.applied = found.sequence if found else 0
        tables = partial(create_tables, CHECKPOINT + self._model.TABLES)
        writer = open_writer(path, tables, secure_delete=True, rebuildable=True, cache_kib=CACHE_KIB)
        self.foreign_heads = self._model.foreign_heads(writer)
        return writer

    @property
    def last_foreign(self) -> int:
        """Sequence of the newest foreign message applied; 0: there is none."""
        return max(self.foreign_heads.values(), default=0)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """As `Database.write`. Unavailable: the file is damaged."""
        try:
            return await super().write(work)
        except sqlite3.DatabaseError as error:
            self._notice_damage(error)
            raise

    async def read(self, work: Callable[[Connection], T]) -> T:
        """As `Database.read`. Unavailable: the file is damaged."""
        try:
            return await super().read(work)
        except sqlite3.DatabaseError as error:
            self._notice_damage(error)
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """As `Database.snapshot`. Unavailable: the file is damaged."""
        try:
            async with super().snapshot() as snapshot:
                yield snapshot
        except sqlite3.DatabaseError as error:
            self._notice_damage(error)
            raise

    async def fail_when_damaged(self) -> NoReturn:
        """Raises Unavailable once SQLite finds the file damaged: the next start rebuilds it."""
        await self._damaged.wait()
        raise Unavailable("the read model's file is damaged; it is rebuilt at the next start", service="catalog")

    async def close(self) -> None:
        await super().close()
        if self._damaged.is_set():
            remove_database(self._path)

    async def apply(self, batch: Sequence[LogEntry]) -> int:
        """Apply entries in the order of the log, skipping those applied before. Returns the new `applied`.

        LogDamaged, and nothing changed, if a commit is missing after the last applied one.
        """
        for observe in self.before_apply:
            observe(batch)
        applied = await self.write(lambda connection: self._apply(connection, batch))
        self.foreign_heads |= {entry.aggregate: entry.sequence for entry in batch if isinstance(entry, ForeignMessage)}
        self.applied = max(self.applied, applied)
        await self._notify()
        return self.applied

    async def wait_for(self, sequence: int, timeout: float = 2.0) -> None:
        """Wait until this sequence is applied; Behind after `timeout` seconds."""
        await self._wait_until(lambda: self.applied >= sequence, sequence, timeout)

    def is_shown(self, aggregate: Aggregate, sequence: int) -> bool:
        """Whether every new snapshot includes all that this commit of this aggregate changed."""
        first_pending = self._pending.get(aggregate, sequence + 1)
        return self.applied >= sequence < first_pending

    async def set_pending(self, pending: Mapping[Aggregate, int]) -> None:
        """Replace the aggregates that are still being worked in, each with the first sequence not shown completely."""
        self._pending = dict(pending)
        await self._notify()

    async def wait_until_shown(self, aggregate: Aggregate, sequence: int, timeout: float | None = None) -> None:
        """Wait until this commit of this aggregate is shown; Behind after `timeout` seconds, if given."""
        await self._wait_until(lambda: self.is_shown(aggregate, sequence), sequence, timeout)

    async def _notify(self) -> None:
        async with self._advanced:
            self._advanced.notify_all()

    async def _wait_until(self, condition: Callable[[], bool], sequence: int, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout), self._advanced:
                await self._advanced.wait_for(condition)
        except TimeoutError as error:
            raise Behind(applied=self.applied, asked=sequence) from error

    async def reset(self) -> None:
        """Delete all rows; the next batch must begin at the log's first commit."""
        await self.close()
        remove_database(self._path)
        super().__init__(self._path, self._open_writer(self._path))

    def _notice_damage(self, error: sqlite3.DatabaseError) -> None:
        """Raises Unavailable if SQLite finds the file damaged."""
        if is_corrupt(error):
            self._damaged.set()
            raise Unavailable(f"the read model is damaged and will be rebuilt: {error}", service="catalog") from error

    def _apply(self, connection: Connection, batch: Sequence[LogEntry]) -> int:
        connection.execute(CREATE_CHECKPOINT, (self._model.VERSION, self._log_id))
        at = checkpoint(connection).sequence
        new = [recorded for recorded in batch if recorded.sequence > at]
        for expected, recorded in enumerate(new, start=at + 1):
            if recorded.sequence != expected:
                raise LogDamaged(f"commit {expected} is missing before {recorded.sequence}", first_bad=expected)
        if new:
            commits = [entry for entry in new if isinstance(entry, RecordedCommit)]
            self._model.apply(connection, commits)
            if len(commits) < len(new):
                self._model.add_foreign(connection, [entry for entry in new if isinstance(entry, ForeignMessage)])
            digest = hashlib.sha256(new[-1].body).hexdigest()
            connection.execute(MOVE_CHECKPOINT, (new[-1].sequence, digest))
        return at + len(new)


def checkpoint(connection: Connection) -> Checkpoint:
    """The last commit that this snapshot includes."""
    row: sqlite3.Row | None = connection.execute(READ_CHECKPOINT).fetchone()
    return Checkpoint(*row) if row else Checkpoint(0, "", 0, "")


def rename_log(path: Path, log_id: str) -> None:
    """Assign the rows to a restored log with a new id and the same commits. The file must not be open."""
    peek(path, lambda connection: connection.execute(RENAME_LOG, (log_id,)))


def _intact_checkpoint(connection: Connection) -> Checkpoint:
    """DatabaseError if the file is damaged."""
    check_integrity(connection, QUICK_CHECK)
    return checkpoint(connection)
