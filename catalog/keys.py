"""The keys that seal private text, one per image, in a file of their own: never in the log, never in the archive.

A key is on disk before the event that needs it is appended. Deleting a key makes the text unreadable. Backups hold
copies of keys and blobs, so the file also registers where backups are: erasures are carried out there too.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import aiosqlite
import msgspec

from catalog.database import (
    TRUNCATE_WAL,
    Closing,
    Connection,
    DatabaseError,
    FileCorrupt,
    check_wal_truncated,
    open_reader,
    open_writer,
    peek,
    report_full_disk,
)
from catalog.key_rows import DIGEST, TABLES, columns_of, intact_rows, is_intact, read_any_text, row_digest
from catalog.migrations import Schema
from contracts.errors import Unavailable
from contracts.events.base import Sealed
from contracts.ids import ImageId
from contracts.sealed import new_key, open_sealed
from contracts.signatures import SigningKey
from contracts.wire.system.files import write_atomically

KEYS = "keys.db"
KNOWN_BACKUPS = "backups.json"
"""A copy of the list of backups, beside the keys: when these are lost, it says where to restore them from."""
MAX_SCHEMA_NUMBER = 100
"""A higher number, or a negative one, is damage and no newer version."""
KEYS_SCHEMA = Schema(
    KEYS,
    (
        (  # 1; a file from before there were numbers has these tables already
            "CREATE TABLE IF NOT EXISTS key (image_id TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS backup (path TEXT PRIMARY KEY, at TEXT NOT NULL) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS erased (image_id TEXT PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS signer (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL)",
        ),
        # 2; `replaces`: the id of a lost root key
        ("ALTER TABLE signer ADD COLUMN replaces TEXT NOT NULL DEFAULT ''",),
        # 3: the logs that it was used with
        ("CREATE TABLE IF NOT EXISTS log (log_id TEXT PRIMARY KEY) WITHOUT ROWID",),
        (  # 4: `row_digest` of the table's name and all other columns
            "ALTER TABLE key ADD COLUMN digest BLOB",
            "ALTER TABLE backup ADD COLUMN digest BLOB",
            "ALTER TABLE erased ADD COLUMN digest BLOB",
            "ALTER TABLE signer ADD COLUMN digest BLOB",
            "ALTER TABLE log ADD COLUMN digest BLOB",
            "UPDATE key SET digest = row_digest('key', image_id, key)",
            "UPDATE backup SET digest = row_digest('backup', path, at)",
            "UPDATE erased SET digest = row_digest('erased', image_id)",
            "UPDATE signer SET digest = row_digest('signer', one, key, replaces)",
            "UPDATE log SET digest = row_digest('log', log_id)",
        ),
    ),
)
NUMBER = "PRAGMA user_version"
UNREADABLE = (DatabaseError, UnicodeDecodeError)
"""What damage ends a statement with; the second where SQLite's message quotes damaged text."""
# An erased image never gets a key again, whatever log or backup this file is used with.
CREATE = """
INSERT OR IGNORE INTO key SELECT :image, :key, row_digest('key', :image, :key)
WHERE NOT EXISTS (SELECT 1 FROM erased WHERE image_id = :image)
"""
DESTROY = "DELETE FROM key WHERE image_id IN (SELECT value FROM json_each(?))"
MARK_ERASED = "INSERT OR IGNORE INTO erased SELECT value, row_digest('erased', value) FROM json_each(?)"
ERASED = "SELECT image_id FROM erased WHERE image_id > ? ORDER BY image_id LIMIT ?"
KEYS_OF = "SELECT * FROM key WHERE image_id IN (SELECT value FROM json_each(?))"
REGISTER_BACKUP = """
INSERT INTO backup VALUES (:path, :at, row_digest('backup', :path, :at))
ON CONFLICT (path) DO UPDATE SET at = excluded.at, digest = excluded.digest
"""
BACKUPS = "SELECT path, at FROM backup ORDER BY at, path"
FORGET_BACKUP = "DELETE FROM backup WHERE path = ?"
CREATE_ROOT_KEY = "INSERT OR IGNORE INTO signer VALUES (1, :key, '', row_digest('signer', 1, :key, ''))"
ROOT_KEY = "SELECT key FROM signer"
REPLACED_ROOT = "SELECT replaces FROM signer"
REPLACE_ROOT = "UPDATE signer SET replaces = :id, digest = row_digest('signer', one, key, :id)"
ERASED_AMONG = "SELECT image_id FROM erased WHERE image_id IN (SELECT value FROM json_each(?))"
ADD_LOG_ID = "INSERT OR IGNORE INTO log VALUES (:id, row_digest('log', :id))"


class RegisteredBackup(msgspec.Struct, frozen=True, kw_only=True):
    """The folder of a backup on the catalog's machine, and when the backup was last updated."""

    path: Path
    at: datetime


class Keys(Closing):
    """`keys.db`: image keys, erased images, registered backups and the root key; readable only by its owner."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._writer, self._reader = writer, reader
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Create the file if it is missing. SetupError: it is damaged, or a newer version wrote it."""
        writer = await _connect(partial(open_key_writer, path))
        try:
            return cls(path, writer, await _connect(partial(open_key_reader, path)))
        except BaseException:
            await writer.close()
            raise

    @property
    def folder(self) -> Path:
        """The folder that the file is in."""
        return self._path.parent

    async def create_keys(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """A key per image, on disk when this returns; existing keys are returned again. Erased images get none.

        Nor do images whose keys are damaged.
        """
        ids = list(images)
        async with self._transaction():
            await self._writer.executemany(CREATE, [{"image": image, "key": new_key()} for image in ids])
            return await _read(self._writer, ids)

    async def keys_of(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """The existing keys of these images; an erased image has none, nor has one whose key is damaged."""
        ids = list(images)
        return await _read(self._reader, ids) if ids else {}

    async def key_of(self, image: ImageId) -> bytes | None:
        return (await self.keys_of([image])).get(image)

    async def destroy(self, images: Iterable[ImageId]) -> None:
        """Delete these images' keys, overwriting them in the file and truncating the WAL; idempotent.

        Unavailable: the file cannot be written, or a reader blocks the truncation; then traces may remain.
        """
        parameters = (msgspec.json.encode(list(images)).decode(),)
        try:
            async with self._transaction():
                await self._writer.execute(DESTROY, parameters)
                await self._writer.execute(MARK_ERASED, parameters)
            async with self._writing:
                (row,) = await self._writer.execute_fetchall(TRUNCATE_WAL)
        except sqlite3.Error as error:
            raise Unavailable(f"the keys cannot be written: {error}", service="catalog") from error
        check_wal_truncated(*row)

    async def erased_images(self, after: str, limit: int) -> list[ImageId]:
        """At most `limit` images whose keys were destroyed, in order of id, after one id."""
        return [row["image_id"] for row in await self._reader.execute_fetchall(ERASED, (after, limit))]

    async def erased_among(self, images: Iterable[ImageId]) -> set[ImageId]:
        """Those of these images whose keys were destroyed; one without a key that is not among them lost it."""
        parameters = (msgspec.json.encode(list(images)).decode(),)
        return {row["image_id"] for row in await self._reader.execute_fetchall(ERASED_AMONG, parameters)}

    async def add_log_id(self, log_id: str) -> None:
        """Store that these keys belong to this log."""
        async with self._transaction():
            await self._writer.execute(ADD_LOG_ID, {"id": log_id})
        await self._write_known_backups()

    async def register_backup(self, path: Path, at: datetime) -> None:
        """Register a folder that holds copies of keys and blobs, or update its time."""
        if not path.is_absolute():
            raise ValueError(f"{path} is not absolute")
        async with self._transaction():
            await self._writer.execute(REGISTER_BACKUP, {"path": str(path), "at": at.astimezone(UTC).isoformat()})
        await self._write_known_backups()

    async def backups(self) -> list[RegisteredBackup]:
        """All registered backups, oldest first; some may be on a disk that is not connected now."""
        rows = await self._reader.execute_fetchall(BACKUPS)
        return [RegisteredBackup(path=Path(row["path"]), at=datetime.fromisoformat(row["at"])) for row in rows]

    async def forget_backup(self, path: Path) -> None:
        """Unregister a backup that was deleted; nothing happens if it is not registered."""
        async with self._transaction():
            await self._writer.execute(FORGET_BACKUP, (str(path),))
        await self._write_known_backups()

    async def _write_known_backups(self) -> None:
        """Only if it changed: a full disk must not stop a catalog that has nothing to write."""
        file = self._path.with_name(KNOWN_BACKUPS)
        content = msgspec.json.encode(await self.backups(), enc_hook=str)
        if not file.is_file() or await asyncio.to_thread(file.read_bytes) != content:
            await asyncio.to_thread(write_atomically, file, content, mode=0o600)

    async def public_key(self) -> bytes:
        """The public half of the root key: 32 bytes, Ed25519."""
        return (await self.root_key()).public

    async def create_signature(self, message: bytes) -> bytes:
        """An Ed25519 signature (RFC 8032), 64 bytes, with the root key."""
        return (await self.root_key()).sign(message)

    async def root_key(self) -> SigningKey:
        """The workshop's root key, created by the first call."""
        async with self._transaction():
            await self._writer.execute(CREATE_ROOT_KEY, {"key": SigningKey.generate().to_bytes()})
            (row,) = await self._writer.execute_fetchall(ROOT_KEY)
        return SigningKey(row["key"])

    async def replaced_root(self) -> str:
        """The id of the lost root key that this file's replaces; empty: none."""
        rows = list(await self._reader.execute_fetchall(REPLACED_ROOT))
        return rows[0]["replaces"] if rows else ""

    async def replace_root(self, lost: str) -> None:
        """From now on this file's root key is that of the workshop whose root key `lost` (an id) is gone for good."""
        await self.root_key()
        async with self._transaction():
            await self._writer.execute(REPLACE_ROOT, {"id": lost})

    async def close(self) -> None:
        """Waits for running reads and writes, then closes the file."""
        try:
            await self._reader.close()
        finally:  # also when cancelled: the process does not end before both threads have
            async with self._writing:
                await self._writer.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """A transaction of the writer, rolled back if its body raises or is cancelled; one at a time, in call order.

        The statements of a connection run in the order of the calls, also those whose caller was cancelled meanwhile,
        so the rollback comes last. OSError (ENOSPC): the disk is full.
        """
        async with self._writing:
            with report_full_disk(self._path):
                try:
                    await self._writer.execute("BEGIN IMMEDIATE")
                    yield
                    await self._writer.commit()
                except BaseException:
                    await self._writer.rollback()  # without effect where SQLite has rolled back by itself
                    raise


def open_key_writer(path: Path) -> Connection:
    """As `open_writer`; creates the tables, or those that an older file lacks, and overwrites what is deleted."""
    return open_writer(path, _prepare, secure_delete=True)


def open_key_reader(path: Path) -> Connection:
    """As `open_reader`."""
    connection = open_reader(path)
    read_any_text(connection)
    return connection


def check_schema(connection: Connection) -> None:
    """FileCorrupt: its tables are not those of its schema number. SetupError: a newer version wrote the file."""
    number = int(connection.execute(NUMBER).fetchone()[0])
    if not 0 <= number <= MAX_SCHEMA_NUMBER:
        raise FileCorrupt(f"{number} is no schema number")
    KEYS_SCHEMA.check(connection)
    is_current = number == len(KEYS_SCHEMA.steps)
    for table, columns in TABLES.items():
        found = columns_of(connection, table)
        if found != [*columns, DIGEST] if is_current else DIGEST in found:
            raise FileCorrupt(f"the columns of the table {table} are not those of schema {number}")


def _prepare(connection: sqlite3.Connection) -> None:
    connection.create_function("row_digest", -1, row_digest, deterministic=True)
    read_any_text(connection)
    check_schema(connection)
    KEYS_SCHEMA.migrate(connection)


def images_in(path: Path) -> set[ImageId]:
    """The images that a key file has an intact key of, or has erased; empty if it is missing or is no such file.

    It is opened anew, so this is what a restart would find.
    """

    def read(connection: sqlite3.Connection) -> set[ImageId]:
        read_any_text(connection)
        return {row["image_id"] for table in ("key", "erased") for row in intact_rows(connection, table)}

    return peek(path, read) or set()


def root_key_in(path: Path) -> SigningKey | None:
    """The root key in a file that is not open; none if it is missing, has none, or cannot be read."""
    row = _signer_in(path)
    return None if row is None else SigningKey(row["key"])


def replaced_root_in(path: Path) -> str:
    """As `Keys.replaced_root`, of a file that is not open."""
    row = _signer_in(path)
    return "" if row is None else str(row["replaces"])


def _signer_in(path: Path) -> sqlite3.Row | None:
    return peek(path, lambda connection: next(intact_rows(connection, "signer"), None))


def open_if_present(keys: dict[ImageId, bytes], image: ImageId, sealed: Sealed, context: str) -> str:
    """The plain text; empty if the image was erased. NotOpened: the bytes or the context are not what was sealed."""
    key = keys.get(image)
    return "" if key is None else open_sealed(key, sealed, context)


async def _connect(open_file: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """Opens the file first: a thread of aiosqlite whose own opening fails is not awaited and may outlive the loop."""
    connection = await asyncio.to_thread(open_file)
    return await aiosqlite.Connection(lambda: connection, iter_chunk_size=64)


async def _read(connection: aiosqlite.Connection, images: list[ImageId]) -> dict[ImageId, bytes]:
    rows = await connection.execute_fetchall(KEYS_OF, (msgspec.json.encode(images).decode(),))
    return {row["image_id"]: row["key"] for row in rows if is_intact("key", row)}


def known_backups(folder: Path) -> list[RegisteredBackup]:
    """The backups that were registered in the key file of this folder, also if that file is lost; newest first."""
    try:
        content = (folder / KNOWN_BACKUPS).read_bytes()
        listed = msgspec.json.decode(content, type=list[RegisteredBackup], dec_hook=_to_path)
    except (OSError, msgspec.DecodeError):
        return []  # it only makes a message better
    return sorted(listed, key=lambda backup: backup.at, reverse=True)


def _to_path(kind: type, value: object) -> object:
    return Path(value) if kind is Path and isinstance(value, str) else value
