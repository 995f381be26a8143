"""Materialized effective tags, for filters and counts: the result of decisions, predictions and thresholds.

One row per tag of a data set, with two sets of images: those that have the tag, and those with a decision on it.
Changes are computed as sets too, tag by tag, so one edit of thousands of images costs little more than of one.
This view comes before `predictions`: it compares the predictions stored so far with those of the batch.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.effective_tags import accepted_tags
from catalog.rows import fetch, fetch_number
from catalog.views import datasets, images, predictions, sets
from catalog.views.batch import CommitBatch
from catalog.views.images import SELECT_IMAGE, ImageRow
from catalog.views.sets import json_array, serialize
from contracts.events.datasets import (
    DatasetErased,
    DatasetRemoved,
    ImageErased,
    ImagesRemoved,
    TagsEdited,
    ThresholdsSet,
)
from contracts.queries.datasets import TagCount

TABLES = """
CREATE TABLE IF NOT EXISTS tag (
    dataset_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    images INTEGER NOT NULL,
    tagged BLOB NOT NULL,
    decided BLOB NOT NULL,
    PRIMARY KEY (dataset_id, tag)
);
CREATE INDEX IF NOT EXISTS tag_by_name ON tag (tag);
CREATE INDEX IF NOT EXISTS tag_by_use ON tag (dataset_id, images DESC, tag) WHERE images > 0;
"""

LOAD = "SELECT tag, tagged, decided FROM tag WHERE dataset_id = ? AND tag IN (SELECT value FROM json_each(?))"
LOAD_ALL = "SELECT tag, tagged, decided FROM tag WHERE dataset_id = ?"
SAVE = """
INSERT INTO tag (dataset_id, tag, images, tagged, decided) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET images = excluded.images, tagged = excluded.tagged, decided = excluded.decided
"""
DELETE = "DELETE FROM tag WHERE dataset_id = ? AND tag = ?"
DELETE_ALL = "DELETE FROM tag WHERE dataset_id = ?"
MOST_USED = "SELECT tagged FROM tag WHERE dataset_id = ? AND images > 0 ORDER BY images DESC"

TAGGED = "SELECT dataset_id, tagged FROM tag WHERE tag = :tag AND dataset_id = :dataset"
TAGGED_OF_ALL = "SELECT dataset_id, tagged FROM tag WHERE tag = :tag AND images > 0"
PAGE_OF_ALL = f"""{SELECT_IMAGE}
WHERE image.removed_sequence = 0 AND dataset.removed = 0
    AND (image.added_sequence, image.ordinal) > (:added, :ordinal)
ORDER BY image.added_sequence, image.ordinal LIMIT :limit
"""
# Within one data set, ordinals alone give the order.
PAGE = f"""{SELECT_IMAGE}
WHERE image.dataset_id = :dataset AND image.ordinal IN (SELECT value FROM json_each(:ordinals))
    AND (image.added_sequence, image.ordinal) > (:added, :ordinal)
ORDER BY image.ordinal LIMIT :limit
"""  # noqa: S608 - constants
COUNT_LIVE = """
SELECT IFNULL(SUM(size), 0) FROM image_set JOIN dataset ON dataset.id = dataset_id AND dataset.removed = 0
WHERE image_set.name = 'live' AND (:dataset IS NULL OR dataset_id = :dataset)
"""
COUNT_TAGGED = """
SELECT IFNULL(SUM(images), 0) FROM tag WHERE tag = :tag AND (:dataset IS NULL OR dataset_id = :dataset)
"""
TAG_COUNTS = """
SELECT tag, images FROM tag
WHERE dataset_id = :dataset AND images > 0 AND tag >= :low AND tag < :high
    AND (images < :images OR (images = :images AND tag > :tag))
ORDER BY images DESC, tag LIMIT :limit
"""
TAG_COUNTS_OF_ALL = """
SELECT tag, SUM(images) AS images FROM tag WHERE images > 0 AND tag >= :low AND tag < :high GROUP BY tag
HAVING SUM(images) < :images OR (SUM(images) = :images AND tag > :tag)
ORDER BY 2 DESC, tag LIMIT :limit
"""
COUNT_DISTINCT = """
SELECT COUNT(DISTINCT tag) FROM tag
WHERE (:dataset IS NULL OR dataset_id = :dataset) AND images > 0 AND tag >= :low AND tag < :high
"""
LAST_CHARACTER = "\U0010ffff"
"""Sorts after every character that a tag can begin with."""


@dataclass
class TagChange:
    """The change of one tag of one data set, by ordinal: whether images have it by decision, or by prediction."""

    decided: dict[int, bool] = field(default_factory=dict)
    predicted: dict[int, bool] = field(default_factory=dict)


Changes = defaultdict[str, TagChange]
"""By tag."""


@dataclass
class TagRow:
    """One tag of a data set: the images that have it, and those with a decision on it."""

    tagged: BitMap = field(default_factory=BitMap)
    decided: BitMap = field(default_factory=BitMap)


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, _ in batch.events(DatasetRemoved, DatasetErased):
        connection.execute(DELETE_ALL, (recorded.commit.aggregate_id,))
    for dataset_id, changes in _changes(connection, batch).items():
        _write(connection, dataset_id, changes)
    for recorded, removed in batch.events(ImagesRemoved):
        _remove_images(connection, recorded.commit.aggregate_id, batch.ordinals(removed.images))
    for recorded, erased in batch.events(ImageErased):
        _remove_images(connection, recorded.commit.aggregate_id, [erased.ordinal])
    for recorded, _ in batch.events(ThresholdsSet):
        _apply_thresholds(connection, recorded.commit.aggregate_id, recorded.sequence)


def _changes(connection: Connection, batch: CommitBatch) -> dict[str, Changes]:
    """By data set. The latest decision wins, and any decision wins over predictions."""
    found: defaultdict[str, Changes] = defaultdict(lambda: defaultdict(TagChange))
    for recorded, edit in batch.events(TagsEdited):
        changes = found[recorded.commit.aggregate_id]
        for ordinal in batch.ordinals(edit.images):
            for tag in edit.asserted:
                changes[tag].decided[ordinal] = True
            for tag in edit.rejected:
                changes[tag].decided[ordinal] = False
    for dataset_id, predicted in predictions.changes(connection, batch).items():
        thresholds = datasets.thresholds_at(connection, dataset_id, MAX_SEQUENCE)
        for ordinal, before, after in predicted:
            _compare(found[dataset_id], ordinal, accepted_tags(before, thresholds), accepted_tags(after, thresholds))
    return found


def _compare(changes: Changes, ordinal: int, before: set[str], after: set[str]) -> None:
    for tag in before ^ after:
        changes[tag].predicted[ordinal] = tag in after


def _apply_thresholds(connection: Connection, dataset_id: str, sequence: int) -> None:
    """An image whose tags change gets a new ETag."""
    old, new = (datasets.thresholds_at(connection, dataset_id, at) for at in (sequence - 1, sequence))
    changes: Changes = defaultdict(TagChange)
    for ordinal, predicted in predictions.iter_current(connection, dataset_id):
        _compare(changes, ordinal, accepted_tags(predicted, old), accepted_tags(predicted, new))
    changed = _write(connection, dataset_id, changes)
    images.mark_changed(connection, dataset_id, changed, sequence)


def _write(connection: Connection, dataset_id: str, changes: Changes) -> set[int]:
    """Update the rows of these tags; returns the images whose tags changed."""
    dataset = datasets.find(connection, dataset_id)
    if dataset is None or dataset.removed:
        return set()
    live = sets.load(connection, dataset_id, "live")
    rows = _rows(connection, LOAD, (dataset_id, json_array(changes)))
    gained: set[int] = set()
    lost: set[int] = set()
    for tag, change in changes.items():
        row = rows.setdefault(tag, TagRow())
        verdicts = {ordinal: has for ordinal, has in change.predicted.items() if ordinal not in row.decided}
        verdicts |= change.decided
        row.decided.update(change.decided)
        for ordinal, has in verdicts.items():
            if has != (ordinal in row.tagged) and ordinal in live:
                (row.tagged.add if has else row.tagged.discard)(ordinal)
                (gained if has else lost).add(ordinal)
    _save(connection, dataset_id, rows)
    tagged = sets.load(connection, dataset_id, "tagged")
    tagged.update(gained)
    tagged -= _untagged(connection, dataset_id, BitMap(lost - gained))
    sets.save(connection, dataset_id, "tagged", tagged)
    return gained | lost


def _remove_images(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> None:
    """Removed images have no tags."""
    removed = BitMap(ordinals)
    rows = _rows(connection, LOAD_ALL, (dataset_id,))
    for row in rows.values():
        row.tagged -= removed
    _save(connection, dataset_id, rows)
    sets.save(connection, dataset_id, "tagged", sets.load(connection, dataset_id, "tagged") - removed)


def _rows(connection: Connection, query: str, parameters: tuple[str, ...]) -> dict[str, TagRow]:
    rows = connection.execute(query, parameters)
    return {tag: TagRow(BitMap.deserialize(tagged), BitMap.deserialize(decided)) for tag, tagged, decided in rows}


def _save(connection: Connection, dataset_id: str, rows: dict[str, TagRow]) -> None:
    """A tag without images and decisions has no row, so that equal states give equal tables."""
    connection.executemany(
        SAVE,
        [
            (dataset_id, tag, len(row.tagged), serialize(row.tagged), serialize(row.decided))
            for tag, row in rows.items()
            if row.tagged or row.decided
        ],
    )
    empty = [(dataset_id, tag) for tag, row in rows.items() if not row.tagged and not row.decided]
    connection.executemany(DELETE, empty)


def _untagged(connection: Connection, dataset_id: str, candidates: BitMap) -> BitMap:
    """Those of these images without any tag. Scans the most used tags first, so it usually ends early."""
    left = candidates
    for row in connection.execute(MOST_USED, (dataset_id,)):
        if not left:
            break
        left = left - BitMap.deserialize(row["tagged"])
    return left


def page(
    connection: Connection, dataset_id: str | None, tag: str | None, after: tuple[int, int], limit: int
) -> list[ImageRow]:
    """Images in import order, those after (sequence of the import, ordinal)."""
    parameters = {"added": after[0], "ordinal": after[1], "limit": limit}
    if dataset_id is None and tag is None:
        return fetch(connection, ImageRow, PAGE_OF_ALL, parameters)
    found: list[ImageRow] = []
    for one_dataset, ordinals in _matching(connection, dataset_id, tag):
        in_dataset = parameters | {"dataset": one_dataset, "ordinals": json_array(ordinals)}
        found.extend(fetch(connection, ImageRow, PAGE, in_dataset))
    return sorted(found, key=lambda row: (row.added_sequence, row.ordinal))[:limit]


def _matching(connection: Connection, dataset_id: str | None, tag: str | None) -> list[tuple[str, BitMap]]:
    """The matching images of each data set."""
    if dataset_id is not None and tag is None:
        return [(dataset_id, sets.load(connection, dataset_id, "live"))]
    query = TAGGED_OF_ALL if dataset_id is None else TAGGED
    rows = connection.execute(query, {"tag": tag, "dataset": dataset_id})
    return [(row["dataset_id"], BitMap.deserialize(row["tagged"])) for row in rows]


def count_images(connection: Connection, dataset_id: str | None, tag: str | None) -> int:
    query = COUNT_LIVE if tag is None else COUNT_TAGGED
    return fetch_number(connection, query, {"dataset": dataset_id, "tag": tag})


def tag_counts(
    connection: Connection, dataset_id: str | None, prefix: str, after: tuple[int, str], limit: int
) -> list[TagCount]:
    """The most used tags first, then by name; those after (images, tag)."""
    query = TAG_COUNTS_OF_ALL if dataset_id is None else TAG_COUNTS
    parameters = _prefix_range(dataset_id, prefix) | {"images": after[0], "tag": after[1], "limit": limit}
    return fetch(connection, TagCount, query, parameters)


def count_distinct(connection: Connection, dataset_id: str | None, prefix: str) -> int:
    return fetch_number(connection, COUNT_DISTINCT, _prefix_range(dataset_id, prefix))


def _prefix_range(dataset_id: str | None, prefix: str) -> dict[str, object]:
    return {"dataset": dataset_id, "low": prefix, "high": prefix + LAST_CHARACTER}
