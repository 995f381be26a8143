"""Images: metadata, captions, decisions on their tags, and their effective tags, current or as of a sequence."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection, Row
from catalog.domain.effective_tags import Decision, EffectiveTags, derive_effective_tags, latest_decisions
from catalog.views import datasets, predictions, sets
from catalog.views.batch import CommitBatch
from catalog.views.sets import json_array
from contracts.events import (
    CaptionSet,
    DatasetErased,
    Event,
    ImageAdded,
    ImageErased,
    ImagesRemoved,
    RecordedCommit,
    Sealed,
    TagsEdited,
)
from contracts.ids import DatasetId, Digest, ImageId
from contracts.queries import TagView

TABLES = """
CREATE TABLE IF NOT EXISTS image (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    picture TEXT NOT NULL,
    thumbnail TEXT NOT NULL,
    pixels TEXT NOT NULL,
    dhash TEXT NOT NULL,
    format TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    size INTEGER NOT NULL,
    name BLOB NOT NULL,
    animated INTEGER NOT NULL,
    caption BLOB,
    caption_source TEXT,
    caption_sequence INTEGER NOT NULL DEFAULT 0,
    removed_sequence INTEGER NOT NULL DEFAULT 0,
    added_sequence INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS image_by_id ON image (id);
CREATE INDEX IF NOT EXISTS image_by_pixels ON image (dataset_id, pixels) WHERE removed_sequence = 0;
CREATE INDEX IF NOT EXISTS image_by_age ON image (added_sequence, ordinal) WHERE removed_sequence = 0;
CREATE TABLE IF NOT EXISTS image_change (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decision (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    asserted BLOB NOT NULL,
    rejected BLOB NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence, event_index)
) WITHOUT ROWID;
"""

ADD = """
INSERT INTO image (dataset_id, ordinal, id, source, picture, thumbnail, pixels, dhash, format, width, height, size,
    name, animated, added_sequence, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
MARK_CHANGED = """
INSERT INTO image_change VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence
"""
# 0 = not removed. Versions computed before that sequence contain the image.
REMOVE = """
UPDATE image SET removed_sequence = ?
WHERE dataset_id = ? AND removed_sequence = 0 AND ordinal IN (SELECT value FROM json_each(?))
"""
ERASE = ("DELETE FROM image", "DELETE FROM image_change", "DELETE FROM decision")
OF_IMAGE, OF_DATASET = " WHERE dataset_id = ? AND ordinal = ?", " WHERE dataset_id = ?"
SET_CAPTION = """
UPDATE image SET caption = ?, caption_source = ?, caption_sequence = ? WHERE dataset_id = ? AND ordinal = ?
"""
ADD_DECISION = "INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

# The ETag is the sequence of the last change. An image shows its data set's name, so a rename is a change too.
SELECT_IMAGE = """
SELECT image.*, dataset.name AS dataset, MAX(
    image.added_sequence, image.removed_sequence, image.caption_sequence, dataset.name_sequence,
    IFNULL((SELECT MAX(sequence) FROM decision WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT MAX(sequence) FROM prediction WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT sequence FROM image_change WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0)
) AS etag
FROM image JOIN dataset ON dataset.id = image.dataset_id
"""
BY_ID = SELECT_IMAGE + "WHERE image.id = ?"
BY_PIXELS = (
    SELECT_IMAGE
    + "WHERE image.dataset_id = ? AND image.pixels = ? AND image.removed_sequence = 0 ORDER BY ordinal LIMIT 1"
)
BY_ORDINALS = (
    SELECT_IMAGE + "WHERE image.dataset_id = ? AND image.ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal"  # noqa: S608 - constants
)
DECISIONS = """
SELECT ordinal, asserted, rejected, source, actor, sequence FROM decision
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ?
ORDER BY ordinal, sequence, event_index
"""
CAPTIONS = """
SELECT ordinal, caption FROM image
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND caption IS NOT NULL
"""
COVER = "SELECT id FROM image WHERE dataset_id = ? AND ordinal = ?"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """`name` and `caption` are sealed. `etag` is the last sequence that changed what clients see of the image."""

    id: ImageId
    dataset_id: DatasetId
    dataset: str
    ordinal: int
    source: Digest
    picture: Digest
    thumbnail: Digest
    pixels: Digest
    dhash: str
    format: str
    width: int
    height: int
    size: int
    name: Sealed
    animated: bool
    caption: Sealed | None
    caption_source: str | None
    caption_sequence: int
    removed_sequence: int
    added_sequence: int
    etag: int
    created_at: datetime

    @property
    def removed(self) -> bool:
        return self.removed_sequence > 0


@dataclass(frozen=True, kw_only=True)
class ImageCounts:
    """The numbers of live images of a data set, and the first of them."""

    images: int
    tagged: int
    captioned: int
    cover: ImageId | None


def apply(connection: Connection, batch: CommitBatch) -> None:
    _add(connection, batch.events(ImageAdded))
    for recorded, captioned in batch.events(CaptionSet):
        source = None if captioned.caption is None else captioned.source
        row = (captioned.caption, source, recorded.sequence, recorded.commit.aggregate_id, captioned.ordinal)
        connection.execute(SET_CAPTION, row)
    for recorded, removed in batch.events(ImagesRemoved):
        ordinals = json_array(batch.ordinals(removed.images))
        connection.execute(REMOVE, (recorded.sequence, recorded.commit.aggregate_id, ordinals))
    connection.executemany(ADD_DECISION, _decision_rows(batch))
    _update_sets(connection, batch)
    _erase(connection, batch)


def _add(connection: Connection, added: Sequence[tuple[RecordedCommit, ImageAdded]]) -> None:
    connection.executemany(
        ADD,
        [
            (
                *(recorded.commit.aggregate_id, image.ordinal, image.image_id),
                *(image.source, image.picture, image.thumbnail, image.pixels, image.dhash),
                *(image.format, image.width, image.height, image.size, image.name, image.animated),
                *(recorded.sequence, recorded.commit.at.isoformat()),
            )
            for recorded, image in added
        ],
    )


def _decision_rows(batch: CommitBatch) -> Iterator[tuple[object, ...]]:
    for index, recorded, edit in batch.indexed_events(TagsEdited):
        commit = recorded.commit
        decision = (_encode(edit.asserted), _encode(edit.rejected), edit.source, commit.actor)
        for ordinal in batch.ordinals(edit.images):
            yield (commit.aggregate_id, ordinal, recorded.sequence, index, *decision)


def mark_changed(connection: Connection, dataset_id: str, ordinals: Iterable[int], sequence: int) -> None:
    """Give images a new ETag because of an event that does not name them."""
    connection.executemany(MARK_CHANGED, [(dataset_id, ordinal, sequence) for ordinal in ordinals])


def _erase(connection: Connection, batch: CommitBatch) -> None:
    for recorded, image in batch.events(ImageErased):
        for delete in ERASE:
            connection.execute(delete + OF_IMAGE, (recorded.commit.aggregate_id, image.ordinal))
    for recorded, _ in batch.events(DatasetErased):
        for delete in ERASE:
            connection.execute(delete + OF_DATASET, (recorded.commit.aggregate_id,))
        sets.delete_all(connection, recorded.commit.aggregate_id)


def _update_sets(connection: Connection, batch: CommitBatch) -> None:
    """Keep the sets of live images and of those with a written caption."""
    changes: defaultdict[str, list[Event]] = defaultdict(list)
    for recorded, event in batch.events(ImageAdded, ImagesRemoved, ImageErased, CaptionSet):
        changes[recorded.commit.aggregate_id].append(event)
    for dataset_id, events in changes.items():
        live, captioned = sets.load(connection, dataset_id, "live"), sets.load(connection, dataset_id, "captioned")
        for event in events:
            match event:
                case ImageAdded(ordinal=ordinal):
                    live.add(ordinal)
                case ImageErased(ordinal=ordinal):
                    live.discard(ordinal)
                case ImagesRemoved(images=images):
                    live.difference_update(BitMap(batch.ordinals(images)))
                case CaptionSet(ordinal=ordinal, caption=None):
                    captioned.discard(ordinal)
                case CaptionSet(ordinal=ordinal):
                    captioned.add(ordinal)
                case _:
                    pass
        sets.save(connection, dataset_id, "live", live)
        sets.save(connection, dataset_id, "captioned", captioned & live)


def find(connection: Connection, image_id: str) -> ImageRow | None:
    """Also a removed one."""
    row = connection.execute(BY_ID, (image_id,)).fetchone()
    return None if row is None else parse_row(row)


def find_duplicate(connection: Connection, dataset_id: str, pixels: str) -> ImageRow | None:
    """The live image of the data set with exactly these pixels."""
    row = connection.execute(BY_PIXELS, (dataset_id, pixels)).fetchone()
    return None if row is None else parse_row(row)


def by_ordinals(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> list[ImageRow]:
    """In ascending order; includes removed images."""
    return [parse_row(row) for row in connection.execute(BY_ORDINALS, (dataset_id, json_array(ordinals)))]


def live_ordinals(connection: Connection, dataset_id: str) -> list[int]:
    """The ordinals of the images that were not removed, ascending."""
    return list(sets.load(connection, dataset_id, "live"))


def image_counts(connection: Connection, dataset_id: str) -> ImageCounts:
    live = sets.load(connection, dataset_id, "live")
    cover = connection.execute(COVER, (dataset_id, live[0])).fetchone() if live else None
    return ImageCounts(
        images=len(live),
        tagged=len(sets.load(connection, dataset_id, "tagged")),
        captioned=len(sets.load(connection, dataset_id, "captioned")),
        cover=None if cover is None else cover["id"],
    )


def captions(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> dict[int, Sealed]:
    """The written captions, sealed, of those images that have one."""
    rows = connection.execute(CAPTIONS, (dataset_id, json_array(ordinals)))
    return {row["ordinal"]: row["caption"] for row in rows}


def decisions_of_image(connection: Connection, dataset_id: str, ordinal: int) -> dict[str, Decision]:
    """The latest decision on each tag of an image: asserted or rejected."""
    return latest_decisions(_decisions(connection, dataset_id, [ordinal], MAX_SEQUENCE).get(ordinal, []))


def effective_tags(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None
) -> dict[int, EffectiveTags]:
    """The effective tags by ordinal, now or as of a sequence of the log (edits, runs and thresholds alike)."""
    until = MAX_SEQUENCE if as_of is None else as_of
    thresholds = datasets.thresholds_at(connection, dataset_id, until)
    decisions = _decisions(connection, dataset_id, ordinals, until)
    predicted = predictions.load_current(connection, dataset_id, json_array(ordinals), until)
    return {
        ordinal: derive_effective_tags(decisions.get(ordinal, ()), predicted.get(ordinal, ()), thresholds)
        for ordinal in ordinals
    }


def effective_tag_views(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None
) -> dict[int, tuple[TagView, ...]]:
    """The effective tags in caption order: decided, characters, general by probability."""
    found = effective_tags(connection, dataset_id, ordinals, as_of)
    return {ordinal: effective.tags for ordinal, effective in found.items()}


def tag_names_at(connection: Connection, image: ImageRow, sequence: int) -> tuple[str, ...]:
    """The tags that a client with this ETag saw: the base of a three-way merge."""
    return effective_tags(connection, image.dataset_id, [image.ordinal], sequence)[image.ordinal].names


def parse_row(row: Row) -> ImageRow:
    columns = dict(row)
    columns["created_at"] = datetime.fromisoformat(columns["created_at"])
    columns["animated"] = bool(columns["animated"])
    return ImageRow(**columns)


def _decisions(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int
) -> dict[int, list[Decision]]:
    found: dict[int, list[Decision]] = {}
    for row in connection.execute(DECISIONS, (dataset_id, json_array(ordinals), until)):
        ordinal, asserted, rejected, source, actor, sequence = row
        found.setdefault(ordinal, []).extend(
            Decision(tag=tag, asserted=is_asserted, source=source, actor=actor, sequence=sequence)
            for tags, is_asserted in ((asserted, True), (rejected, False))
            for tag in _decode(tags)
        )
    return found
