"""A SQLite file with one writer thread and a few readers: the shape all files of the catalog share.

WAL and `synchronous=FULL`: a transaction that returned survives a power cut. Each read runs in a transaction of its
own, so that all it sees stands at the same moment.
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

READERS = 4
CACHE_KIB = 8 * 1024
"""So much of the file the writer keeps in memory."""
WAL_PAGES = 8 * 1024
"""So long (in pages of 4 KiB) the WAL grows before it goes into the file: a page that changes often is written once."""
SCRATCH_KIB = 16 * 1024
SUFFIXES = ("", "-wal", "-shm")
"""What belongs to one database beside each other in a folder."""


class Database:
    """One file. `tables` is run at every open and must be harmless when repeated; readable by its owner only."""

    def __init__(
        self,
        path: Path,
        tables: str,
        *,
        secure_delete: bool = False,
        rebuilt: bool = False,
        cache_kib: int = CACHE_KIB,
    ) -> None:
        """`rebuilt`: what a power cut takes can be made again; so the file must stay whole, but not every commit."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            self._connection = _connect(path, writes=True)
            self._connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if rebuilt else 'FULL'}")
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
        """Run it in one transaction: all of it, or nothing if it raises. One at a time, in the order asked.

        OSError (ENOSPC) where the disk is full.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._written, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run it on one snapshot; what it writes is refused."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._seen, work)

    async def read_afresh(self, work: Callable[[Connection], T]) -> T:
        """The same on a connection of its own: the file is read again, not what others keep of it in memory."""

        def look() -> T:
            with closing(_connect(self._path, writes=False)) as connection:
                connection.execute("BEGIN")
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, look)

    async def truncate_wal(self) -> None:
        """Leave nothing in the WAL, which keeps what was deleted. Unavailable while a reader does not end."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._truncate_wal)

    async def close(self) -> None:
        """Ends what is under way, then closes the file."""
        await asyncio.to_thread(self._close)

    def _written(self, work: Callable[[Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            outcome = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # SQLite ends some by itself
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, f"there is no room for {self._path.name}") from error
            raise
        return outcome

    def _truncate_wal(self) -> None:
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unavailable("a database is read all the time; its old pages could not be let go", service="catalog")

    def _seen(self, work: Callable[[Connection], T]) -> T:
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
    """A look into a file before it is opened for good; None where there is none, or it is no such database."""
    if not path.exists():
        return None
    try:
        with closing(_connect(path, writes=True)) as connection:
            return work(connection)
    except sqlite3.DatabaseError:
        return None


def reader(path: Path) -> Connection:
    """A look into a file that another process writes; each statement is a snapshot, or all within BEGIN."""
    return _connect(path, writes=False)


def scratch(tables: str, path: Path | None = None) -> Connection:
    """A database for one question: in memory as long as it is small, then in a file, by default one without a name."""
    connection = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(f"PRAGMA cache_size = -{SCRATCH_KIB}")
    connection.executescript(tables)
    return connection


def remove(path: Path) -> None:
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """A copy of one moment, also while others write; `target` is one file, replaced whole or not at all.

    SetupError where there is nothing to copy, or it is no whole database.
    """
    if not source.is_file():
        raise SetupError(f"there is no {source}")
    draft = target.with_name(f".{target.name}.draft")
    remove(draft)
    os.close(os.open(draft, os.O_CREAT | os.O_RDWR, 0o600))
    try:
        with closing(_connect(source, writes=False)) as connection, closing(sqlite3.connect(draft)) as copied:
            connection.backup(copied)
            copied.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        remove(draft)
        raise SetupError(f"{source} cannot be copied: {error}") from error
    with draft.open("rb") as whole:
        os.fsync(whole.fileno())
    for suffix in SUFFIXES[1:]:  # a WAL of the file that was there must not be taken for this one's
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    draft.replace(target)


def _connect(path: Path, *, writes: bool) -> Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA query_only = {int(not writes)}")
    return connection
