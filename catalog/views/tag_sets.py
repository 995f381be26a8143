"""Sets of images of each tag of a data set, so that a change of any number of images is a few operations on sets.

Sets also have removed images, which so get all their tags back; only counts leave them out. Edits of many images
(bulk) may be undone, and then what images had before counts again: of a tag with such edits, the decisions that are
kept with images themselves have sets of their own (`own_…`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.bulk_edits import Decided
from catalog.domain.edits import SetChoice
from catalog.rows import json_array
from catalog.views.batch import from_array
from catalog.views.sets import load, serialize, to_array
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
CREATE TABLE IF NOT EXISTS tag_digit (
    dataset_id TEXT NOT NULL,
    source TEXT NOT NULL,
    digit INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, source, digit)
);
"""

IS_REMOVED = "SELECT removed FROM dataset WHERE id = ?"
LOAD = "SELECT tag_id, kind, images FROM tag_set WHERE dataset_id = ? AND tag_id IN (SELECT value FROM json_each(?))"
SAVE = "INSERT OR REPLACE INTO tag_set VALUES (?, ?, ?, ?)"
DELETE = "DELETE FROM tag_set WHERE dataset_id = ? AND tag_id = ? AND kind = ?"
SET_COUNT = """
INSERT INTO tag SELECT ?, id, tag, ? FROM tag_name WHERE id = ?
ON CONFLICT DO UPDATE SET images = excluded.images
"""
DELETE_TAG = "DELETE FROM tag WHERE dataset_id = ? AND tag_id = ?"
TAGGED = """
SELECT tag_set.tag_id, tag_set.images, tag.images AS count FROM tag_set JOIN tag USING (dataset_id, tag_id)
WHERE dataset_id = ? AND kind = 'tagged' AND tag_id > ? ORDER BY tag_id LIMIT ?
"""
PREDICTED = "SELECT tag_id FROM tag_set WHERE dataset_id = ? AND kind = 'predicted'"
DIGITS = "SELECT images FROM tag_digit WHERE dataset_id = ? AND source = ? ORDER BY digit"
SAVE_DIGIT = "INSERT OR REPLACE INTO tag_digit VALUES (?, ?, ?, ?)"
DELETE_DIGITS = "DELETE FROM tag_digit WHERE dataset_id = ? AND source = ? AND digit >= ?"
DECISIONS = """
SELECT tag, kind, images FROM tag_name JOIN tag_set ON tag_id = tag_name.id
WHERE dataset_id = ? AND kind IN ('asserted', 'imported', 'rejected') AND tag IN (SELECT value FROM json_each(?))
"""
SETS_OF_TAG = """
SELECT kind, images FROM tag_name JOIN tag_set ON tag_id = tag_name.id WHERE tag_name.tag = ? AND dataset_id = ?
"""
OF_TAG = """
SELECT tag_set.dataset_id, tag_set.images FROM tag_name CROSS JOIN dataset CROSS JOIN tag_set
    ON (tag_set.dataset_id, tag_id, kind) = (dataset.id, tag_name.id, :kind)
WHERE tag_name.tag = :tag AND (:dataset IS NULL OR dataset.id = :dataset)
"""


FEW_TAGS = 20
"""Up to so many changes are added digit by digit; more are counted for each image."""
DECIDED: tuple[SetChoice, ...] = ("asserted", "imported", "rejected")
CHOICES: tuple[SetChoice, ...] = (*DECIDED, "withdrawn")
KINDS = (*DECIDED, "predicted", "tagged", *(f"own_{name}" for name in CHOICES))
Counted = TagSource | Literal["any"]
"""Which tags of an image are counted."""


@dataclass
class TagSets:
    """The images of one tag: `predicted` where a prediction passes the rules, the rest by the decisions that hold.

    An assertion is in `imported` if it came with an import, else in `asserted`.
    """

    asserted: BitMap = field(default_factory=BitMap)
    imported: BitMap = field(default_factory=BitMap)
    rejected: BitMap = field(default_factory=BitMap)
    predicted: BitMap = field(default_factory=BitMap)
    tagged: BitMap = field(default_factory=BitMap)
    own_asserted: BitMap | None = None
    own_imported: BitMap | None = None
    own_rejected: BitMap | None = None
    own_withdrawn: BitMap | None = None
    stored: dict[str, BitMap] = field(default_factory=dict)
    """As in the rows."""
    before: dict[Counted, BitMap] = field(default_factory=dict)
    """Which images were counted by each source when the rows were loaded."""

    def by_source(self) -> dict[Counted, BitMap]:
        """The images that have the tag: all, and those that have it from each source."""
        from_model = self.predicted - BitMap.union(self.asserted, self.imported, self.rejected)
        return {"any": self.tagged, "person": self.asserted, "import": self.imported, "model": from_model}

    def decide(self, images: BitMap, choice: SetChoice) -> None:
        """What holds for these images now."""
        for name in DECIDED:
            decided: BitMap = getattr(self, name)
            setattr(self, name, decided | images if choice == name else decided - images)

    def begin_bulk(self) -> None:
        """Before the first edit of many images: until now all decisions are kept with images."""
        if self.own_withdrawn is None:
            for name in DECIDED:
                setattr(self, f"own_{name}", getattr(self, name).copy())
            self.own_withdrawn = BitMap()

    def decide_own(self, images: BitMap, choice: SetChoice | None) -> None:
        """What is kept with these images themselves; None: no decision."""
        for name in CHOICES:
            own: BitMap | None = getattr(self, f"own_{name}")
            if own is not None:
                own -= images
                own.update(images if choice == name else ())

    def own(self) -> dict[SetChoice, BitMap]:
        """What is kept with the images themselves; after `begin_bulk`."""
        return {name: getattr(self, f"own_{name}") for name in CHOICES}

    def discard(self, ordinal: int) -> None:
        for _, images in self.sets():
            images.discard(ordinal)

    def sets(self) -> Iterator[tuple[str, BitMap]]:
        """By the names they are stored under."""
        for name in KINDS:
            images: BitMap | None = getattr(self, name)
            if images is not None:
                yield name, images


class DatasetTags:
    """The sets of some tags of a data set, changed in memory and then saved together."""

    def __init__(self, connection: Connection, dataset_id: str) -> None:
        self._connection = connection
        self.dataset_id = dataset_id
        self._sets: dict[int, TagSets] = {}

    def load(self, tags: Iterable[int]) -> None:
        """Tags that have no rows yet get empty sets."""
        new = {tag: TagSets() for tag in tags if tag not in self._sets}
        for tag, kind, serialized in self._connection.execute(LOAD, (self.dataset_id, json_array(new))):
            images = BitMap.deserialize(serialized)
            setattr(new[tag], kind, images)
            new[tag].stored[kind] = images.copy()
        for sets in new.values():
            sets.before = {source: images.copy() for source, images in sets.by_source().items()}
        self._sets |= new

    def __getitem__(self, tag: int) -> TagSets:
        return self._sets[tag]

    def save(self) -> BitMap:
        """Write what changed; returns the images whose effective tags did. A removed data set has no tags any more."""
        row = self._connection.execute(IS_REMOVED, (self.dataset_id,)).fetchone()
        if row is None or row["removed"]:
            return BitMap()
        changes: defaultdict[Counted, list[tuple[BitMap, BitMap]]] = defaultdict(list)
        for sets in self._sets.values():
            sets.tagged = (sets.asserted | sets.imported | sets.predicted) - sets.rejected
            for source, images in sets.by_source().items():
                before = sets.before[source]
                if images != before:
                    changes[source].append((images - before, before - images))
        self._write(load(self._connection, self.dataset_id, "live"))
        for source, of_source in changes.items():
            _recount_digits(self._connection, self.dataset_id, source, of_source)
        return BitMap.union(BitMap(), *(gained | lost for gained, lost in changes["any"]))

    def _write(self, live: BitMap) -> None:
        saved: list[tuple[object, ...]] = []
        deleted: list[tuple[object, ...]] = []
        counts: list[tuple[object, ...]] = []
        for tag, sets in self._sets.items():
            rows = {kind: images for kind, images in sets.sets() if images or kind.startswith("own_")}
            saved += [
                (self.dataset_id, tag, kind, serialize(images))
                for kind, images in rows.items()
                if sets.stored.get(kind) != images
            ]
            deleted += [(self.dataset_id, tag, kind) for kind in sets.stored if kind not in rows]
            if rows:
                counts.append((self.dataset_id, sets.tagged.intersection_cardinality(live), tag))
            else:
                self._connection.execute(DELETE_TAG, (self.dataset_id, tag))
        self._connection.executemany(SAVE, saved)
        self._connection.executemany(DELETE, deleted)
        self._connection.executemany(SET_COUNT, counts)


def from_source(connection: Connection, dataset_id: str, source: TagSource, tag: str | None) -> BitMap:
    """The images that have the tag, or any, from a source."""
    if tag is None:
        return with_tags(load_digits(connection, dataset_id, source))
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
    changed = [(dataset_id, len(images), tag) for tag, images, count in counts if len(images) != count]
    connection.executemany(SET_COUNT, changed)
    return rows[-1]["tag_id"] if rows else None


def predicted_tags(connection: Connection, dataset_id: str) -> set[int]:
    """The tags that models predict for some image."""
    return {row["tag_id"] for row in connection.execute(PREDICTED, (dataset_id,))}


def of_tag(connection: Connection, dataset_id: str | None, tag: str, kind: str = "tagged") -> dict[str, BitMap]:
    """The images of a tag by data set: of one, or of all that have it; removed images as well."""
    rows = connection.execute(OF_TAG, {"tag": tag, "kind": kind, "dataset": dataset_id})
    return {row["dataset_id"]: BitMap.deserialize(row["images"]) for row in rows}


# The numbers of tags of all images, in binary: one set for each digit (a bit-sliced index, O'Neil and Quass 1997).


def load_digits(connection: Connection, dataset_id: str, source: Counted = "any") -> list[BitMap]:
    """The images with a 1 in each digit of their number of tags from a source, the lowest digit first."""
    return [BitMap.deserialize(row["images"]) for row in connection.execute(DIGITS, (dataset_id, source))]


def add(digits: list[BitMap], images: BitMap) -> None:
    """One tag more for each of these images."""
    carry = images
    for place, digit in enumerate(digits):
        if not carry:
            return
        digits[place], carry = digit ^ carry, digit & carry
    if carry:
        digits.append(carry.copy())


def subtract(digits: list[BitMap], images: BitMap) -> None:
    """One tag less for each of these images, which have one."""
    borrow = images
    for place, digit in enumerate(digits):
        if not borrow:
            break
        digits[place], borrow = digit ^ borrow, borrow - digit
    while digits and not digits[-1]:
        digits.pop()


def count_changes(digits: list[BitMap], changes: Sequence[tuple[BitMap, BitMap]]) -> list[BitMap]:
    """The digits after images gained and lost tags: each change is of one tag."""
    if len(changes) <= FEW_TAGS:
        for gained, lost in changes:
            add(digits, gained)
            subtract(digits, lost)
        return digits
    more, fewer = (_occurrences(images) for images in zip(*changes, strict=True))
    numbers = np.zeros(max(len(more), len(fewer), *(digit.max() + 1 for digit in digits if digit), 0), dtype=np.int64)
    for place, digit in enumerate(digits):
        numbers[to_array(digit)] += 1 << place
    numbers[: len(more)] += more
    numbers[: len(fewer)] -= fewer
    places = range(int(numbers.max(initial=0)).bit_length())
    return [from_array(np.flatnonzero(numbers >> place & 1).astype(np.uint32)) for place in places]


def _occurrences(some: Iterable[BitMap]) -> NDArray[np.int64]:
    """How many of these sets each image is in, by ordinal."""
    return np.bincount(np.concatenate([np.empty(0, dtype=np.uint32), *map(to_array, some)]))


def counts(digits: Iterable[BitMap], images: BitMap) -> NDArray[np.int64]:
    """The numbers of tags of these images, by ascending ordinal."""
    found = np.zeros(images.max() + 1 if images else 0, dtype=np.int64)
    for place, digit in enumerate(digits):
        found[np.frombuffer((digit & images).to_array(), dtype=np.uint32)] += 1 << place
    return found[np.frombuffer(images.to_array(), dtype=np.uint32)]


def with_tags(digits: Iterable[BitMap]) -> BitMap:
    """The images with at least one tag."""
    return BitMap.union(*digits) if (digits := list(digits)) else BitMap()


def _recount_digits(
    connection: Connection, dataset_id: str, source: Counted, changes: Sequence[tuple[BitMap, BitMap]]
) -> None:
    """Count tags that images gained and lost; only digits that change are written."""
    before = load_digits(connection, dataset_id, source)
    digits = count_changes(list(before), changes)
    rows = [
        (dataset_id, source, place, serialize(images))
        for place, images in enumerate(digits)
        if place >= len(before) or images != before[place]
    ]
    connection.executemany(SAVE_DIGIT, rows)
    connection.execute(DELETE_DIGITS, (dataset_id, source, len(digits)))
