"""A SQLite file with one writer thread and a few readers, as all database files of the catalog are used.

WAL and `synchronous=FULL`: a committed transaction survives a power cut. Each read runs in its own transaction and so
sees one consistent snapshot.
"""

import asyncio
import errno
import os
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from contracts.errors import SetupError, Unavailable

Connection = sqlite3.Connection
Row = sqlite3.Row
DatabaseError = sqlite3.DatabaseError
T = TypeVar("T")

MAX_SEQUENCE = 2**63 - 1
"""Later than any sequence of the log: the largest integer of SQLite."""

READERS = 4
CACHE_KIB = 8 * 1024
"""Default page cache of the writer."""
WAL_PAGES = 8 * 1024
"""Size of the WAL, in pages of 4 KiB, at which it is checkpointed; large, so that hot pages are written back once."""
SCRATCH_CACHE_KIB = 16 * 1024
SUFFIXES = ("", "-wal", "-shm")
"""The files of one database."""


class Database:
    """One file, readable by its owner only. `tables` is executed at every open, so it must be idempotent."""

    def __init__(
        self,
        path: Path,
        tables: str,
        *,
        secure_delete: bool = False,
        rebuildable: bool = False,
        cache_kib: int = CACHE_KIB,
    ) -> None:
        """`rebuildable`: a power cut may lose the last transactions (they can be redone), but not corrupt the file."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            self._connection = _connect(path, writes=True)
            self._connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if rebuildable else 'FULL'}")
            self._connection.execute(f"PRAGMA secure_delete = {int(secure_delete)}")
            self._connection.executescript(f"BEGIN IMMEDIATE; {tables}; COMMIT;")
            self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
            for _ in range(READERS):
                self._idle.put(_connect(path, writes=False))
        except sqlite3.DatabaseError as error:
            raise SetupError(f"{path.name} cannot be opened: {error}") from error
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"write-{path.stem}")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"read-{path.stem}")

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, rolled back if it raises. Writes run one at a time, in call order.

        OSError (ENOSPC): the disk is full.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot, read-only."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def read_uncached(self, work: Callable[[Connection], T]) -> T:
        """The same on a new connection, so that pages come from the file and not from another connection's cache."""

        def read() -> T:
            with closing(_connect(self._path, writes=False)) as connection:
                connection.execute("BEGIN")
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def truncate_wal(self) -> None:
        """Empty the WAL, which still contains deleted content. Unavailable: a reader is using it."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._truncate_wal)

    async def close(self) -> None:
        """Waits for running reads and writes, then closes the file."""
        await asyncio.to_thread(self._close)

    def _write(self, work: Callable[[Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # SQLite rolls back some by itself
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, f"there is no room for {self._path.name}") from error
            raise
        return result

    def _truncate_wal(self) -> None:
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unavailable("the WAL of a database is in use and could not be truncated", service="catalog")

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection = self._idle.get()
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")
        finally:
            self._idle.put(connection)

    def _close(self) -> None:
        self._readers.shutdown()
        self._writer.shutdown()
        while not self._idle.empty():
            self._idle.get().close()
        self._connection.close()


def peek(path: Path, work: Callable[[Connection], T]) -> T | None:
    """Run `work` on a file that is not open yet; none if there is no file, or it is not such a database."""
    if not path.exists():
        return None
    try:
        with closing(_connect(path, writes=True)) as connection:
            return work(connection)
    except sqlite3.DatabaseError:
        return None


def open_reader(path: Path) -> Connection:
    """A read-only connection to a file that another process writes; several statements need BEGIN for one snapshot."""
    return _connect(path, writes=False)


def open_scratch(tables: str, path: Path | None = None) -> Connection:
    """A temporary database: in memory while it is small, then in a file (an anonymous one without `path`)."""
    connection = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(f"PRAGMA cache_size = -{SCRATCH_CACHE_KIB}")
    connection.executescript(tables)
    return connection


def remove_database(path: Path) -> None:
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def copy_database(source: Path, target: Path) -> None:
    """Copy a consistent snapshot, also while it is written; `target` is one file, replaced atomically.

    SetupError: there is no source file, or it is not an intact database.
    """
    if not source.is_file():
        raise SetupError(f"there is no {source}")
    draft = target.with_name(f".{target.name}.draft")
    remove_database(draft)
    os.close(os.open(draft, os.O_CREAT | os.O_RDWR, 0o600))
    try:
        with closing(_connect(source, writes=False)) as connection, closing(sqlite3.connect(draft)) as copied:
            connection.backup(copied)
            copied.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        remove_database(draft)
        raise SetupError(f"{source} cannot be copied: {error}") from error
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    for suffix in SUFFIXES[1:]:  # a WAL of the replaced file must not be applied to this one
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    draft.replace(target)


def _connect(path: Path, *, writes: bool) -> Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA query_only = {int(not writes)}")
    return connection
