"""Sets of images as Roaring bitmaps of their ordinals, so that a change of thousands of images stays cheap."""

from array import array
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import fetch_value

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

CONTAINER, LARGEST_ARRAY = 1 << 16, 4096
"""Of the Roaring format: a container has the values with the same upper bits; an array has no more than these."""

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


def to_array(images: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(images.to_array(), dtype=np.uint32)


def serialize(images: BitMap) -> bytes:
    """Equal sets give equal bytes: which containers a set has depends on how it was made, until it is optimized.

    Where an array and runs take the same number of bytes, optimizing leaves either; a new set has the array.
    """
    images.run_optimize()
    if images.get_statistics()["n_run_containers"] and _may_have_arrays(images):
        images = BitMap(array("I", images.to_array()))
        images.run_optimize()
    return bytes(images.serialize())


def _may_have_arrays(images: BitMap) -> bool:
    """Whether a container is small enough: larger ones are bitmaps, which never take as many bytes as runs."""
    starts = range(0, images.max() + 1, CONTAINER)
    return any(0 < images.range_cardinality(start, start + CONTAINER) <= LARGEST_ARRAY for start in starts)
