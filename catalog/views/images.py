"""Images: what they are, what was decided about their tags and when, and which tags hold now or held then."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from pyroaring import BitMap

from catalog.database import Connection, Row
from catalog.domain.standing import Decision, Standing, latest, standing
from catalog.views import datasets, predictions, sets
from catalog.views.batch import Batch
from catalog.views.predictions import NOW
from catalog.views.sets import listed
from contracts.events import (
    CaptionSet,
    DatasetErased,
    Fact,
    ImageAdded,
    ImageErased,
    ImagesRemoved,
    Sealed,
    Stored,
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
    removed INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS image_by_id ON image (id);
CREATE INDEX IF NOT EXISTS image_by_pixels ON image (dataset_id, pixels) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS image_by_age ON image (added, ordinal) WHERE removed = 0;
CREATE TABLE IF NOT EXISTS image_touch (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decision (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    part INTEGER NOT NULL,
    asserted BLOB NOT NULL,
    rejected BLOB NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence, part)
) WITHOUT ROWID;
"""

ADD = """
INSERT INTO image (dataset_id, ordinal, id, source, picture, thumbnail, pixels, dhash, format, width, height, size,
    name, animated, added, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
TOUCH = """
INSERT INTO image_touch VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET touched = excluded.touched
"""
# `removed` is the sequence it was removed at: versions from before hold it.
REMOVE = """
UPDATE image SET removed = ? WHERE dataset_id = ? AND removed = 0 AND ordinal IN (SELECT value FROM json_each(?))
"""
ERASE = ("DELETE FROM image", "DELETE FROM image_touch", "DELETE FROM decision")
ERASED_ONE, ERASED_ALL = " WHERE dataset_id = ? AND ordinal = ?", " WHERE dataset_id = ?"
CAPTION = """
UPDATE image SET caption = ?, caption_source = ?, caption_sequence = ? WHERE dataset_id = ? AND ordinal = ?
"""
DECIDE = "INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

# The last that was said of the image. It shows the name of its data set, so a new name is a new ETag for it as well.
COLUMNS = """
SELECT image.*, dataset.name AS dataset, MAX(
    image.added, image.removed, image.caption_sequence, dataset.named,
    IFNULL((SELECT MAX(sequence) FROM decision WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT MAX(sequence) FROM prediction WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0),
    IFNULL((SELECT touched FROM image_touch WHERE (dataset_id, ordinal) = (image.dataset_id, image.ordinal)), 0)
) AS etag
"""
JOINED = "FROM image JOIN dataset ON dataset.id = image.dataset_id"
WHOLE = f"{COLUMNS} {JOINED} "
BY_ID = WHOLE + "WHERE image.id = ?"
TWIN = WHOLE + "WHERE image.dataset_id = ? AND image.pixels = ? AND image.removed = 0 ORDER BY ordinal LIMIT 1"
AT = WHOLE + "WHERE image.dataset_id = ? AND image.ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal"  # noqa: S608 - constants
DECISIONS = """
SELECT ordinal, asserted, rejected, source, actor, sequence FROM decision
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ?
ORDER BY ordinal, sequence, part
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
    """`name` and `caption` are sealed. `etag` is the last sequence that changed what one sees of it."""

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
    removed: bool
    added: int
    etag: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many live images a data set has, and the first of them."""

    images: int
    tagged: int
    captioned: int
    cover: ImageId | None


def apply(connection: Connection, batch: Batch) -> None:
    _add(connection, batch.facts(ImageAdded))
    for stored, captioned in batch.facts(CaptionSet):
        said = None if captioned.caption is None else captioned.source
        row = (captioned.caption, said, stored.sequence, stored.commit.thing, captioned.ordinal)
        connection.execute(CAPTION, row)
    for stored, removed in batch.facts(ImagesRemoved):
        connection.execute(REMOVE, (stored.sequence, stored.commit.thing, listed(batch.ordinals(removed.images))))
    connection.executemany(DECIDE, _decisions_in(batch))
    _keep_sets(connection, batch)
    _erase(connection, batch)


def _add(connection: Connection, added: Sequence[tuple[Stored, ImageAdded]]) -> None:
    connection.executemany(
        ADD,
        [
            (
                *(stored.commit.thing, fact.ordinal, fact.image_id, fact.source, fact.picture, fact.thumbnail),
                *(fact.pixels, fact.dhash, fact.format, fact.width, fact.height, fact.size, fact.name, fact.animated),
                *(stored.sequence, stored.commit.at.isoformat()),
            )
            for stored, fact in added
        ],
    )


def _decisions_in(batch: Batch) -> Iterator[tuple[object, ...]]:
    for part, stored, fact in batch.numbered(TagsEdited):
        commit = stored.commit
        choices = (_encode(fact.asserted), _encode(fact.rejected), fact.source, commit.actor)
        for ordinal in batch.ordinals(fact.images):
            yield (commit.thing, ordinal, stored.sequence, part, *choices)


def touch(connection: Connection, dataset_id: str, ordinals: Iterable[int], sequence: int) -> None:
    """What one sees of these images changed, by a fact that does not name them."""
    connection.executemany(TOUCH, [(dataset_id, ordinal, sequence) for ordinal in ordinals])


def _erase(connection: Connection, batch: Batch) -> None:
    for stored, one in batch.facts(ImageErased):
        for rows in ERASE:
            connection.execute(rows + ERASED_ONE, (stored.commit.thing, one.ordinal))
    for stored, _ in batch.facts(DatasetErased):
        for rows in ERASE:
            connection.execute(rows + ERASED_ALL, (stored.commit.thing,))
        sets.drop_all(connection, stored.commit.thing)


def _keep_sets(connection: Connection, batch: Batch) -> None:
    """Which images are there, and which of them have a written caption."""
    changed: defaultdict[str, list[Fact]] = defaultdict(list)
    for stored, fact in batch.facts(ImageAdded, ImagesRemoved, ImageErased, CaptionSet):
        changed[stored.commit.thing].append(fact)
    for dataset_id, facts in changed.items():
        live, captioned = sets.load(connection, dataset_id, "live"), sets.load(connection, dataset_id, "captioned")
        for fact in facts:
            match fact:
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
    """Also one that was removed."""
    row = connection.execute(BY_ID, (image_id,)).fetchone()
    return None if row is None else row_of(row)


def twin(connection: Connection, dataset_id: str, pixels: str) -> ImageRow | None:
    """The image of the data set that shows exactly these pixels."""
    row = connection.execute(TWIN, (dataset_id, pixels)).fetchone()
    return None if row is None else row_of(row)


def at(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> list[ImageRow]:
    """Rising by ordinal; also those that were removed."""
    return [row_of(row) for row in connection.execute(AT, (dataset_id, listed(ordinals)))]


def ordinals(connection: Connection, dataset_id: str) -> list[int]:
    """Of the images that are still there, rising."""
    return list(sets.load(connection, dataset_id, "live"))


def tally(connection: Connection, dataset_id: str) -> Tally:
    live = sets.load(connection, dataset_id, "live")
    cover = connection.execute(COVER, (dataset_id, live[0])).fetchone() if live else None
    return Tally(
        images=len(live),
        tagged=len(sets.load(connection, dataset_id, "tagged")),
        captioned=len(sets.load(connection, dataset_id, "captioned")),
        cover=None if cover is None else cover["id"],
    )


def captions(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> dict[int, Sealed]:
    """The written captions, sealed, of those images that have one."""
    rows = connection.execute(CAPTIONS, (dataset_id, listed(ordinals)))
    return {row["ordinal"]: row["caption"] for row in rows}


def asserted(connection: Connection, dataset_id: str, ordinal: int) -> dict[str, Decision]:
    """The decision that counts for each tag somebody decided on: asserted or rejected."""
    return latest(_decisions(connection, dataset_id, [ordinal], NOW).get(ordinal, []))


def standings(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None
) -> dict[int, Standing]:
    """Which tags these images have and why, now or as of a sequence of the log (edits, runs and thresholds alike)."""
    until = NOW if as_of is None else as_of
    thresholds = datasets.thresholds_at(connection, dataset_id, until)
    decided = _decisions(connection, dataset_id, ordinals, until)
    seen = predictions.current(connection, dataset_id, listed(ordinals), until)
    return {ordinal: standing(decided.get(ordinal, ()), seen.get(ordinal, ()), thresholds) for ordinal in ordinals}


def effective_tags(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None
) -> dict[int, tuple[TagView, ...]]:
    """The tags that hold, in the order captions have them: decided, characters, general by probability."""
    found = standings(connection, dataset_id, ordinals, as_of)
    return {ordinal: standing.tags for ordinal, standing in found.items()}


def seen_at(connection: Connection, image: ImageRow, sequence: int) -> tuple[str, ...]:
    """The tags somebody saw whose ETag was this sequence: the base of a three-way merge."""
    return standings(connection, image.dataset_id, [image.ordinal], sequence)[image.ordinal].names


def row_of(row: Row) -> ImageRow:
    columns = dict(row)
    columns["created_at"] = datetime.fromisoformat(columns["created_at"])
    columns["animated"], columns["removed"] = bool(columns["animated"]), bool(columns["removed"])
    return ImageRow(**columns)


def _decisions(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int
) -> dict[int, list[Decision]]:
    found: dict[int, list[Decision]] = {}
    for row in connection.execute(DECISIONS, (dataset_id, listed(ordinals), until)):
        ordinal, asserted, rejected, source, actor, sequence = row
        found.setdefault(ordinal, []).extend(
            Decision(tag=tag, asserted=holds, source=source, actor=actor, sequence=sequence)
            for tags, holds in ((asserted, True), (rejected, False))
            for tag in _decode(tags)
        )
    return found
