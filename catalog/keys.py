"""The keys that seal private text, one per image, in a file of their own: never in the log, never in the archive.

A key is on disk before the event that needs it is appended. Deleting a key makes the text unreadable. Backups hold
copies of keys and blobs, so the file also registers where backups are: erasures are carried out there too.
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
"""Sealing context of file names."""
CAPTION = "caption"
"""Sealing context of captions, in events and in manifests."""

TABLES = """
CREATE TABLE IF NOT EXISTS key (image_id TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS backup (path TEXT PRIMARY KEY, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (image_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signer (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL);
"""
# An erased image never gets a key again, whatever log or backup this file is used with.
CREATE = """
INSERT OR IGNORE INTO key SELECT :image, :key WHERE NOT EXISTS (SELECT 1 FROM erased WHERE image_id = :image)
"""
DESTROY = "DELETE FROM key WHERE image_id IN (SELECT value FROM json_each(?))"
MARK_ERASED = "INSERT OR IGNORE INTO erased SELECT value FROM json_each(?)"
ERASED = "SELECT image_id FROM erased WHERE image_id > ? ORDER BY image_id LIMIT ?"
KEYS_OF = "SELECT image_id, key FROM key WHERE image_id IN (SELECT value FROM json_each(?))"
REGISTER_BACKUP = "INSERT INTO backup VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET at = excluded.at"
BACKUPS = "SELECT path, at FROM backup ORDER BY at, path"
FORGET_BACKUP = "DELETE FROM backup WHERE path = ?"
CREATE_SIGNING_KEY = "INSERT OR IGNORE INTO signer VALUES (1, ?)"
SIGNING_KEY = "SELECT key FROM signer"


class RegisteredBackup(msgspec.Struct, frozen=True, kw_only=True):
    """The folder of a backup on the catalog's machine, and when the backup was last updated."""

    path: Path
    at: datetime


class Keys:
    """`keys.db`: image keys, erased images, registered backups and the signing key; readable only by its owner."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, TABLES, secure_delete=True)

    async def create_keys(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """A key per image, on disk when this returns; existing keys are returned again. Erased images get none."""
        ids = list(images)
        new_rows = [{"image": image, "key": new_key()} for image in ids]

        def create(connection: Connection) -> dict[ImageId, bytes]:
            connection.executemany(CREATE, new_rows)
            return _read(connection, ids)

        return await self._database.write(create)

    async def keys_of(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """The existing keys of these images; an erased image has none."""
        ids = list(images)
        return await self._database.read(lambda connection: _read(connection, ids)) if ids else {}

    async def key_of(self, image: ImageId) -> bytes | None:
        return (await self.keys_of([image])).get(image)

    async def destroy(self, images: Iterable[ImageId]) -> None:
        """Delete these images' keys, overwriting them in the file and truncating the WAL; idempotent.

        Unavailable: the file cannot be written, or a reader blocks the truncation; then traces may remain.
        """
        parameters = (msgspec.json.encode(list(images)).decode(),)

        def delete_and_mark(connection: Connection) -> None:
            connection.execute(DESTROY, parameters)
            connection.execute(MARK_ERASED, parameters)

        try:
            await self._database.write(delete_and_mark)
            await self._database.truncate_wal()
        except sqlite3.Error as error:
            raise Unavailable(f"the keys cannot be written: {error}", service="catalog") from error

    async def erased_images(self, after: str, limit: int) -> list[ImageId]:
        """At most `limit` images whose keys were destroyed, in order of id, after one id."""
        return await self._database.read(
            lambda connection: [row["image_id"] for row in connection.execute(ERASED, (after, limit))]
        )

    async def register_backup(self, path: Path, at: datetime) -> None:
        """Register a folder that holds copies of keys and blobs, or update its time."""
        if not path.is_absolute():
            raise ValueError(f"{path} is not absolute")
        row = (str(path), at.astimezone(UTC).isoformat())
        await self._database.write(lambda connection: connection.execute(REGISTER_BACKUP, row))

    async def backups(self) -> list[RegisteredBackup]:
        """All registered backups, oldest first; some may be on a disk that is not connected now."""
        return await self._database.read(_backups)

    async def forget_backup(self, path: Path) -> None:
        """Unregister a backup that was deleted; nothing happens if it is not registered."""
        await self._database.write(lambda connection: connection.execute(FORGET_BACKUP, (str(path),)))

    async def public_key(self) -> bytes:
        """The public key that verifies this catalog's signatures: 32 bytes, Ed25519."""
        return (await self._signing_key()).public_key().public_bytes_raw()

    async def create_signature(self, message: bytes) -> bytes:
        """An Ed25519 signature (RFC 8032), 64 bytes, with the signing key of this catalog."""
        return (await self._signing_key()).sign(message)

    async def _signing_key(self) -> Ed25519PrivateKey:
        """The signing key, created by the first call."""
        new_private_key = Ed25519PrivateKey.generate().private_bytes_raw()

        def create(connection: Connection) -> bytes:
            connection.execute(CREATE_SIGNING_KEY, (new_private_key,))
            return bytes(connection.execute(SIGNING_KEY).fetchone()["key"])

        return Ed25519PrivateKey.from_private_bytes(await self._database.write(create))

    async def close(self) -> None:
        await self._database.close()


def open_if_present(keys: dict[ImageId, bytes], image: ImageId, sealed: Sealed, context: str) -> str:
    """The plain text; empty if the image was erased. NotOpened: the bytes or the context are not what was sealed."""
    key = keys.get(image)
    return "" if key is None else open_sealed(key, sealed, context)


def _backups(connection: Connection) -> list[RegisteredBackup]:
    rows = connection.execute(BACKUPS)
    return [RegisteredBackup(path=Path(row["path"]), at=datetime.fromisoformat(row["at"])) for row in rows]


def _read(connection: Connection, images: list[ImageId]) -> dict[ImageId, bytes]:
    rows = connection.execute(KEYS_OF, (msgspec.json.encode(images).decode(),))
    return {row["image_id"]: row["key"] for row in rows}
