"""Sets of images as Roaring bitmaps of their ordinals, so that a change of thousands of images stays cheap."""

from typing import Literal

from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import fetch_value
from catalog.views.bitmaps import serialize

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
DELETE = "DELETE FROM image_set WHERE dataset_id = ? AND name = ?"
DELETE_ALL = "DELETE FROM image_set WHERE dataset_id = ?"

SetName = Literal["live", "removed", "captioned", "reviewed"]
"""live: not removed or erased. removed: and not erased. captioned: with a written caption; reviewed: marked as such;
both also while removed."""


def load(connection: Connection, dataset_id: str, name: SetName) -> BitMap:
    images = fetch_value(connection, LOAD, (dataset_id, name))
    return BitMap() if images is None else BitMap.deserialize(images)


def save(connection: Connection, dataset_id: str, name: SetName, images: BitMap) -> None:
    """An empty set has no row, so that equal states give equal tables."""
    if images:
        connection.execute(SAVE, (dataset_id, name, len(images), serialize(images)))
    else:
        connection.execute(DELETE, (dataset_id, name))


def delete_all(connection: Connection, dataset_id: str) -> None:
    connection.execute(DELETE_ALL, (dataset_id,))
