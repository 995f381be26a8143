"""The keys private text is sealed with, one an image, in a file of their own: never in the log, never in the archive.

A key is on disk before the event that needs it is appended. Whose key is gone, whose text is gone.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from catalog.database import Connection, Database
from contracts.events import Sealed
from contracts.ids import ImageId
from contracts.sealed import new_key, open_sealed

NAME = "name"
"""What a sealed file name is sealed as."""
CAPTION = "caption"
"""What a sealed caption is sealed as, in events and in manifests."""

TABLES = "CREATE TABLE IF NOT EXISTS key (image_id TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;"
MAKE = "INSERT OR IGNORE INTO key VALUES (?, ?)"
READ = "SELECT image_id, key FROM key WHERE image_id IN (SELECT value FROM json_each(?))"


class Keys:
    """`keys.db`, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, TABLES, secure_delete=True)

    async def new_keys(self, images: Iterable[ImageId]) -> dict[ImageId, bytes]:
        """A key for each image, on disk when this returns; one that was made before is given again."""
        wanted = list(images)
        fresh = [(image, new_key()) for image in wanted]

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

    async def close(self) -> None:
        await self._database.close()


def opened(keys: dict[ImageId, bytes], image: ImageId, sealed: Sealed, context: str) -> str:
    """The text again; empty when the image was erased. NotOpened for bytes that are not what was sealed."""
    key = keys.get(image)
    return "" if key is None else open_sealed(key, sealed, context)


def _read(connection: Connection, images: list[ImageId]) -> dict[ImageId, bytes]:
    rows = connection.execute(READ, (msgspec.json.encode(images).decode(),))
    return {row["image_id"]: row["key"] for row in rows}
