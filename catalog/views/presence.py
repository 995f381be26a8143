"""When images were part of their data set: from their addition on, but for the time between a removal and its undo."""

from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array
from catalog.views import erasures, sets, undos
from catalog.views.batch import CommitBatch, Toggle
from catalog.views.erasures import VersionRange
from catalog.views.sets import serialize
from contracts.events.datasets import DatasetErased, ImagesRemoved
from contracts.ids import Digest, ImageId

TABLES = """
CREATE TABLE IF NOT EXISTS removal (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence, event_index)
);
CREATE TABLE IF NOT EXISTS presence (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    present INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence, present)
);
"""

ADD_REMOVAL = "INSERT OR IGNORE INTO removal VALUES (?, ?, ?, ?)"
REMOVALS = "SELECT sequence, images FROM removal WHERE dataset_id = ?"
DELETE_REMOVALS = "DELETE FROM removal WHERE dataset_id = ?"
ADD = "INSERT OR IGNORE INTO presence VALUES (?, ?, ?, ?)"
OF_DATASET = "SELECT sequence, present, images FROM presence WHERE dataset_id = ? ORDER BY sequence"
ADDED_BEFORE = "SELECT ordinal, id, picture FROM image WHERE dataset_id = ? AND added_sequence <= ? ORDER BY ordinal"
EXISTING = """
SELECT ordinal, added_sequence, removed_sequence FROM image
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))
"""
# 0 = part of the data set. Otherwise, since when it is not.
SET_REMOVED = """
UPDATE image SET removed_sequence = ? WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))
"""


def apply(connection: Connection, batch: CommitBatch) -> None:
    for index, recorded, removed in batch.indexed_events(ImagesRemoved):
        dataset_id = recorded.commit.aggregate_id
        connection.execute(ADD_REMOVAL, (dataset_id, recorded.sequence, index, removed.images))
        went = _existing(connection, dataset_id, BitMap(batch.ordinals(removed.images)), is_out=False)
        _change(connection, dataset_id, recorded.sequence, went, present=False)
    for toggle in batch.toggles:
        _apply_toggle(connection, toggle)
    for recorded, _ in batch.events(DatasetErased):
        connection.execute(DELETE_REMOVALS, (recorded.commit.aggregate_id,))  # old versions still need `presence`


def _apply_toggle(connection: Connection, toggle: Toggle) -> None:
    """Which images came and went with an undo of removals or additions."""
    dataset_id, voided = toggle.dataset_id, undos.voided(connection, toggle.dataset_id)
    counting = (row["images"] for row in connection.execute(REMOVALS, (dataset_id,)) if row["sequence"] not in voided)
    removed = BitMap.union(BitMap(), *map(BitMap.deserialize, counting))
    rows = connection.execute(EXISTING, (dataset_id, json_array(toggle.images)))
    removed.update(row["ordinal"] for row in rows if row["added_sequence"] in voided)
    went = _existing(connection, dataset_id, toggle.images & removed, is_out=False)
    came = _existing(connection, dataset_id, toggle.images - removed, is_out=True)
    _change(connection, dataset_id, toggle.sequence, went, present=False)
    _change(connection, dataset_id, toggle.sequence, came, present=True)


def _existing(connection: Connection, dataset_id: str, images: BitMap, *, is_out: bool) -> BitMap:
    """Those of these images that were not erased, and are out of the data set or part of it."""
    rows = connection.execute(EXISTING, (dataset_id, json_array(images)))
    return BitMap(row["ordinal"] for row in rows if (row["removed_sequence"] > 0) == is_out)


def _change(connection: Connection, dataset_id: str, sequence: int, images: BitMap, *, present: bool) -> None:
    if not images:
        return
    connection.execute(ADD, (dataset_id, sequence, present, serialize(images)))
    connection.execute(SET_REMOVED, (0 if present else sequence, dataset_id, json_array(images)))
    live = sets.load(connection, dataset_id, "live")
    sets.save(connection, dataset_id, "live", live | images if present else live - images)


def changes(connection: Connection, dataset_id: str, until: int = MAX_SEQUENCE) -> list[tuple[int, bool, BitMap]]:
    """The images that came and went, in order, up to a sequence. An image comes first by its addition."""
    rows = connection.execute(OF_DATASET, (dataset_id,))
    return [(at, bool(present), BitMap.deserialize(images)) for at, present, images in rows if at <= until]


def spans(
    connection: Connection, dataset_id: str, ordinal: int, added: int, end: int = MAX_SEQUENCE
) -> list[VersionRange]:
    """The versions that contain an image, which was added at one sequence and is gone for good at another."""
    found, start = [], added
    for at, present, images in changes(connection, dataset_id, end):
        if ordinal in images:
            if not present:
                found.append(VersionRange(start, at, end))
            start = at if present else MAX_SEQUENCE
    return [*found, VersionRange(start, end, end)] if start < end else found


def present_at(connection: Connection, dataset_id: str, images: BitMap, as_of: int) -> BitMap:
    """Those of these images, added before, that were part of the data set at a sequence."""
    found = images
    for _, present, changed in changes(connection, dataset_id, as_of):
        found = found | changed & images if present else found - changed
    return found


def count_erased_in_version(connection: Connection, dataset_id: str, as_of: int, frozen: int) -> int:
    """The number of images erased since of the version computed at `as_of` and appended at sequence `frozen`.

    Images that were erased in between were taken out of it.
    """
    erased = erasures.of_dataset(connection, dataset_id)
    candidates = BitMap(row.ordinal or 0 for row in erased if row.added_sequence <= as_of and row.sequence > frozen)
    return len(present_at(connection, dataset_id, candidates, as_of))


def pictures_of_version(connection: Connection, dataset_id: str, as_of: int) -> list[tuple[ImageId, Digest]]:
    """The images of the version computed at `as_of`, with their pictures; without those erased since."""
    rows = connection.execute(ADDED_BEFORE, (dataset_id, as_of)).fetchall()
    present = present_at(connection, dataset_id, BitMap(row["ordinal"] for row in rows), as_of)
    return [(row["id"], row["picture"]) for row in rows if row["ordinal"] in present]
