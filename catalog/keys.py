"""The keys private text is sealed with, one an image, in a file of their own: never in the log, never in the archive.

A key is on disk before the event that needs it is appended. Whose key is gone, whose text is gone. Backups hold copies
of keys and blobs, so the file also says where backups were made: what is erased is erased there too.
"""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from catalog.database import Connection, Database
from contracts.errors import Unavailable
from contracts.events import Sealed
from contracts.ids import ImageId
from contracts.sealed import new_key, open_sealed

NAME = "name"
"""What a sealed file name is sealed as."""
CAPTION = "caption"
"""What a sealed caption is sealed as, in events and in manifests."""

TABLES = """
CREATE TABLE IF NOT EXISTS key (image_id TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS backup (path TEXT PRIMARY KEY, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (image_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signer (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL);
"""
# Who was erased never gets a key again, whatever log or backup these keys are used with.
MAKE = """
INSERT OR IGNORE INTO key SELECT :image, :key WHERE NOT EXISTS (SELECT 1 FROM erased WHERE image_id = :image)
"""
DESTROY = "DELETE FROM key WHERE image_id IN (SELECT value FROM json_each(?))"
MARK = "INSERT OR IGNORE INTO erased SELECT value FROM json_each(?)"
MARKED = "SELECT image_id FROM erased WHERE image_id > ? ORDER BY image_id LIMIT ?"
READ = "SELECT image_id, key FROM key WHERE image_id IN (SELECT value FROM json_each(?))"
REGISTER = "INSERT INTO backup VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET at = excluded.at"
BACKUPS = "SELECT path, at FROM backup ORDER BY at, path"
FORGET = "DELETE FROM backup WHERE path = ?"
MAKE_SIGNER = "INSERT OR IGNORE INTO signer VALUES (1, ?)"
SIGNER = "SELECT key FROM signer"


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """The folder of a backup on the catalog's machine, and when it was last made."""

    path: Path
    at: datetime


class Keys:
    """`keys.db`, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, TABLES, secure_delete=True)

    async def new_keys(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """A key for each image, on disk when this returns; one that was made before is given again.

        None for an image that was erased.
        """
        wanted = list(images)
        fresh = [{"image": image, "key": new_key()} for image in wanted]

        def make(connection: Connection) -> dict[ImageId, bytes]:
            connection.executemany(MAKE, fresh)
            return _read(connection, wanted)

        return await self._database.write(make)

    async def keys_of(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """The keys that are there; an erased image has none."""
        wanted = list(images)
        return await self._database.read(lambda connection: _read(connection, wanted)) if wanted else {}

    async def key_of(self, image: ImageId) -> bytes | None:
        return (await self.keys_of([image])).get(image)

    async def destroy(self, images: Iterable[ImageId]) -> None:
        """Erase these images' keys, to the last byte of the file and its WAL; again changes nothing.

        Unavailable: the file cannot be written, or somebody reads it who does not end; then nothing is certain yet.
        """
        listed = (msgspec.json.encode(list(images)).decode(),)

        def forget(connection: Connection) -> None:
            connection.execute(DESTROY, listed)
            connection.execute(MARK, listed)

        try:
            await self._database.write(forget)
            await self._database.truncate_wal()
        except sqlite3.Error as error:
            raise Unavailable(f"the keys cannot be written: {error}", service="catalog") from error

    async def erased(self, after: str, limit: int) -> list[ImageId]:
        """Images whose keys were destroyed, by id."""
        return await self._database.read(
            lambda connection: [row["image_id"] for row in connection.execute(MARKED, (after, limit))]
        )

    async def register_backup(self, path: Path, at: datetime) -> None:
        """Remember a folder that holds copies of keys and blobs; made again, it has a new time."""
        if not path.is_absolute():
            raise ValueError(f"{path} is not absolute")
        row = (str(path), at.astimezone(UTC).isoformat())
        await self._database.write(lambda connection: connection.execute(REGISTER, row))

    async def backups(self) -> list[Backup]:
        """All that were registered, oldest first; some may lie on a disk that is not here now."""
        return await self._database.read(_backups)

    async def forget_backup(self, path: Path) -> None:
        """It is gone for good. One that was never registered changes nothing."""
        await self._database.write(lambda connection: connection.execute(FORGET, (str(path),)))

    async def public_key(self) -> bytes:
        """What others check this catalog's signatures with: 32 bytes, Ed25519."""
        return (await self._signer()).public_key().public_bytes_raw()

    async def sign(self, message: bytes) -> bytes:
        """64 bytes, Ed25519 (RFC 8032), with a key that is made once."""
        return (await self._signer()).sign(message)

    async def _signer(self) -> Ed25519PrivateKey:
        fresh = Ed25519PrivateKey.generate().private_bytes_raw()

        def make(connection: Connection) -> bytes:
            connection.execute(MAKE_SIGNER, (fresh,))
            return bytes(connection.execute(SIGNER).fetchone()["key"])

        return Ed25519PrivateKey.from_private_bytes(await self._database.write(make))

    async def close(self) -> None:
        await self._database.close()


def opened(keys: dict[ImageId, bytes], image: ImageId, sealed: Sealed, context: str) -> str:
    """The text again; empty when the image was erased. NotOpened for bytes that are not what was sealed."""
    key = keys.get(image)
    return "" if key is None else open_sealed(key, sealed, context)


def _backups(connection: Connection) -> list[Backup]:
    rows = connection.execute(BACKUPS)
    return [Backup(path=Path(row["path"]), at=datetime.fromisoformat(row["at"])) for row in rows]


def _read(connection: Connection, images: list[ImageId]) -> dict[ImageId, bytes]:
    rows = connection.execute(READ, (msgspec.json.encode(images).decode(),))
    return {row["image_id"]: row["key"] for row in rows}
