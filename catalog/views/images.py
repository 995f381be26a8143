"""Images: what they are, what was decided about their tags and when, and which tags hold now or held then."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from pyroaring import BitMap

from catalog.database import Connection, Row
from catalog.domain.standing import Decision, Standing, latest, standing
from catalog.views import datasets, predictions
from contracts.events import (
    CaptionSet,
    DatasetErased,
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
    tags INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS image_by_id ON image (id);
CREATE INDEX IF NOT EXISTS image_by_pixels ON image (dataset_id, pixels) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS image_by_age ON image (added, ordinal) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS image_live ON image (dataset_id, ordinal) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS image_tagged ON image (dataset_id, ordinal) WHERE removed = 0 AND tags > 0;
CREATE INDEX IF NOT EXISTS image_captioned ON image (dataset_id, ordinal) WHERE removed = 0 AND caption IS NOT NULL;
CREATE TABLE IF NOT EXISTS decision (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    part INTEGER NOT NULL,
    tag TEXT NOT NULL,
    asserted INTEGER NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence, part)
) WITHOUT ROWID;
"""

ADD = """
INSERT INTO image (dataset_id, ordinal, id, source, picture, thumbnail, pixels, dhash, format, width, height, size,
    name, animated, added, touched, created_at)
VALUES (:dataset_id, :ordinal, :image_id, :source, :picture, :thumbnail, :pixels, :dhash, :format, :width, :height,
    :size, :name, :animated, :sequence, :sequence, :at)
ON CONFLICT DO NOTHING
"""
# `removed` is the sequence it was removed at: versions from before hold it.
REMOVE = """
UPDATE image SET removed = ? WHERE dataset_id = ? AND removed = 0 AND ordinal IN (SELECT value FROM json_each(?))
"""
ERASE = ("DELETE FROM image", "DELETE FROM decision")
ERASED_ONE, ERASED_ALL = " WHERE dataset_id = ? AND ordinal = ?", " WHERE dataset_id = ?"
CAPTION = """
UPDATE image SET caption = ?, caption_source = ?, caption_sequence = ? WHERE dataset_id = ? AND ordinal = ?
"""
DECIDE = "INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
TOUCH = """
UPDATE image SET touched = ? WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))
"""

# An image shows the name of its data set, so a new name is a new ETag for it as well.
WHOLE = """
SELECT image.*, MAX(image.touched, dataset.named) AS etag, dataset.name AS dataset
FROM image JOIN dataset ON dataset.id = image.dataset_id
"""
BY_ID = WHOLE + "WHERE image.id = ?"
TWIN = WHOLE + "WHERE image.dataset_id = ? AND image.pixels = ? AND image.removed = 0 ORDER BY ordinal LIMIT 1"
AT = WHOLE + "WHERE image.dataset_id = ? AND image.ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal"  # noqa: S608 - constants
ORDINALS = "SELECT ordinal FROM image WHERE dataset_id = ? AND removed = 0 ORDER BY ordinal"
DECISIONS = """
SELECT ordinal, tag, asserted, source, actor, sequence FROM decision
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ?
ORDER BY ordinal, sequence, part
"""
CAPTIONS = """
SELECT ordinal, caption FROM image
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND caption IS NOT NULL
"""
TALLY = """
SELECT (SELECT COUNT(*) FROM image WHERE dataset_id = :id AND removed = 0) AS images,
    (SELECT COUNT(*) FROM image WHERE dataset_id = :id AND removed = 0 AND tags > 0) AS tagged,
    (SELECT COUNT(*) FROM image WHERE dataset_id = :id AND removed = 0 AND caption IS NOT NULL) AS captioned,
    (SELECT id FROM image WHERE dataset_id = :id AND removed = 0 ORDER BY ordinal LIMIT 1) AS cover
"""
NOW = 2**63 - 1
"""A sequence after all others."""


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


def apply(connection: Connection, stored: Stored) -> None:
    commit = stored.commit
    thing = commit.thing
    part = 0
    for fact in commit.facts:
        match fact:
            case ImageAdded():
                moment = {"dataset_id": thing, "sequence": stored.sequence, "at": commit.at.isoformat()}
                connection.execute(ADD, msgspec.structs.asdict(fact) | moment)
            case ImagesRemoved(images=images):
                connection.execute(REMOVE, (stored.sequence, thing, listed(unpacked(images))))
                touch(connection, thing, unpacked(images), stored.sequence)
            case ImageErased(ordinal=ordinal):
                for rows in ERASE:
                    connection.execute(rows + ERASED_ONE, (thing, ordinal))
            case DatasetErased():
                for rows in ERASE:
                    connection.execute(rows + ERASED_ALL, (thing,))
            case TagsEdited(images=images):
                part = _decide(connection, stored, fact, part)
                touch(connection, thing, unpacked(images), stored.sequence)
            case CaptionSet(ordinal=ordinal, caption=caption, source=source):
                said = None if caption is None else source
                connection.execute(CAPTION, (caption, said, stored.sequence, thing, ordinal))
                touch(connection, thing, [ordinal], stored.sequence)
            case _:
                pass


def _decide(connection: Connection, stored: Stored, fact: TagsEdited, part: int) -> int:
    """The number of the commit's next decision; it keeps those of several facts of one commit in order."""
    choices = [(tag, True) for tag in fact.asserted] + [(tag, False) for tag in fact.rejected]
    commit = stored.commit
    connection.executemany(
        DECIDE,
        (
            (commit.thing, ordinal, stored.sequence, number, tag, asserted, fact.source, commit.actor)
            for ordinal in unpacked(fact.images)
            for number, (tag, asserted) in enumerate(choices, start=part)
        ),
    )
    return part + len(choices)


def touch(connection: Connection, dataset_id: str, ordinals: Iterable[int], sequence: int) -> None:
    connection.execute(TOUCH, (sequence, dataset_id, listed(ordinals)))


def unpacked(images: bytes) -> list[int]:
    """The ordinals of a bitmap, rising."""
    return list(BitMap.deserialize(images))


def listed(values: Iterable[int]) -> str:
    """For `json_each`: so many values as there are, in one parameter."""
    return msgspec.json.encode(list(values)).decode()


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
    return [row["ordinal"] for row in connection.execute(ORDINALS, (dataset_id,))]


def tally(connection: Connection, dataset_id: str) -> Tally:
    return Tally(**dict(connection.execute(TALLY, {"id": dataset_id}).fetchone()))


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
    del columns["touched"], columns["tags"]
    columns["created_at"] = datetime.fromisoformat(columns["created_at"])
    columns["animated"], columns["removed"] = bool(columns["animated"]), bool(columns["removed"])
    return ImageRow(**columns)


def _decisions(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int
) -> dict[int, list[Decision]]:
    found: dict[int, list[Decision]] = {}
    for row in connection.execute(DECISIONS, (dataset_id, listed(ordinals), until)):
        columns = dict(row)
        found.setdefault(columns.pop("ordinal"), []).append(
            Decision(**columns | {"asserted": bool(columns["asserted"])})
        )
    return found
