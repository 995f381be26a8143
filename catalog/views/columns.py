"""Numbers of images as columns: some images of a data set in each row, so that all of them are read in little time.

Images that were removed keep their numbers; those that were erased have zeros.
"""

from collections.abc import Collection
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array

TABLES = """
CREATE TABLE IF NOT EXISTS image_column (
    dataset_id TEXT NOT NULL,
    name TEXT NOT NULL,
    part INTEGER NOT NULL,
    numbers BLOB NOT NULL,
    PRIMARY KEY (dataset_id, name, part)
);
"""

LOAD = """
SELECT part, numbers FROM image_column
WHERE dataset_id = ? AND name = ? AND part IN (SELECT value FROM json_each(?)) ORDER BY part
"""
LOAD_ALL = "SELECT part, numbers FROM image_column WHERE dataset_id = ? AND name = ? ORDER BY part"
SAVE = "INSERT OR REPLACE INTO image_column VALUES (?, ?, ?, ?)"
DELETE_ALL = "DELETE FROM image_column WHERE dataset_id = ?"

ColumnName = Literal["width", "height", "bytes", "dhash", "added", "added_at", "changed", "repeats"]
"""added: sequence of the log; added_at: microseconds since 1970; changed: sequence of the last change of an image;
repeats: 0 where they were never set."""
COLUMNS: tuple[ColumnName, ...] = ("width", "height", "bytes", "dhash", "added", "added_at", "changed", "repeats")
IMAGES_PER_PART = 1024

Numbers = NDArray[np.int64]
Ordinals = NDArray[np.int64]
"""Ascending, each once."""
_STORED = np.dtype("<i8")


def mark_changed(connection: Connection, dataset_id: str, images: BitMap, sequence: int) -> None:
    """Give images a new ETag because of an event that does not name them alone."""
    ordinals = ordinals_of(images)
    raise_changed(connection, dataset_id, ordinals, np.full(len(ordinals), sequence, dtype=np.int64))


def load(connection: Connection, dataset_id: str, name: ColumnName, images: BitMap) -> Numbers:
    """The numbers of these images, by ascending ordinal; 0 where there are none."""
    return _load(connection, dataset_id, name, ordinals_of(images))


def load_few(connection: Connection, dataset_id: str, name: ColumnName, ordinals: Collection[int]) -> dict[int, int]:
    """The same by ordinal, in less time for as many as a page has."""
    parts = sorted({ordinal // IMAGES_PER_PART for ordinal in ordinals})
    rows = connection.execute(LOAD, (dataset_id, name, json_array(parts)))
    stored = {part: np.frombuffer(numbers, dtype=_STORED) for part, numbers in rows}
    found = {}
    for ordinal in ordinals:
        part, at = divmod(ordinal, IMAGES_PER_PART)
        found[ordinal] = int(stored[part][at]) if part in stored and at < len(stored[part]) else 0
    return found


def changed_since(connection: Connection, dataset_id: str, sequence: int) -> BitMap:
    """The images that changed after a sequence; without those that were erased."""
    return _between(connection, dataset_id, "changed", sequence, MAX_SEQUENCE)


def added_until(connection: Connection, dataset_id: str, sequence: int) -> BitMap:
    """The images that were added up to a sequence; without those that were erased."""
    return _between(connection, dataset_id, "added", 0, sequence)


def _between(connection: Connection, dataset_id: str, name: ColumnName, above: int, at_most: int) -> BitMap:
    found = BitMap()
    for part, stored in connection.execute(LOAD_ALL, (dataset_id, name)):
        numbers = np.frombuffer(stored, dtype=_STORED)
        inside = np.flatnonzero((numbers > above) & (numbers <= at_most)) + part * IMAGES_PER_PART
        found.update(inside.tolist())
    return found


def _load(connection: Connection, dataset_id: str, name: ColumnName, ordinals: Ordinals) -> Numbers:
    found = np.zeros(int(ordinals[-1]) + 1 + IMAGES_PER_PART if len(ordinals) else 0, dtype=np.int64)
    for part, numbers in _stored_parts(connection, dataset_id, name, ordinals):
        start = part * IMAGES_PER_PART
        found[start : start + len(numbers)] = numbers
    return found[ordinals]


def raise_changed(connection: Connection, dataset_id: str, ordinals: Ordinals, sequences: Numbers) -> None:
    """Note when these images changed last, unless they have changed since."""
    sequences = np.maximum(sequences, _load(connection, dataset_id, "changed", ordinals))
    store(connection, dataset_id, "changed", ordinals, sequences)


def store(connection: Connection, dataset_id: str, name: ColumnName, ordinals: Ordinals, numbers: Numbers) -> None:
    """Replace the numbers of these images."""
    stored = dict(_stored_parts(connection, dataset_id, name, ordinals))
    rows = []
    for part in _parts_of(ordinals):
        start = part * IMAGES_PER_PART
        first, end = np.searchsorted(ordinals, (start, start + IMAGES_PER_PART))
        places = ordinals[first:end] - start
        before = stored.get(part, np.zeros(0, dtype=_STORED))
        column = np.zeros(max(len(before), int(places[-1]) + 1), dtype=_STORED)
        column[: len(before)] = before
        column[places] = numbers[first:end]
        rows.append((dataset_id, name, part, column.tobytes()))
    connection.executemany(SAVE, rows)


def store_for(connection: Connection, dataset_id: str, name: ColumnName, images: BitMap, number: int) -> None:
    """Replace the numbers of these images by the same one."""
    ordinals = ordinals_of(images)
    store(connection, dataset_id, name, ordinals, np.full(len(ordinals), number, dtype=np.int64))


def _stored_parts(
    connection: Connection, dataset_id: str, name: ColumnName, ordinals: Ordinals
) -> list[tuple[int, NDArray[np.int64]]]:
    """The stored parts that these images are in."""
    rows = connection.execute(LOAD, (dataset_id, name, json_array(_parts_of(ordinals))))
    return [(part, np.frombuffer(numbers, dtype=_STORED)) for part, numbers in rows]


def _parts_of(ordinals: Ordinals) -> list[int]:
    """Ascending, each once."""
    parts = ordinals // IMAGES_PER_PART
    found: list[int] = parts[np.append(True, parts[1:] != parts[:-1])[: len(parts)]].tolist()
    return found


def ordinals_of(images: BitMap) -> Ordinals:
    return np.frombuffer(images.to_array(), dtype=np.uint32).astype(np.int64)


def delete_all(connection: Connection, dataset_id: str) -> None:
    connection.execute(DELETE_ALL, (dataset_id,))
