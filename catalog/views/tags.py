"""Which tag is on which images, kept ready for filters and counts: the result of decisions, predictions, thresholds.

One row for each tag of a data set, with two sets of images: those that have it, and those of which somebody decided.
What changes is worked out as sets too, tag by tag, so one edit of thousands of images costs little more than of one.
This view comes before the predictions of its batch are kept: it compares what counted with what counts now.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.standing import accepted
from catalog.views import datasets, images, predictions, sets
from catalog.views.batch import Batch
from catalog.views.images import COLUMNS, JOINED, ImageRow, row_of
from catalog.views.sets import listed, opened, packed
from contracts.events import DatasetErased, DatasetRemoved, ImageErased, ImagesRemoved, TagsEdited, ThresholdsSet
from contracts.queries import TagCount

TABLES = """
CREATE TABLE IF NOT EXISTS tag (
    dataset_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    images INTEGER NOT NULL,
    holds BLOB NOT NULL,
    decided BLOB NOT NULL,
    PRIMARY KEY (dataset_id, tag)
);
CREATE INDEX IF NOT EXISTS tag_by_name ON tag (tag);
CREATE INDEX IF NOT EXISTS tag_by_use ON tag (dataset_id, images DESC, tag) WHERE images > 0;
"""

LOAD = "SELECT tag, holds, decided FROM tag WHERE dataset_id = ? AND tag IN (SELECT value FROM json_each(?))"
LOAD_ALL = "SELECT tag, holds, decided FROM tag WHERE dataset_id = ?"
SAVE = """
INSERT INTO tag (dataset_id, tag, images, holds, decided) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET images = excluded.images, holds = excluded.holds, decided = excluded.decided
"""
FORGET = "DELETE FROM tag WHERE dataset_id = ? AND tag = ?"
CLEAR = "DELETE FROM tag WHERE dataset_id = ?"
MOST_USED = "SELECT holds FROM tag WHERE dataset_id = ? AND images > 0 ORDER BY images DESC"

HOLDS = "SELECT holds FROM tag WHERE dataset_id = ? AND tag = ?"
HOLDERS = "SELECT dataset_id, holds FROM tag WHERE tag = ? AND images > 0"
PAGE = f"""{COLUMNS} {JOINED}
WHERE image.removed = 0 AND dataset.removed = 0 AND (image.added, image.ordinal) > (:added, :ordinal)
ORDER BY image.added, image.ordinal LIMIT :limit
"""
# Within one data set the ordinals alone say the order.
PAGE_OF = f"""{COLUMNS} {JOINED}
WHERE image.dataset_id = :dataset AND image.ordinal IN (SELECT value FROM json_each(:ordinals))
    AND (image.added, image.ordinal) > (:added, :ordinal)
ORDER BY image.ordinal LIMIT :limit
"""  # noqa: S608 - constants
LIVE = """
SELECT IFNULL(SUM(size), 0) FROM image_set JOIN dataset ON dataset.id = dataset_id AND dataset.removed = 0
WHERE image_set.name = 'live' AND (:dataset IS NULL OR dataset_id = :dataset)
"""
TAGGED = "SELECT IFNULL(SUM(images), 0) FROM tag WHERE tag = :tag AND (:dataset IS NULL OR dataset_id = :dataset)"
COUNTS = """
SELECT tag, images FROM tag
WHERE dataset_id = :dataset AND images > 0 AND tag >= :low AND tag < :high
    AND (images < :images OR (images = :images AND tag > :tag))
ORDER BY images DESC, tag LIMIT :limit
"""
COUNTS_OF_ALL = """
SELECT tag, SUM(images) AS images FROM tag WHERE images > 0 AND tag >= :low AND tag < :high GROUP BY tag
HAVING SUM(images) < :images OR (SUM(images) = :images AND tag > :tag)
ORDER BY 2 DESC, tag LIMIT :limit
"""
DIFFERENT = """
SELECT COUNT(DISTINCT tag) FROM tag
WHERE (:dataset IS NULL OR dataset_id = :dataset) AND images > 0 AND tag >= :low AND tag < :high
"""
BEYOND = "\U0010ffff"
"""After every sign a tag can begin with."""


@dataclass
class Change:
    """What becomes of one tag of one data set, by ordinal: does it hold by a decision, does it by what models see?"""

    decided: dict[int, bool] = field(default_factory=dict)
    seen: dict[int, bool] = field(default_factory=dict)


Changes = defaultdict[str, Change]
"""By tag."""


@dataclass
class Row:
    """One tag of a data set: the images that have it, and those of which somebody decided."""

    holds: BitMap = field(default_factory=BitMap)
    decided: BitMap = field(default_factory=BitMap)


def apply(connection: Connection, batch: Batch) -> None:
    for stored, _ in batch.facts(DatasetRemoved, DatasetErased):
        connection.execute(CLEAR, (stored.commit.thing,))
    for dataset_id, changes in _changes(connection, batch).items():
        _write(connection, dataset_id, changes)
    for stored, removed in batch.facts(ImagesRemoved):
        _take_out(connection, stored.commit.thing, batch.ordinals(removed.images))
    for stored, erased in batch.facts(ImageErased):
        _take_out(connection, stored.commit.thing, [erased.ordinal])
    for stored, _ in batch.facts(ThresholdsSet):
        _move_thresholds(connection, stored.commit.thing, stored.sequence)


def _changes(connection: Connection, batch: Batch) -> dict[str, Changes]:
    """By data set. The latest decision wins, and any decision wins over what a model sees."""
    found: defaultdict[str, Changes] = defaultdict(lambda: defaultdict(Change))
    for stored, edit in batch.facts(TagsEdited):
        changes = found[stored.commit.thing]
        for ordinal in batch.ordinals(edit.images):
            for tag in edit.asserted:
                changes[tag].decided[ordinal] = True
            for tag in edit.rejected:
                changes[tag].decided[ordinal] = False
    for dataset_id, looks in predictions.changes(connection, batch).items():
        bars = datasets.thresholds_at(connection, dataset_id, predictions.NOW)
        for ordinal, before, after in looks:
            _compare(found[dataset_id], ordinal, accepted(before, bars), accepted(after, bars))
    return found


def _compare(changes: Changes, ordinal: int, had: set[str], has: set[str]) -> None:
    for tag in has ^ had:
        changes[tag].seen[ordinal] = tag in has


def _move_thresholds(connection: Connection, dataset_id: str, sequence: int) -> None:
    """An image whose tags are others now has a new ETag."""
    old, new = (datasets.thresholds_at(connection, dataset_id, at) for at in (sequence - 1, sequence))
    changes: Changes = defaultdict(Change)
    for ordinal, seen in predictions.current_of_all(connection, dataset_id):
        _compare(changes, ordinal, accepted(seen, old), accepted(seen, new))
    touched = _write(connection, dataset_id, changes)
    images.touch(connection, dataset_id, touched, sequence)


def _write(connection: Connection, dataset_id: str, changes: Changes) -> set[int]:
    """Make the rows of these tags what they must be; the images whose tags are others now."""
    dataset = datasets.find(connection, dataset_id)
    if dataset is None or dataset.removed:
        return set()
    live = sets.load(connection, dataset_id, "live")
    rows = _rows(connection, LOAD, (dataset_id, listed(changes)))
    come: set[int] = set()
    gone: set[int] = set()
    for tag, change in changes.items():
        row = rows.setdefault(tag, Row())
        verdicts = {ordinal: holds for ordinal, holds in change.seen.items() if ordinal not in row.decided}
        verdicts |= change.decided
        row.decided.update(change.decided)
        for ordinal, holds in verdicts.items():
            if holds != (ordinal in row.holds) and ordinal in live:
                (row.holds.add if holds else row.holds.discard)(ordinal)
                (come if holds else gone).add(ordinal)
    _save(connection, dataset_id, rows)
    tagged = sets.load(connection, dataset_id, "tagged")
    tagged.update(come)
    tagged -= _untagged(connection, dataset_id, BitMap(gone - come))
    sets.save(connection, dataset_id, "tagged", tagged)
    return come | gone


def _take_out(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> None:
    """Images that are gone have no tags."""
    gone = BitMap(ordinals)
    rows = _rows(connection, LOAD_ALL, (dataset_id,))
    for row in rows.values():
        row.holds -= gone
    _save(connection, dataset_id, rows)
    sets.save(connection, dataset_id, "tagged", sets.load(connection, dataset_id, "tagged") - gone)


def _rows(connection: Connection, query: str, words: tuple[str, ...]) -> dict[str, Row]:
    return {tag: Row(opened(holds), opened(decided)) for tag, holds, decided in connection.execute(query, words)}


def _save(connection: Connection, dataset_id: str, rows: dict[str, Row]) -> None:
    """A tag that no image has and nobody decided about is no row, however it came to that."""
    connection.executemany(
        SAVE,
        [
            (dataset_id, tag, len(row.holds), packed(row.holds), packed(row.decided))
            for tag, row in rows.items()
            if row.holds or row.decided
        ],
    )
    empty = [(dataset_id, tag) for tag, row in rows.items() if not row.holds and not row.decided]
    connection.executemany(FORGET, empty)


def _untagged(connection: Connection, dataset_id: str, candidates: BitMap) -> BitMap:
    """Those of these images that have no tag at all. Most are found on the tags that many images have."""
    left = candidates
    for row in connection.execute(MOST_USED, (dataset_id,)):
        if not left:
            break
        left = left - opened(row["holds"])
    return left


def page(
    connection: Connection, dataset_id: str | None, tag: str | None, after: tuple[int, int], limit: int
) -> list[ImageRow]:
    """Images in the order they came in, those after (sequence it came with, ordinal)."""
    wanted = {"added": after[0], "ordinal": after[1], "limit": limit}
    if dataset_id is None and tag is None:
        return [row_of(row) for row in connection.execute(PAGE, wanted)]
    found: list[ImageRow] = []
    for holder, held in _held(connection, dataset_id, tag):
        words = wanted | {"dataset": holder, "ordinals": listed(held)}
        found.extend(row_of(row) for row in connection.execute(PAGE_OF, words))
    return sorted(found, key=lambda row: (row.added, row.ordinal))[:limit]


def _held(connection: Connection, dataset_id: str | None, tag: str | None) -> list[tuple[str, BitMap]]:
    """The images to list, for each data set."""
    if dataset_id is None:
        return [(row["dataset_id"], opened(row["holds"])) for row in connection.execute(HOLDERS, (tag,))]
    if tag is None:
        return [(dataset_id, sets.load(connection, dataset_id, "live"))]
    row = connection.execute(HOLDS, (dataset_id, tag)).fetchone()
    return [] if row is None else [(dataset_id, opened(row["holds"]))]


def count_images(connection: Connection, dataset_id: str | None, tag: str | None) -> int:
    query = LIVE if tag is None else TAGGED
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


def _within(dataset_id: str | None, prefix: str) -> dict[str, object]:
    return {"dataset": dataset_id, "low": prefix, "high": prefix + BEYOND}
