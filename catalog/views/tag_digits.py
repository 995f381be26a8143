"""The numbers of tags of all images, in binary: one set for each digit (a bit-sliced index, O'Neil and Quass 1997)."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.edits import Change, Counted
from catalog.views.bitmaps import from_array, serialize, to_array

TABLES = """
CREATE TABLE IF NOT EXISTS tag_digit (
    dataset_id TEXT NOT NULL,
    source TEXT NOT NULL,
    digit INTEGER NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, source, digit)
);
"""

DIGITS = "SELECT images FROM tag_digit WHERE dataset_id = ? AND source = ? ORDER BY digit"
SAVE = "INSERT OR REPLACE INTO tag_digit VALUES (?, ?, ?, ?)"
DELETE = "DELETE FROM tag_digit WHERE dataset_id = ? AND source = ? AND digit >= ?"
FEW_TAGS = 20
"""Up to so many changes are added digit by digit; more are counted for each image."""


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


def count_changes(digits: list[BitMap], changes: Sequence[Change]) -> list[BitMap]:
    """The digits after images gained and lost tags: each change is of one tag."""
    if len(changes) <= FEW_TAGS:
        for gained, lost in changes:
            add(digits, gained)
            subtract(digits, lost)
        return digits
    numbers = NumberChange()
    numbers.add(changes)
    return numbers.applied_to(digits)


class NumberChange:
    """How many tags each image gains (loses, if negative), added up over the changes of any number of tags."""

    def __init__(self) -> None:
        self._gained: list[NDArray[np.uint32]] = []
        self._lost: list[NDArray[np.uint32]] = []

    def add(self, changes: Sequence[Change]) -> None:
        """Each of them is of one tag."""
        self._gained += [to_array(gained) for gained, _ in changes if gained]
        self._lost += [to_array(lost) for _, lost in changes if lost]

    def applied_to(self, digits: Sequence[BitMap]) -> list[BitMap]:
        gained, lost = _occurrences(self._gained), _occurrences(self._lost)
        size = max(len(gained), len(lost))
        more = np.pad(gained, (0, size - len(gained))) - np.pad(lost, (0, size - len(lost)))
        images = np.flatnonzero(more).astype(np.uint32)
        changed = from_array(images)
        numbers = counts(digits, changed) + more[images]
        places = range(max(int(numbers.max(initial=0)).bit_length(), len(digits)))
        ones = (from_array(images[np.flatnonzero(numbers >> place & 1)]) for place in places)
        found = [ones_of | (digit - changed) for digit, ones_of in zip_longest(digits, ones, fillvalue=BitMap())]
        while found and not found[-1]:
            found.pop()
        return found


def _occurrences(some: Sequence[NDArray[np.uint32]]) -> NDArray[np.int64]:
    """In how many of these arrays each image is, by ordinal."""
    return np.bincount(np.concatenate([np.empty(0, dtype=np.uint32), *some]))


def counts(digits: Iterable[BitMap], images: BitMap) -> NDArray[np.int64]:
    """The numbers of tags of these images, by ascending ordinal."""
    found = np.zeros(images.max() + 1 if images else 0, dtype=np.int64)
    for place, digit in enumerate(digits):
        found[np.frombuffer((digit & images).to_array(), dtype=np.uint32)] += 1 << place
    return found[np.frombuffer(images.to_array(), dtype=np.uint32)]


def with_tags(digits: Iterable[BitMap]) -> BitMap:
    """The images with at least one tag."""
    return BitMap.union(*digits) if (digits := list(digits)) else BitMap()


def recount(connection: Connection, dataset_id: str, source: Counted, changes: Sequence[Change]) -> None:
    """Count tags that images gained and lost."""
    before = load_digits(connection, dataset_id, source)
    save(connection, dataset_id, source, before, count_changes(list(before), changes))


def save(
    connection: Connection, dataset_id: str, source: Counted, before: Sequence[BitMap], after: Sequence[BitMap]
) -> None:
    write(connection, dataset_id, source, changed_digits(before, after), len(after))


def changed_digits(before: Sequence[BitMap], after: Sequence[BitMap]) -> dict[int, bytes]:
    """Those that are to be written, by place."""
    return {
        place: serialize(images)
        for place, images in enumerate(after)
        if place >= len(before) or images != before[place]
    }


def write(connection: Connection, dataset_id: str, source: Counted, changed: Mapping[int, bytes], digits: int) -> None:
    """`digits`: how many there are now."""
    connection.executemany(SAVE, [(dataset_id, source, place, images) for place, images in changed.items()])
    connection.execute(DELETE, (dataset_id, source, digits))
