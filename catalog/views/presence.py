"""When images were part of their data set: from their addition on, but for the time between a removal and its undo."""

from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array
from catalog.views import erasures, imports, sets, undos
from catalog.views.batch import CommitBatch, ImagesStep, Toggle, takes_long
from catalog.views.bitmaps import serialize
from catalog.views.erasures import VersionRange
from catalog.views.sets import SetName
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
# 0 = part of the data set. Otherwise, since when it is not.
IN_AND_OUT: tuple[SetName, SetName] = ("live", "removed")
SET_REMOVED = """
UPDATE image SET removed_sequence = ? WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))
"""


def apply(connection: Connection, batch: CommitBatch) -> None:
    for index, recorded, removed in batch.indexed_events(ImagesRemoved):
        dataset_id = recorded.commit.aggregate_id
        connection.execute(ADD_REMOVAL, (dataset_id, recorded.sequence, index, removed.images.bitmap))
        went = batch.ordinals(removed.images) & sets.load(connection, dataset_id, "live")
        _change(connection, batch, (dataset_id, recorded.sequence), went, present=False)
    for toggle in batch.toggles:
        _apply_toggle(connection, batch, toggle)
    for recorded, _ in batch.events(DatasetErased):
        connection.execute(DELETE_REMOVALS, (recorded.commit.aggregate_id,))  # old versions still need `presence`


def _apply_toggle(connection: Connection, batch: CommitBatch, toggle: Toggle) -> None:
    """Which images came and went with an undo of removals or additions."""
    dataset_id, voided = toggle.dataset_id, undos.voided(connection, toggle.dataset_id)
    counting = (row["images"] for row in connection.execute(REMOVALS, (dataset_id,)) if row["sequence"] not in voided)
    removed = BitMap.union(BitMap(), *map(BitMap.deserialize, counting))
    removed |= imports.added_by(connection, dataset_id, voided)
    went = toggle.images & removed & sets.load(connection, dataset_id, "live")
    came = (toggle.images - removed) & sets.load(connection, dataset_id, "removed")
    _change(connection, batch, (dataset_id, toggle.sequence), went, present=False)
    _change(connection, batch, (dataset_id, toggle.sequence), came, present=True)


def _change(
    connection: Connection, batch: CommitBatch, change: tuple[str, int], changed: BitMap, *, present: bool
) -> None:
    """`change`: the data set, and the sequence."""
    dataset_id, sequence = change
    if not changed:
        return
    batch.moved[dataset_id] = batch.moved.get(dataset_id, BitMap()) | changed
    connection.execute(ADD, (dataset_id, sequence, present, serialize(changed)))
    live, removed = (sets.load(connection, dataset_id, name) for name in IN_AND_OUT)
    into, out_of = (live, removed) if present else (removed, live)
    into |= changed
    out_of -= changed
    sets.save(connection, dataset_id, "live", live)
    sets.save(connection, dataset_id, "removed", removed)
    step = MarkRemoved(dataset_id=dataset_id, images=serialize(changed), removed=0 if present else sequence)
    if takes_long(len(changed)):
        batch.steps.append(step)
    else:
        step.change(connection, changed)


class MarkRemoved(ImagesStep, frozen=True, kw_only=True):
    """Says in the rows of images since when they are not part of the data set; 0: they are."""

    removed: int

    def change(self, connection: Connection, images: BitMap, /) -> None:
        connection.execute(SET_REMOVED, (self.removed, self.dataset_id, json_array(images)))


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
