"""Which tag is on which image, kept ready for filters and counts: the result of decisions, predictions, thresholds.

Always recomputed for the images a commit touches, in the same transaction; so this view comes after those it reads.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from catalog.database import Connection
from catalog.views import datasets, images, tagging
from catalog.views.images import ImageRow, listed, row_of, unpacked
from contracts.events import (
    DatasetErased,
    DatasetRemoved,
    ImageErased,
    ImagesRemoved,
    Stored,
    TaggingPredicted,
    TagsEdited,
    ThresholdsSet,
)
from contracts.queries import TagCount

TABLES = """
CREATE TABLE IF NOT EXISTS image_tag (
    tag TEXT NOT NULL,
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    PRIMARY KEY (tag, dataset_id, ordinal)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS image_tag_by_image ON image_tag (dataset_id, ordinal);
CREATE TABLE IF NOT EXISTS tag_count (
    dataset_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    images INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, tag)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_count_by_use ON tag_count (dataset_id, images DESC, tag);
"""

AT_ONCE = 500
"""Images recomputed in one go."""

LIVE = """
SELECT ordinal FROM image
WHERE dataset_id = ? AND removed = 0 AND ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal
"""
HELD = "SELECT ordinal, tag FROM image_tag WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))"
COME = "INSERT INTO image_tag VALUES (?, ?, ?)"
GO = "DELETE FROM image_tag WHERE tag = ? AND dataset_id = ? AND ordinal = ?"
CLEAR = "DELETE FROM image_tag WHERE dataset_id = ?"
CLEAR_COUNTS = "DELETE FROM tag_count WHERE dataset_id = ?"
COUNT_ON = "INSERT INTO tag_count VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET images = images + excluded.images"
FORGET_UNUSED = "DELETE FROM tag_count WHERE dataset_id = ? AND images = 0"
NUMBER = "UPDATE image SET tags = ? WHERE dataset_id = ? AND ordinal = ?"

LISTED = "FROM image JOIN dataset ON dataset.id = image.dataset_id AND dataset.removed = 0"
TAGGED = "JOIN image_tag ON image_tag.dataset_id = image.dataset_id AND image_tag.ordinal = image.ordinal"
COUNTS = """
SELECT tag, images FROM tag_count
WHERE dataset_id = :dataset AND tag >= :low AND tag < :high AND (images < :images OR (images = :images AND tag > :tag))
ORDER BY images DESC, tag LIMIT :limit
"""
COUNTS_OF_ALL = """
SELECT tag, SUM(images) AS images FROM tag_count WHERE tag >= :low AND tag < :high GROUP BY tag
HAVING SUM(images) < :images OR (SUM(images) = :images AND tag > :tag)
ORDER BY 2 DESC, tag LIMIT :limit
"""
DIFFERENT = """
SELECT COUNT(DISTINCT tag) FROM tag_count
WHERE (:dataset IS NULL OR dataset_id = :dataset) AND tag >= :low AND tag < :high
"""
NONE: frozenset[str] = frozenset()
BEYOND = "\U0010ffff"
"""After every sign a tag can begin with."""


def apply(connection: Connection, stored: Stored) -> None:
    thing = stored.commit.thing
    for fact in stored.commit.facts:
        match fact:
            case TagsEdited(images=touched) | ImagesRemoved(images=touched):
                recompute(connection, thing, unpacked(touched), stored.sequence)
            case ImageErased(ordinal=ordinal):
                recompute(connection, thing, [ordinal], stored.sequence)
            case ThresholdsSet():
                recompute(connection, thing, images.ordinals(connection, thing), stored.sequence)
            case DatasetRemoved() | DatasetErased():
                connection.execute(CLEAR, (thing,))
                connection.execute(CLEAR_COUNTS, (thing,))
            case TaggingPredicted(images=seen):
                dataset_id = tagging.run_of(connection, thing).asked.dataset_id
                ordinals = [image.ordinal for image in seen]
                images.touch(connection, dataset_id, ordinals, stored.sequence)
                datasets.touch(connection, dataset_id, stored)
                recompute(connection, dataset_id, ordinals, stored.sequence)
            case _:
                pass


def recompute(connection: Connection, dataset_id: str, ordinals: Sequence[int], sequence: int) -> None:
    """Make the rows of these images what they must be; an image whose tags are others now has a new ETag."""
    dataset = datasets.find(connection, dataset_id)
    if dataset is None or dataset.removed:
        return
    uses: Counter[str] = Counter()
    for some in _pieces(ordinals):
        now, held = _holding(connection, dataset_id, some), _held(connection, dataset_id, some)
        changed = [ordinal for ordinal in some if now.get(ordinal, NONE) != held.get(ordinal, NONE)]
        come = [(tag, dataset_id, one) for one in changed for tag in now.get(one, NONE) - held.get(one, NONE)]
        gone = [(tag, dataset_id, one) for one in changed for tag in held.get(one, NONE) - now.get(one, NONE)]
        connection.executemany(GO, sorted(gone))
        connection.executemany(COME, sorted(come))
        connection.executemany(NUMBER, [(len(now.get(one, NONE)), dataset_id, one) for one in changed])
        images.touch(connection, dataset_id, changed, sequence)
        uses.update(tag for tag, _, _ in come)
        uses.subtract(tag for tag, _, _ in gone)
    connection.executemany(COUNT_ON, [(dataset_id, tag, number) for tag, number in uses.items() if number])
    connection.execute(FORGET_UNUSED, (dataset_id,))


def _holding(connection: Connection, dataset_id: str, ordinals: Sequence[int]) -> dict[int, frozenset[str]]:
    """The tags that hold by decisions, predictions and thresholds, of the images that are still there."""
    live = [row["ordinal"] for row in connection.execute(LIVE, (dataset_id, listed(ordinals)))]
    standings = images.standings(connection, dataset_id, live)
    return {ordinal: frozenset(standing.names) for ordinal, standing in standings.items()}


def _held(connection: Connection, dataset_id: str, ordinals: Sequence[int]) -> dict[int, frozenset[str]]:
    """The tags as they stand in the rows."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for row in connection.execute(HELD, (dataset_id, listed(ordinals))):
        found[row["ordinal"]].add(row["tag"])
    return {ordinal: frozenset(names) for ordinal, names in found.items()}


def page(
    connection: Connection, dataset_id: str | None, tag: str | None, after: tuple[int, int], limit: int
) -> list[ImageRow]:
    """Images in the order they came in, those after (sequence it came with, ordinal)."""
    wanted = {"dataset": dataset_id, "tag": tag, "added": after[0], "ordinal": after[1], "limit": limit}
    query = _listing(
        "SELECT image.*, MAX(image.touched, dataset.named) AS etag, dataset.name AS dataset", dataset_id, tag
    )
    # Within one data set the ordinals alone say the order, and an index has them ready.
    if dataset_id is None:
        query += " AND (image.added, image.ordinal) > (:added, :ordinal) ORDER BY image.added, image.ordinal"
    else:
        query += " AND image.ordinal > :ordinal ORDER BY image.ordinal"
    return [row_of(row) for row in connection.execute(query + " LIMIT :limit", wanted)]


def count_images(connection: Connection, dataset_id: str | None, tag: str | None) -> int:
    query = _listing("SELECT COUNT(*)", dataset_id, tag)
    return int(connection.execute(query, {"dataset": dataset_id, "tag": tag}).fetchone()[0])


def counts(
    connection: Connection, dataset_id: str | None, prefix: str, after: tuple[int, str], limit: int
) -> list[TagCount]:
    """The most used first, then by name; those after (images, tag)."""
    query = COUNTS_OF_ALL if dataset_id is None else COUNTS
    wanted = {"images": after[0], "tag": after[1], "limit": limit}
    rows = connection.execute(query, _within(dataset_id, prefix) | wanted)
    return [TagCount(tag=row["tag"], images=row["images"]) for row in rows]


def count_different(connection: Connection, dataset_id: str | None, prefix: str) -> int:
    return int(connection.execute(DIFFERENT, _within(dataset_id, prefix)).fetchone()[0])


def _listing(what: str, dataset_id: str | None, tag: str | None) -> str:
    parts = [what, LISTED]
    if tag is not None:
        parts.append(TAGGED + " AND image_tag.tag = :tag")
    parts.append("WHERE image.removed = 0")
    if dataset_id is not None:
        parts.append("AND image.dataset_id = :dataset")
    return " ".join(parts)


def _within(dataset_id: str | None, prefix: str) -> dict[str, object]:
    return {"dataset": dataset_id, "low": prefix, "high": prefix + BEYOND}


def _pieces(ordinals: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ordinals), AT_ONCE):
        yield ordinals[start : start + AT_ONCE]
