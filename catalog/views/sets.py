"""Sets of images, as Roaring bitmaps of their ordinals: a change of thousands of images is a few words of work."""

from collections.abc import Iterable
from typing import Literal

import msgspec
from pyroaring import BitMap

from catalog.database import Connection

TABLES = """
CREATE TABLE IF NOT EXISTS image_set (
    dataset_id TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, name)
) WITHOUT ROWID;
"""

LOAD = "SELECT images FROM image_set WHERE dataset_id = ? AND name = ?"
SAVE = "INSERT OR REPLACE INTO image_set VALUES (?, ?, ?, ?)"
DROP = "DELETE FROM image_set WHERE dataset_id = ? AND name = ?"
DROP_ALL = "DELETE FROM image_set WHERE dataset_id = ?"

Name = Literal["live", "captioned", "tagged"]
"""Those that are still there; of these, those with a written caption, and those with a tag."""


def load(connection: Connection, dataset_id: str, name: Name) -> BitMap:
    row = connection.execute(LOAD, (dataset_id, name)).fetchone()
    return BitMap() if row is None else opened(row["images"])


def save(connection: Connection, dataset_id: str, name: Name, images: BitMap) -> None:
    """An empty set is no row, however it came to be empty."""
    if images:
        connection.execute(SAVE, (dataset_id, name, len(images), packed(images)))
    else:
        connection.execute(DROP, (dataset_id, name))


def drop_all(connection: Connection, dataset_id: str) -> None:
    connection.execute(DROP_ALL, (dataset_id,))


def opened(images: bytes) -> BitMap:
    return BitMap.deserialize(images)


def packed(images: BitMap) -> bytes:
    """Equal sets are equal bytes, as long as none was ever written in runs: `unpacked` takes those apart."""
    return bytes(images.serialize())


def unpacked(images: bytes) -> list[int]:
    """The ordinals of a set in a fact, rising."""
    return list(BitMap.deserialize(images))


def listed(values: Iterable[int] | Iterable[str]) -> str:
    """For `json_each`: so many values as there are, in one parameter."""
    return msgspec.json.encode(list(values)).decode()
