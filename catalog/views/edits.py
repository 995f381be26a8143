"""Decisions on tags: an edit of few images is kept with each of them, one of many images once, with its set of images.

For each image, what holds of its own edits is ready; what it shows is that, merged with the edits of many images.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.edits import Edit, add_edit, merge_edits
from catalog.rows import json_array
from catalog.views import bulk_history, bulk_latest, imports, undos
from catalog.views.batch import BULK, CommitBatch, Toggle, delete_erased
from contracts.events.datasets import DatasetErased, ImageErased, TagsEdited
from contracts.events.image_sets import ImageSet

TABLES = f"""
{bulk_history.TABLES}
{bulk_latest.TABLES}
CREATE TABLE IF NOT EXISTS decision (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    edit BLOB NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence, event_index)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decision_by_commit ON decision (dataset_id, sequence);
CREATE TABLE IF NOT EXISTS image_decisions (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    edits BLOB NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
"""

ADD = "INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?, ?)"
HELD = """
SELECT ordinal, edits FROM image_decisions WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))
"""
HOLD = "INSERT OR REPLACE INTO image_decisions VALUES (?, ?, ?)"
DELETE_HELD = "DELETE FROM image_decisions WHERE dataset_id = ? AND ordinal = ?"
# An edit in the commit that added the image counts as long as the image exists: while that is undone, it is not shown.
OF_IMAGES = """
SELECT decision.ordinal, sequence, edit, sequence = image.added_sequence AS is_first
FROM decision LEFT JOIN image ON (image.dataset_id, image.ordinal) = (decision.dataset_id, decision.ordinal)
WHERE decision.dataset_id = ? AND decision.ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ?
ORDER BY decision.ordinal, sequence, event_index
"""
SINCE = "SELECT ordinal, sequence, edit FROM decision WHERE dataset_id = ? AND sequence > ?"
SINCE_OF_IMAGES = """
SELECT ordinal, sequence, edit FROM decision
WHERE dataset_id = ? AND +sequence > ? AND ordinal IN (SELECT value FROM json_each(?))
"""
IMAGES_OF = """
SELECT sequence, ordinal FROM decision WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))
"""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Edit).decode
_decode_all = msgspec.json.Decoder(list[Edit]).decode

Edits = dict[int, list[Edit]]
"""By ordinal, oldest first."""


def apply(connection: Connection, batch: CommitBatch) -> None:
    _apply_edits(connection, batch)
    for toggle in batch.toggles:
        _hold_again(connection, toggle)
        _decide_bulk_again(connection, toggle)
    for recorded, erased in batch.events(ImageErased):
        of_image = edits_of(connection, recorded.commit.aggregate_id, [erased.ordinal])[erased.ordinal]
        batch.tags_of_erased |= {tag for edit in of_image for tag in edit.tags}
    delete_erased(connection, batch, "decision", "image_decisions")
    for recorded, _ in batch.events(DatasetErased):
        bulk_history.delete(connection, recorded.commit.aggregate_id)
        bulk_latest.delete(batch, recorded.commit.aggregate_id)


def edits_in(batch: CommitBatch) -> list[tuple[str, Edit, ImageSet]]:
    """The data set, the decisions and the images of each edit, in order."""
    id_of, found = batch.tag_ids.__getitem__, []
    for index, recorded, event in batch.indexed_events(TagsEdited):
        groups = (tuple(map(id_of, tags)) for tags in (event.asserted, event.rejected, event.withdrawn))
        edit = Edit(recorded.sequence, index, event.source, recorded.commit.actor, *groups)
        found.append((recorded.commit.aggregate_id, edit, event.images))
    return found


def _apply_edits(connection: Connection, batch: CommitBatch) -> None:
    rows: list[tuple[object, ...]] = []
    by_image: defaultdict[str, defaultdict[int, list[Edit]]] = defaultdict(lambda: defaultdict(list))
    for dataset_id, edit, images in batch.once(edits_in):
        if images.count > BULK:
            bulk_history.add(connection, dataset_id, edit, images.bitmap)
            bulk_latest.add(connection, dataset_id, edit, batch.ordinals(images))
            continue
        encoded = _encode(edit)
        for ordinal in batch.ordinals(images):
            rows.append((dataset_id, ordinal, *edit.place, encoded))
            by_image[dataset_id][ordinal].append(edit)
    connection.executemany(ADD, rows)
    for dataset_id, edits in by_image.items():
        held = held_edits(connection, dataset_id, edits)
        for ordinal, newer in edits.items():
            for edit in newer:
                held[ordinal] = add_edit(held.get(ordinal, ()), edit)
        _hold(connection, dataset_id, {ordinal: held[ordinal] for ordinal in edits})


def _hold_again(connection: Connection, toggle: Toggle) -> None:
    """After an undo: what holds of the edits of each image that the undone commits edited."""
    ordinals = edited_by(connection, toggle)
    if ordinals:
        _hold(connection, toggle.dataset_id, _counting(connection, toggle.dataset_id, ordinals, MAX_SEQUENCE))


def _decide_bulk_again(connection: Connection, toggle: Toggle) -> None:
    """After an undo: which edit of many images is the latest."""
    edited = bulk_history.edited_by(connection, toggle.dataset_id, toggle.commits)
    voided = undos.voided(connection, toggle.dataset_id) if edited else {}
    for tag, images in edited.items():
        newer = bulk_history.of_tag(connection, toggle.dataset_id, tag, voided)
        bulk_latest.decide_again(connection, toggle.dataset_id, tag, images, newer)


def edited_by(connection: Connection, toggle: Toggle) -> BitMap:
    """The images that have edits of the undone commits with them. An image that one of them added has no others."""
    edited: defaultdict[int, BitMap] = defaultdict(BitMap)
    for sequence, ordinal in connection.execute(IMAGES_OF, (toggle.dataset_id, json_array(toggle.commits))):
        edited[sequence].add(ordinal)
    added = imports.added_by_each(connection, toggle.dataset_id, edited)
    return BitMap.union(BitMap(), *(some - added.get(sequence, BitMap()) for sequence, some in edited.items()))


def _hold(connection: Connection, dataset_id: str, edits: Edits) -> None:
    connection.executemany(HOLD, [(dataset_id, ordinal, _encode(some)) for ordinal, some in edits.items() if some])
    connection.executemany(DELETE_HELD, [(dataset_id, ordinal) for ordinal, some in edits.items() if not some])


def held_edits(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> Edits:
    """What holds of the edits kept with these images."""
    rows = connection.execute(HELD, (dataset_id, json_array(ordinals)))
    return {ordinal: _decode_all(edits) for ordinal, edits in rows}


def _counting(connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int) -> Edits:
    """The same as of a sequence, from all their edits."""
    voided = undos.voided(connection, dataset_id, None if until == MAX_SEQUENCE else until)
    found: Edits = {ordinal: [] for ordinal in ordinals}
    for ordinal, sequence, edit, is_first in connection.execute(OF_IMAGES, (dataset_id, json_array(found), until)):
        if is_first or sequence not in voided:
            found[ordinal].append(_decode(edit))
    return {ordinal: merge_edits(edits) for ordinal, edits in found.items()}


def edits_after(connection: Connection, dataset_id: str, images: BitMap, sequence: int) -> list[tuple[Edit, BitMap]]:
    """The edits of these images after a sequence that count, each with its images."""
    voided = undos.voided(connection, dataset_id)
    if len(images) > BULK:  # many have more edits before it than all images have after it
        rows = connection.execute(SINCE, (dataset_id, sequence))
    else:
        rows = connection.execute(SINCE_OF_IMAGES, (dataset_id, sequence, json_array(images)))
    own = [(_decode(edit), BitMap([ordinal])) for ordinal, at, edit in rows if ordinal in images and at not in voided]
    return [*own, *bulk_history.between(connection, dataset_id, voided, after=sequence)]


def tags_edited_by(connection: Connection, toggle: Toggle, ordinals: Iterable[int]) -> dict[int, set[int]]:
    """The tags that the toggled commits edited, by image, as far as they are kept with images."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    rows = connection.execute(OF_IMAGES, (toggle.dataset_id, json_array(ordinals), MAX_SEQUENCE))
    for ordinal, sequence, edit, is_first in rows:
        if sequence in toggle.commits and not is_first:
            found[ordinal].update(_decode(edit).tags)
    return found


def edits_of(connection: Connection, dataset_id: str, ordinals: Sequence[int], until: int = MAX_SEQUENCE) -> Edits:
    """What holds of all edits of these images, as of a sequence."""
    if until == MAX_SEQUENCE:
        own = held_edits(connection, dataset_id, ordinals)
        bulk = _latest_bulk(connection, dataset_id, BitMap(ordinals))
    else:
        own = _counting(connection, dataset_id, ordinals, until)
        bulk = _bulk_until(connection, dataset_id, BitMap(ordinals), until)
    # Those kept with an image are merged already.
    return {
        ordinal: merge_edits([*own.get(ordinal, ()), *bulk[ordinal]]) if ordinal in bulk else own.get(ordinal, [])
        for ordinal in ordinals
    }


def _latest_bulk(connection: Connection, dataset_id: str, page: BitMap) -> Edits:
    """What holds of the edits of many images, of those of these images that had some."""
    rows = bulk_latest.of_images(connection, dataset_id, page)
    places = {place for some in rows.values() for _, place in some}
    return bulk_latest.cut(rows, bulk_history.at(connection, dataset_id, places))


def _bulk_until(connection: Connection, dataset_id: str, page: BitMap, until: int) -> Edits:
    """The edits of many images that counted as of a sequence, of those of these images that had some."""
    found: defaultdict[int, list[Edit]] = defaultdict(list)
    voided = undos.voided(connection, dataset_id, until)
    for edit, images in bulk_history.between(connection, dataset_id, voided, until=until):
        for ordinal in images & page:
            found[ordinal].append(edit)
    return found
