"""A SQLite file with one writer thread and a few readers, as all database files of the catalog are used.

WAL and `synchronous=FULL`: a committed transaction survives a power cut. Each read runs in its own transaction and so
sees one consistent snapshot.
"""

import asyncio
import errno
import os
import queue
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

from contracts.errors import SetupError, Unavailable
from contracts.wire.system.files import move_into_place

Connection = sqlite3.Connection
Row = sqlite3.Row
DatabaseError = sqlite3.DatabaseError
T = TypeVar("T")
Prepare = Callable[[Connection], None]

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
PASSING_CODES = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM}
)
"""Errors that say nothing about the file; a full disk, too few file descriptors or memory cause them as well."""
TRUNCATE_WAL = "PRAGMA wal_checkpoint(TRUNCATE)"
"""Empties the WAL, which still contains deleted content."""
INTEGRITY_CHECK = "PRAGMA integrity_check(1)"
QUICK_CHECK = "PRAGMA quick_check(1)"
"""The same, but whether an index agrees with its table is not checked, which takes most of the time."""
CORRUPT_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Closing(ABC):
    """Something that the end of its `async with` closes."""

    @abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Snapshot:
    """A read transaction that lasts for several reads, on a connection and a thread of its own."""

    def __init__(self, connection: Connection, thread: ThreadPoolExecutor) -> None:
        self._connection, self._thread = connection, thread

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the state that the first read saw."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)


class Database(Closing):
    """One file: the connection that writes, from `open_writer`, and a few that read."""

    def __init__(self, path: Path, writer: Connection) -> None:
        self._path = path
        self._connection = writer
        self._truncation = asyncio.Lock()
        self._snapshots = 0
        self._no_snapshots = asyncio.Event()
        self._no_snapshots.set()
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for _ in range(READERS):
            self._idle.put(open_reader(path))
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

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["Snapshot"]:
        """One state of the file for several reads, whatever is written meanwhile; keep it short, the WAL grows."""
        async with self.snapshot_elsewhere() as path:
            thread = ThreadPoolExecutor(1, thread_name_prefix=f"snapshot-{path.stem}")
            try:
                connection = await asyncio.wrap_future(thread.submit(_connect, path, writes=False))
                try:
                    await asyncio.wrap_future(thread.submit(connection.execute, "BEGIN"))
                    yield Snapshot(connection, thread)
                finally:
                    thread.submit(connection.close)  # after the read that a cancelled caller left behind
            finally:
                thread.shutdown(wait=False)

    @asynccontextmanager
    async def snapshot_elsewhere(self) -> AsyncIterator[Path]:
        """The file, which another process may read one state of meanwhile: the WAL is not truncated."""
        async with self._truncation:
            self._snapshots += 1
            self._no_snapshots.clear()
        try:
            yield self._path
        finally:
            self._snapshots -= 1
            if not self._snapshots:
                self._no_snapshots.set()

    async def truncate_wal(self) -> None:
        """Empty the WAL, which still contains deleted content, when no snapshot needs it any more.

        Unavailable: a reader is using it.
        """
        async with self._truncation:
            await self._no_snapshots.wait()  # here, because the writer's thread must not wait for it
            await asyncio.get_running_loop().run_in_executor(self._writer, self._truncate_wal)

    async def close(self) -> None:
        """Waits for running reads and writes, then closes the file."""
        await asyncio.to_thread(self._close)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with report_full_disk(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()  # without effect where SQLite has rolled back by itself
                raise
        return result

    def _truncate_wal(self) -> None:
        check_wal_truncated(*self._connection.execute(TRUNCATE_WAL).fetchone())

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
    """Run `work` on a file that is not open yet; none if there is no file, or it is not such a database.

    Unavailable, or OSError (ENOSPC): it cannot be opened at the moment.
    """
    if not path.exists():
        return None
    try:
        with closing(_connect(path, writes=True)) as connection:
            return work(connection)
    except UnicodeDecodeError:  # SQLite's message quotes damaged text
        return None
    except sqlite3.DatabaseError as error:
        if passing := _passing_error(path, error):
            raise passing from error
        return None


def open_writer(
    path: Path, prepare: Prepare, *, secure_delete: bool = False, rebuildable: bool = False, cache_kib: int = CACHE_KIB
) -> Connection:
    """A connection that writes; creates the file if it is missing, readable by its owner only.

    `prepare` creates what is missing in it. `rebuildable`: a power cut may lose the last transactions (they can be
    redone), but not corrupt the file. SetupError: it is not an intact database. Unavailable, or OSError (ENOSPC): it
    cannot be opened at the moment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _create_private(path)
    with _opening(path), ExitStack() as closed_on_error:
        connection = closed_on_error.enter_context(closing(_connect(path, writes=True)))
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if rebuildable else 'FULL'}")
        connection.execute(f"PRAGMA secure_delete = {int(secure_delete)}")
        prepare(connection)
        closed_on_error.pop_all()
    return connection


def open_reader(path: Path) -> Connection:
    """A read-only connection; several statements need BEGIN for one snapshot. SetupError: not an intact database."""
    with _opening(path):
        return _connect(path, writes=False)


def create_tables(tables: str, connection: Connection) -> None:
    """Execute a script, which must be idempotent, in one transaction."""
    connection.executescript(f"BEGIN IMMEDIATE; {tables}; COMMIT;")


@contextmanager
def report_full_disk(path: Path) -> Iterator[None]:
    """Raise OSError (ENOSPC) where SQLite reports a full disk."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error_code(error) == sqlite3.SQLITE_FULL:
            raise _no_room(path) from error
        raise


class FileCorrupt(sqlite3.DatabaseError):
    """A check of the file found it damaged."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def check_integrity(connection: Connection, check: str = INTEGRITY_CHECK) -> None:
    """FileCorrupt, or the DatabaseError that the check ends with, if the file is damaged."""
    if (wrong := connection.execute(check).fetchone()[0]) != "ok":
        raise FileCorrupt(wrong.strip().replace("\n", ", "))


def is_corrupt(error: BaseException) -> bool:
    """Whether SQLite reports that the file itself is damaged, not that a statement is wrong."""
    return isinstance(error, sqlite3.DatabaseError) and error_code(error) in CORRUPT_CODES


def error_code(error: sqlite3.Error) -> int:
    """SQLite's code, without the details of an extended one; 0 for errors of the module, as of a closed connection.

    Where text in a file is not UTF-8 the module raises an OperationalError without a code: the file is damaged.
    """
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return sqlite3.SQLITE_CORRUPT if isinstance(error, sqlite3.OperationalError) else 0
    return code & 0xFF


def check_wal_truncated(busy: int, *_: int) -> None:
    """Check the row that TRUNCATE_WAL returns. Unavailable: a reader was using the WAL."""
    if busy:
        raise Unavailable("the WAL of a database is in use and could not be truncated", service="catalog")


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
    _create_private(draft)
    try:
        with closing(_connect(source, writes=False)) as connection, closing(sqlite3.connect(draft)) as copied:
            connection.backup(copied)
            copied.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        remove_database(draft)
        raise SetupError(f"{source} cannot be copied: {error}") from error
    for suffix in SUFFIXES[1:]:  # a WAL of the replaced file must not be applied to this one
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    move_into_place(draft, target)


def _create_private(path: Path) -> None:
    """Create the file unless it exists, readable by its owner only; SQLite gives the WAL the same mode.

    One that exists is not opened: closing it would end the locks that SQLite holds on it for other connections of this
    process (POSIX), and another process that closes it would then take itself for the last, and delete the WAL.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _passing_error(path, error) or SetupError(f"{path.name} cannot be opened: {error}") from error


def _passing_error(path: Path, error: sqlite3.DatabaseError) -> Exception | None:
    """The error to raise where a file cannot be opened at the moment; None where something is wrong with the file."""
    code = error_code(error)
    if code == sqlite3.SQLITE_FULL:
        return _no_room(path)
    if code in PASSING_CODES:
        return Unavailable(f"{path.name} cannot be opened now: {error}", service="catalog")
    return None


def _no_room(path: Path) -> OSError:
    return OSError(errno.ENOSPC, f"there is no room for {path.name}")


def _connect(path: Path, *, writes: bool) -> Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA query_only = {int(not writes)}")
    return connection
