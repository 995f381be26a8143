"""Sets of images of each tag of a data set, so that a change of any number of images is a few operations on sets.

Sets also have removed images, which so get all their tags back; only counts leave them out. Edits of many images
(bulk) may be undone, and then what images had before counts again: of a tag with such edits, the decisions that are
kept with images themselves have sets of their own (`own_…`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.effective_tags import Choice
from catalog.rows import json_array
from catalog.views.sets import load, serialize, to_array

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
    digit INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, digit)
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
DIGITS = "SELECT images FROM tag_digit WHERE dataset_id = ? ORDER BY digit"
SAVE_DIGIT = "INSERT OR REPLACE INTO tag_digit VALUES (?, ?, ?)"
DELETE_DIGITS = "DELETE FROM tag_digit WHERE dataset_id = ? AND digit >= ?"
OF_TAG = """
SELECT tag_set.dataset_id, tag_set.images FROM tag JOIN tag_set USING (dataset_id, tag_id)
WHERE tag.tag = :tag AND kind = :kind AND (:dataset IS NULL OR tag.dataset_id = :dataset)
"""
FEW_TAGS = 20
"""Up to so many changes are added digit by digit; more are counted for each image."""


@dataclass
class TagSets:
    """The images of one tag: `predicted` where a prediction passes the rules, the rest by the decisions that hold."""

    asserted: BitMap = field(default_factory=BitMap)
    rejected: BitMap = field(default_factory=BitMap)
    predicted: BitMap = field(default_factory=BitMap)
    tagged: BitMap = field(default_factory=BitMap)
    own_asserted: BitMap | None = None
    own_rejected: BitMap | None = None
    own_withdrawn: BitMap | None = None
    stored: dict[str, BitMap] = field(default_factory=dict)
    """As in the rows."""

    def decide(self, images: BitMap, choice: Choice) -> None:
        """What holds for these images now."""
        self.asserted -= images
        self.rejected -= images
        if choice == "asserted":
            self.asserted |= images
        elif choice == "rejected":
            self.rejected |= images

    def begin_bulk(self) -> None:
        """Before the first edit of many images: until now all decisions are kept with images."""
        if self.own_asserted is None:
            self.own_asserted, self.own_rejected = self.asserted.copy(), self.rejected.copy()
            self.own_withdrawn = BitMap()

    def decide_own(self, images: BitMap, choice: Choice | None) -> None:
        """What is kept with these images themselves; None: no decision."""
        for name in ("asserted", "rejected", "withdrawn"):
            own: BitMap | None = getattr(self, f"own_{name}")
            if own is not None:
                own -= images
                own.update(images if choice == name else ())

    def discard(self, ordinal: int) -> None:
        for _, images in self.sets():
            images.discard(ordinal)

    def sets(self) -> Iterator[tuple[str, BitMap]]:
        """By the names they are stored under."""
        for name in KINDS:
            images: BitMap | None = getattr(self, name)
            if images is not None:
                yield name, images


KINDS = ("asserted", "rejected", "predicted", "tagged", "own_asserted", "own_rejected", "own_withdrawn")


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
        self._sets |= new

    def __getitem__(self, tag: int) -> TagSets:
        return self._sets[tag]

    def save(self) -> BitMap:
        """Write what changed; returns the images whose effective tags did. A removed data set has no tags any more."""
        row = self._connection.execute(IS_REMOVED, (self.dataset_id,)).fetchone()
        if row is None or row["removed"]:
            return BitMap()
        gained, lost = [], []
        for sets in self._sets.values():
            tagged = (sets.asserted | sets.predicted) - sets.rejected
            if tagged != sets.tagged:
                gained.append(tagged - sets.tagged)
                lost.append(sets.tagged - tagged)
                sets.tagged = tagged
        self._write(load(self._connection, self.dataset_id, "live"))
        if gained:
            digits = load_digits(self._connection, self.dataset_id)
            _save_digits(self._connection, self.dataset_id, count_changes(digits, gained, lost))
        return BitMap.union(BitMap(), *gained, *lost)

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


def load_digits(connection: Connection, dataset_id: str) -> list[BitMap]:
    """The images with a 1 in each digit of their number of tags, the lowest digit first."""
    return [BitMap.deserialize(row["images"]) for row in connection.execute(DIGITS, (dataset_id,))]


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


def count_changes(digits: list[BitMap], gained: Sequence[BitMap], lost: Sequence[BitMap]) -> list[BitMap]:
    """The digits after each of these sets gained a tag, and each of those lost one."""
    if len(gained) + len(lost) <= FEW_TAGS:
        for images in gained:
            add(digits, images)
        for images in lost:
            subtract(digits, images)
        return digits
    more, fewer = _occurrences(gained), _occurrences(lost)
    numbers = np.zeros(max(len(more), len(fewer), *(digit.max() + 1 for digit in digits if digit), 0), dtype=np.int64)
    for place, digit in enumerate(digits):
        numbers[to_array(digit)] += 1 << place
    numbers[: len(more)] += more
    numbers[: len(fewer)] -= fewer
    places = range(int(numbers.max(initial=0)).bit_length())
    return [BitMap(np.flatnonzero(numbers >> place & 1).astype(np.uint32)) for place in places]


def _occurrences(some: Iterable[BitMap]) -> NDArray[np.int64]:
    """How many of these sets each image is in, by ordinal."""
    return np.bincount(np.concatenate([np.empty(0, dtype=np.uint32), *map(to_array, some)]))


def with_tags(digits: Iterable[BitMap]) -> BitMap:
    """The images with at least one tag."""
    return BitMap.union(*digits) if (digits := list(digits)) else BitMap()


def _save_digits(connection: Connection, dataset_id: str, digits: list[BitMap]) -> None:
    connection.executemany(SAVE_DIGIT, [(dataset_id, place, serialize(images)) for place, images in enumerate(digits)])
    connection.execute(DELETE_DIGITS, (dataset_id, len(digits)))
