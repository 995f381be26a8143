"""Sets of images of each tag of a data set, so that a change of any number of images is a few operations on sets.

Sets also have removed images, which so get all their tags back; only counts leave them out. Edits of many images
(bulk) may be undone, and then what images had before counts again: of a tag with such edits, the decisions that are
kept with images themselves have sets of their own (`own_…`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.bulk_edits import Decided
from catalog.domain.edits import Change, Counted
from catalog.domain.tag_sets import DECIDED, NONE, TagSets, differs
from catalog.rows import json_array, tuple_cursor
from catalog.views import tag_digits
from catalog.views.bitmaps import serialize
from catalog.views.sets import load
from contracts.filters import TagSource

TABLES = """
CREATE TABLE IF NOT EXISTS tag (
    dataset_id TEXT NOT NULL,
    tag_id INTEGER NOT NULL,
    tag TEXT NOT NULL,
    images INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, tag_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_by_name ON tag (dataset_id, tag) WHERE images > 0;
CREATE INDEX IF NOT EXISTS tag_by_use ON tag (dataset_id, images DESC, tag) WHERE images > 0;
CREATE TABLE IF NOT EXISTS tag_set (
    dataset_id TEXT NOT NULL,
    tag_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, tag_id, kind)
);
"""

IS_REMOVED = "SELECT removed FROM dataset WHERE id = ?"
LOAD = "SELECT tag_id, kind, images FROM tag_set WHERE dataset_id = ?"
SAVE = "INSERT INTO tag_set VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET images = excluded.images"
DELETE = "DELETE FROM tag_set WHERE dataset_id = ? AND tag_id = ? AND kind = ?"
COUNTS = "SELECT tag_id, images FROM tag WHERE dataset_id = ?"
SOME, RANGE = "AND tag_id IN (SELECT value FROM json_each(?))", "AND tag_id BETWEEN ? AND ?"
DENSE = 4
"""Of so many tags in a row one is looked for, or more: then all of them are read, which takes half as long for each."""
ADD_TAG = "INSERT INTO tag SELECT ?, id, tag, ? FROM tag_name WHERE id = ?"
SET_COUNT = "UPDATE tag SET images = ? WHERE (dataset_id, tag_id) = (?, ?)"
DELETE_TAG = "DELETE FROM tag WHERE dataset_id = ? AND tag_id = ?"
TAGGED = """
SELECT tag_set.tag_id, tag_set.images, tag.images AS count FROM tag_set JOIN tag USING (dataset_id, tag_id)
WHERE dataset_id = ? AND kind = 'tagged' AND tag_id > ? ORDER BY tag_id LIMIT ?
"""
PREDICTED = "SELECT tag_id FROM tag_set WHERE dataset_id = ? AND kind = 'predicted'"
DECISIONS = """
SELECT tag, kind, images FROM tag_name JOIN tag_set ON tag_id = tag_name.id
WHERE dataset_id = ? AND kind IN ('asserted', 'imported', 'rejected') AND tag IN (SELECT value FROM json_each(?))
"""
SETS_BY_TAG = """
SELECT tag.tag, tag_set.images FROM tag JOIN tag_set
    ON (tag_set.dataset_id, tag_set.tag_id, tag_set.kind) = (tag.dataset_id, tag.tag_id, 'tagged')
WHERE tag.dataset_id = ? AND tag.images > 0
"""
SETS_BY_TAG_OF = f"{SETS_BY_TAG} AND tag.tag IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
SETS_OF_TAG = """
SELECT kind, images FROM tag_name JOIN tag_set ON tag_id = tag_name.id WHERE tag_name.tag = ? AND dataset_id = ?
"""
OF_TAG = """
SELECT tag_set.dataset_id, tag_set.images FROM tag_name CROSS JOIN dataset CROSS JOIN tag_set
    ON (tag_set.dataset_id, tag_id, kind) = (dataset.id, tag_name.id, :kind)
WHERE tag_name.tag = :tag AND (:dataset IS NULL OR dataset.id = :dataset)
"""


Row = tuple[Any, ...]
"""The values of a statement."""
Passing = tuple[int, BitMap, BitMap | None]
"""A tag, the images that predictions of it pass for, and those that they no longer pass for; None: all others."""
Stored = dict[str, BitMap]
"""The sets of a tag, by kind."""


@dataclass
class TagRows:
    """What is to be written of some tags of a data set, as values for statements."""

    saved: list[Row] = field(default_factory=list)
    deleted: list[Row] = field(default_factory=list)
    new: list[Row] = field(default_factory=list)
    counts: list[Row] = field(default_factory=list)
    unused: list[Row] = field(default_factory=list)

    def write(self, connection: Connection) -> None:
        connection.executemany(SAVE, self.saved)
        connection.executemany(DELETE, self.deleted)
        connection.executemany(ADD_TAG, self.new)
        connection.executemany(SET_COUNT, self.counts)
        connection.executemany(DELETE_TAG, self.unused)


@dataclass
class TagChanges:
    """What is to be written of some tags of a data set, and the numbers of tags of images that change by it."""

    rows: TagRows = field(default_factory=TagRows)
    by_source: defaultdict[Counted, list[Change]] = field(default_factory=lambda: defaultdict(list))

    def set_count(self, dataset_id: str, tag: int, before: int | None, count: int) -> None:
        """`before`: None if the tag has no row."""
        if before is None:
            self.rows.new.append((dataset_id, count, tag))
        elif count != before:
            self.rows.counts.append((count, dataset_id, tag))

    def save(self, connection: Connection, dataset_id: str) -> BitMap:
        """Write all of it; returns the images whose effective tags change."""
        self.rows.write(connection)
        for source, of_source in self.by_source.items():
            tag_digits.recount(connection, dataset_id, source, of_source)
        return self.images

    @property
    def images(self) -> BitMap:
        """Those whose effective tags change."""
        return BitMap.union(NONE, *(some for change in self.by_source["any"] for some in change))


class DatasetTags:
    """The sets of some tags of a data set, replaced in memory and then saved together."""

    def __init__(self, connection: Connection, dataset_id: str) -> None:
        self._connection = connection
        self.dataset_id = dataset_id
        self._sets: dict[int, TagSets] = {}
        self._counts: dict[int, int] = {}
        """Of the tags that have rows, as stored."""

    def load(self, tags: Iterable[int]) -> None:
        """Tags that have no rows yet get empty sets."""
        new = {tag: TagSets() for tag in tags if tag not in self._sets}
        before, images = b"", NONE
        for tag, kind, serialized in _rows(self._connection, LOAD, self.dataset_id, new):
            if (sets := new.get(tag)) is not None:
                if serialized != before:  # often all sets of a tag are the same
                    before, images = serialized, BitMap.deserialize(serialized)
                setattr(sets, kind, images)
                sets.stored[kind] = images
        self._counts.update(_rows(self._connection, COUNTS, self.dataset_id, new))
        self._sets |= new

    def __getitem__(self, tag: int) -> TagSets:
        return self._sets[tag]

    def save(self) -> BitMap:
        """Write what changed; returns the images whose effective tags did."""
        return self.changes().save(self._connection, self.dataset_id)

    def changes(self) -> TagChanges:
        """A removed data set has no tags any more."""
        found, live = TagChanges(), _live(self._connection, self.dataset_id)
        if live is not None:
            for tag, sets in self._sets.items():
                self._add_changes(found, tag, sets, live)
        return found

    def _add_changes(self, found: TagChanges, tag: int, sets: TagSets, live: BitMap) -> None:
        for source, change in sets.update_tagged():
            found.by_source[source].append(change)
        is_used, serialized = False, dict[int, bytes]()
        for kind, images in sets.sets():
            before = sets.stored.get(kind)
            if not images and not kind.startswith("own_"):
                if before is not None:
                    found.rows.deleted.append((self.dataset_id, tag, kind))
                continue
            is_used = True
            if before is None or differs(before, images):
                if id(images) not in serialized:
                    serialized[id(images)] = serialize(images)
                found.rows.saved.append((self.dataset_id, tag, kind, serialized[id(images)]))
        if not is_used:
            found.rows.unused.append((self.dataset_id, tag))
        else:
            found.set_count(self.dataset_id, tag, self._counts.get(tag), sets.tagged.intersection_cardinality(live))


def find_predicted(connection: Connection, dataset_id: str, some: Sequence[Passing]) -> TagChanges:
    """What is to be written of these tags; nothing of a removed data set, which has no tags any more.

    For nearly all tags of a data set: with as few operations for each as there can be.
    """
    found, live, tags = TagChanges(), _live(connection, dataset_id), [tag for tag, _, _ in some]
    if live is None:
        return found
    stored, counts = _load_sets(connection, dataset_id, tags), dict(_rows(connection, COUNTS, dataset_id, tags))
    for tag, passing, others in some:
        sets = stored[tag]
        predicted = sets.get("predicted", NONE)
        gained = passing - predicted
        lost = predicted - passing if others is None else predicted & others
        if not gained and not lost:
            continue
        predicted = (predicted | gained) - lost
        _store(found, dataset_id, tag, "predicted", predicted)
        tagged = sets.get("tagged", NONE)
        for decided in filter(None, map(sets.get, DECIDED)):
            gained, lost = gained - decided, lost - decided
        if gained or lost:
            tagged = (tagged | gained) - lost
            _store(found, dataset_id, tag, "tagged", tagged)
            found.by_source["any"].append((gained, lost))
            found.by_source["model"].append((gained, lost))
        if predicted or tagged or not sets.keys() <= {"predicted", "tagged"}:
            found.set_count(dataset_id, tag, counts.get(tag), tagged.intersection_cardinality(live))
        else:
            found.rows.unused.append((dataset_id, tag))
    return found


def _load_sets(connection: Connection, dataset_id: str, tags: Sequence[int]) -> defaultdict[int, Stored]:
    found: defaultdict[int, Stored] = defaultdict(dict)
    before, images = b"", NONE
    for tag, kind, serialized in _rows(connection, LOAD, dataset_id, tags):
        if serialized != before:  # often all sets of a tag are the same
            before, images = serialized, BitMap.deserialize(serialized)
        found[tag][kind] = images
    return found


def _store(found: TagChanges, dataset_id: str, tag: int, kind: str, images: BitMap) -> None:
    """An empty set has no row."""
    if images:
        found.rows.saved.append((dataset_id, tag, kind, serialize(images)))
    else:
        found.rows.deleted.append((dataset_id, tag, kind))


def _rows(connection: Connection, query: str, dataset_id: str, tags: Collection[int]) -> Iterator[tuple[Any, ...]]:
    """Those of these tags, and perhaps of others."""
    cursor, first, last = tuple_cursor(connection), min(tags, default=0), max(tags, default=0)
    if last - first < DENSE * len(tags):
        return cursor.execute(f"{query} {RANGE}", (dataset_id, first, last))
    return cursor.execute(f"{query} {SOME}", (dataset_id, json_array(tags)))


def _live(connection: Connection, dataset_id: str) -> BitMap | None:
    """None: the data set is removed, and has no tags any more."""
    row = connection.execute(IS_REMOVED, (dataset_id,)).fetchone()
    return None if row is None or row["removed"] else load(connection, dataset_id, "live")


def from_source(connection: Connection, dataset_id: str, source: TagSource, tag: str | None) -> BitMap:
    """The images that have the tag, or any, from a source."""
    if tag is None:
        return tag_digits.with_tags(tag_digits.load_digits(connection, dataset_id, source))
    rows = connection.execute(SETS_OF_TAG, (tag, dataset_id))
    sets = TagSets()
    for kind, images in rows:
        setattr(sets, kind, BitMap.deserialize(images))
    return sets.by_source()[source]


def decided(connection: Connection, dataset_id: str, tags: Iterable[str]) -> dict[str, Decided]:
    """The images with a decision about each of these tags; without tags that the data set has none about."""
    found: defaultdict[str, Decided] = defaultdict(Decided)
    for tag, kind, serialized in connection.execute(DECISIONS, (dataset_id, json_array(tags))):
        images = found[tag].rejected if kind == "rejected" else found[tag].asserted
        images |= BitMap.deserialize(serialized)
    return found


def recount(connection: Connection, dataset_id: str, live: BitMap, after: int, limit: int) -> int | None:
    """Count anew how many images have each tag, of some tags after one. Returns the last of them; None: no more."""
    rows = connection.execute(TAGGED, (dataset_id, after, limit)).fetchall()
    counts = ((row["tag_id"], BitMap.deserialize(row["images"]) & live, row["count"]) for row in rows)
    changed = [(len(images), dataset_id, tag) for tag, images, count in counts if len(images) != count]
    connection.executemany(SET_COUNT, changed)
    return rows[-1]["tag_id"] if rows else None


def predicted_tags(connection: Connection, dataset_id: str) -> set[int]:
    """The tags that models predict for some image."""
    return {row["tag_id"] for row in connection.execute(PREDICTED, (dataset_id,))}


def of_tag(connection: Connection, dataset_id: str | None, tag: str, kind: str = "tagged") -> dict[str, BitMap]:
    """The images of a tag by data set: of one, or of all that have it; removed images as well."""
    rows = connection.execute(OF_TAG, {"tag": tag, "kind": kind, "dataset": dataset_id})
    return {row["dataset_id"]: BitMap.deserialize(row["images"]) for row in rows}


def sets_by_tag(connection: Connection, dataset_id: str, some: Iterable[str] | None = None) -> dict[str, BitMap]:
    """The images, removed ones as well, with each tag (`some`: with each of these) that any live image has."""
    if some is None:
        rows = connection.execute(SETS_BY_TAG, (dataset_id,))
    else:
        rows = connection.execute(SETS_BY_TAG_OF, (dataset_id, json_array(some)))
    return {tag: BitMap.deserialize(images) for tag, images in rows}
