"""Current predictions as columns, those of 1,024 images in each row: to read all of a data set, or of one tag, quickly.

The rows of `predictions` have the same by image; what changes there changes the columns in the same transaction.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import fetch_value
from catalog.views.batch import DeleteRows, Step
from catalog.views.pairs import IMAGES_PER_PART, TagColumns

TABLES = """
CREATE TABLE IF NOT EXISTS prediction_part (
    dataset_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    columns BLOB NOT NULL,
    PRIMARY KEY (dataset_id, part)
);
"""

CHANGES = "SELECT part, sequence FROM prediction_part WHERE dataset_id = ? ORDER BY part"
OF_PART = "SELECT columns FROM prediction_part WHERE (dataset_id, part) = (?, ?)"
OF_DATASET = "SELECT part, columns FROM prediction_part WHERE dataset_id = ? ORDER BY part"
SAVE = """
INSERT INTO prediction_part VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sequence = MAX(sequence, excluded.sequence), columns = excluded.columns
"""

TAG_ID = "SELECT id FROM tag_name WHERE tag = ?"

PARTS_AT_ONCE = 10
"""Rows, each some hundred kB, that are deleted before asking whether to go on."""

PackedRows = Iterable[tuple[int, bytes]]
"""Ordinal and packed predictions; an image may have several."""
ReadPart = Callable[[Connection, str, int, int], TagColumns]
"""The predictions of a part of a data set; the last argument is the sequence that changed it last."""


def changes(connection: Connection, dataset_id: str) -> list[tuple[int, int]]:
    """The parts that have or had predictions, each with the sequence that changed it last."""
    return connection.execute(CHANGES, (dataset_id,)).fetchall()


def read(connection: Connection, dataset_id: str, part: int) -> TagColumns:
    row = connection.execute(OF_PART, (dataset_id, part)).fetchone()
    return TagColumns.unpack(part * IMAGES_PER_PART, row["columns"] if row else b"")


def read_all(connection: Connection, dataset_id: str) -> Iterator[TagColumns]:
    """In the order of the images."""
    for part, columns in connection.execute(OF_DATASET, (dataset_id,)):
        yield TagColumns.unpack(part * IMAGES_PER_PART, columns)


def read_current(connection: Connection, dataset_id: str, part: int, _sequence: int) -> TagColumns:
    """As a ReadPart: from the row, which is always current."""
    return read(connection, dataset_id, part)


def confidences(
    connection: Connection, dataset_id: str, tag: str, ordinals: BitMap, read_part: ReadPart = read_current
) -> NDArray[np.float64]:
    """The highest current prediction of a tag for each of these images, by ascending ordinal; 0 without one.

    `read_part`: from memory, if they are there (`catalog/prediction_index.py`).
    """
    highest = np.zeros(ordinals.max() + 1 if ordinals else 0, dtype=np.float64)
    named = np.frombuffer(ordinals.to_array(), dtype=np.uint32)
    found = fetch_value(connection, TAG_ID, (tag,))
    if found is not None:
        parts = set(np.unique(named // IMAGES_PER_PART).tolist())
        for part, sequence in changes(connection, dataset_id):
            if part in parts:
                read_part(connection, dataset_id, part, sequence).raise_to(highest, found)
    return highest[named]


def replace(
    connection: Connection, dataset_id: str, images: BitMap, rows: PackedRows, changed: int | Mapping[int, int]
) -> None:
    """These are all current predictions of these images. `changed`: by which commit, or for each part."""
    of_part: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for ordinal, packed in rows:
        of_part[ordinal // IMAGES_PER_PART].append((ordinal, packed))
    saved = []
    for part, some in split(images):
        columns = read(connection, dataset_id, part).replaced(some, of_part[part])
        saved.append((dataset_id, part, changed if isinstance(changed, int) else changed[part], columns.pack()))
    connection.executemany(SAVE, saved)


def delete(dataset_id: str) -> Step:
    """Of a whole data set."""
    return DeleteRows(dataset_id=dataset_id, tables=("prediction_part",), column="part", at_once=PARTS_AT_ONCE)


def split(images: BitMap) -> Sequence[tuple[int, BitMap]]:
    """The images of each part."""
    parts = sorted({ordinal // IMAGES_PER_PART for ordinal in images})
    return [(part, images & BitMap(range(part * IMAGES_PER_PART, (part + 1) * IMAGES_PER_PART))) for part in parts]
