"""The edits of many images as they were made, each with its set of images: read for undos and the past."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.edits import Edit, Place
from catalog.rows import json_array

TABLES = """
CREATE TABLE IF NOT EXISTS bulk_edit (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    edit BLOB NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence, event_index)
);
CREATE TABLE IF NOT EXISTS bulk_edit_of_tag (
    dataset_id TEXT NOT NULL,
    tag_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, tag_id, sequence, event_index)
) WITHOUT ROWID;
"""

ADD = "INSERT OR IGNORE INTO bulk_edit VALUES (?, ?, ?, ?, ?)"
ADD_OF_TAG = "INSERT OR IGNORE INTO bulk_edit_of_tag VALUES (?, ?, ?, ?)"
BETWEEN = """
SELECT sequence, edit, images FROM bulk_edit WHERE dataset_id = ? AND sequence > ? AND sequence <= ?
ORDER BY sequence, event_index
"""
OF_COMMITS = """
SELECT edit, images FROM bulk_edit WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))
"""
OF_TAG = """
SELECT sequence, edit, images FROM bulk_edit_of_tag JOIN bulk_edit USING (dataset_id, sequence, event_index)
WHERE dataset_id = ? AND tag_id = ? ORDER BY sequence DESC, event_index DESC
"""
AT = """
SELECT sequence, event_index, edit FROM bulk_edit WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Edit).decode


def add(connection: Connection, dataset_id: str, edit: Edit, images: bytes) -> None:
    connection.execute(ADD, (dataset_id, *edit.place, _encode(edit), images))
    connection.executemany(ADD_OF_TAG, [(dataset_id, tag, *edit.place) for tag in edit.tags])


def delete(connection: Connection, dataset_id: str) -> None:
    for table in ("bulk_edit", "bulk_edit_of_tag"):
        connection.execute(f"DELETE FROM {table} WHERE dataset_id = ?", (dataset_id,))  # noqa: S608 - our tables


def between(
    connection: Connection, dataset_id: str, voided: Container[int], *, after: int = 0, until: int = MAX_SEQUENCE
) -> list[tuple[Edit, BitMap]]:
    """Those after one sequence and up to another that are in no voided commit, oldest first."""
    rows = connection.execute(BETWEEN, (dataset_id, after, until))
    return [(_decode(edit), BitMap.deserialize(images)) for sequence, edit, images in rows if sequence not in voided]


def edited_by(connection: Connection, dataset_id: str, commits: Iterable[int]) -> dict[int, BitMap]:
    """The images of which these commits edited each tag."""
    found: defaultdict[int, BitMap] = defaultdict(BitMap)
    for edit, serialized in connection.execute(OF_COMMITS, (dataset_id, json_array(commits))):
        images = BitMap.deserialize(serialized)
        for tag in _decode(edit).tags:
            found[tag] |= images
    return found


def of_tag(connection: Connection, dataset_id: str, tag: int, voided: Container[int]) -> Iterator[tuple[Edit, BitMap]]:
    """Those about a tag that are in no voided commit, the newest first; each is read when it is asked for."""
    for sequence, edit, images in connection.execute(OF_TAG, (dataset_id, tag)):
        if sequence not in voided:
            yield _decode(edit), BitMap.deserialize(images)


def at(connection: Connection, dataset_id: str, places: Iterable[Place]) -> dict[Place, Edit]:
    """The edits at these places, and the others in their commits."""
    rows = connection.execute(AT, (dataset_id, json_array({sequence for sequence, _ in places})))
    return {(sequence, index): _decode(edit) for sequence, index, edit in rows}
