"""Predictions in columns: which (tag, image) pairs pass the rules of a data set, as numpy arithmetic.

A pair is one number, `tag id << 32 | ordinal`, so that sets of pairs are sorted arrays.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.domain.effective_tags import Rules
from catalog.views.batch import PairChange, Pairs
from catalog.views.bitmaps import from_array
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.tags import Acceptance, Fixed

Columns = NDArray[Any]
"""Predictions as rows of PACKED."""

PACKED = np.dtype([("tag", "<u4"), ("category", "u1"), ("probability", "<f8")])
_pack = Struct("<IBd").pack
"""One row of PACKED: faster than numpy for the few predictions of an image."""
CATEGORIES: tuple[Category, ...] = ("general", "character", "rating")
IMAGES_PER_PART = 1024
"""Images whose predictions are in memory together, or not."""
NEVER = 2.0
"""A threshold that no probability passes."""
NO_PAIRS: Pairs = np.empty(0, dtype=np.uint64)

_CODES = {category: code for code, category in enumerate(CATEGORIES)}
CHARACTER = _CODES["character"]
_SHIFT = np.uint64(32)
_ORDINAL = np.uint64(0xFFFFFFFF)


def rules_by_id(acceptance: Acceptance, ids: Mapping[str, int]) -> Rules:
    """Data sets have fixed thresholds only."""
    threshold = acceptance.threshold
    categories, tags = (threshold.above, threshold.tags) if isinstance(threshold, Fixed) else ({}, {})
    of_tags = {ids[tag]: above for tag, above in tags.items() if tag in ids}
    return Rules(categories, of_tags, frozenset(ids[tag] for tag in acceptance.deny if tag in ids))


def pack(predictions: Sequence[Prediction], ids: Mapping[str, int]) -> bytes:
    return b"".join([_pack(ids[found.tag], _CODES[found.category], found.probability) for found in predictions])


def unpack(packed: Sequence[bytes]) -> Iterator[tuple[list[int], list[Category], list[float]]]:
    """Tags, categories and probabilities of each of these: all in one array, which is read in a quarter of the time."""
    columns = np.frombuffer(b"".join(packed), dtype=PACKED)
    tags, codes, probabilities = (columns[name].tolist() for name in ("tag", "category", "probability"))
    categories = [CATEGORIES[code] for code in codes]
    end = 0
    for one in packed:
        start, end = end, end + len(one) // PACKED.itemsize
        yield tags[start:end], categories[start:end], probabilities[start:end]


def passing(rows: Sequence[tuple[int, bytes]], rules: Rules) -> Pairs:
    """The pairs that pass, sorted and each once, of packed predictions by ordinal. An image may have several rows."""
    return unique(passing_unsorted(rows, rules))


def passing_unsorted(rows: Sequence[tuple[int, bytes]], rules: Rules, tags: NDArray[np.bool_] | None = None) -> Pairs:
    """The same, only of some tags (by id), in no order and perhaps several times."""
    ordinals, columns = joined(rows)
    if not len(columns):
        return NO_PAIRS
    if tags is not None:
        among = np.flatnonzero(tags[columns["tag"]])
        columns, ordinals = columns[among], ordinals[among]
    chosen = np.flatnonzero(columns["probability"] > thresholds(columns, rules))
    found: Pairs = columns["tag"][chosen].astype(np.uint64) << _SHIFT | ordinals[chosen]
    return found


def of_columns(tags: "array[int]", ordinals: "array[int]") -> Pairs:
    """The pairs of tags and images that are given as two arrays of 32 bits."""
    of_tags, of_images = (np.frombuffer(one, dtype=np.uint32).astype(np.uint64) for one in (tags, ordinals))
    return of_tags << _SHIFT | of_images


def last_values(pairs: Pairs, values: NDArray[np.uint8]) -> tuple[Pairs, NDArray[np.uint8]]:
    """Each pair once, sorted, with the last of its values."""
    order = np.argsort(pairs, kind="stable")
    found = pairs[order]
    is_last = np.append(found[1:] != found[:-1], True)[: len(found)]
    return found[is_last], values[order][is_last]


def unique(pairs: Pairs) -> Pairs:
    """Sorted, each once. Sorting takes a fraction of the time of `np.unique`, which hashes."""
    found: Pairs = np.sort(pairs)
    return found[np.append(True, found[1:] != found[:-1])] if len(found) else found


@dataclass(frozen=True)
class PassingImages:
    """The images of which predictions pass, by tag. `tags` ascending, also such that pass for no image."""

    tags: NDArray[np.int64]
    pairs: Pairs

    def after(self, tag: int) -> Iterator[tuple[int, BitMap]]:
        """The tags after one, each with its images."""
        tags = self.tags[np.searchsorted(self.tags, tag, side="right") :].astype(np.uint64)
        starts, ends = (np.searchsorted(self.pairs, (tags + np.uint64(more)) << _SHIFT) for more in (0, 1))
        for found, start, end in zip(tags.tolist(), starts.tolist(), ends.tolist(), strict=True):
            yield found, from_array((self.pairs[start:end] & _ORDINAL).astype(np.uint32))


def affected_tags(old: Rules, new: Rules) -> frozenset[int] | None:
    """The tags of which other predictions may pass by other rules; None: perhaps all."""
    if old.categories != new.categories:
        return None
    return frozenset(tag for tag, _ in old.of_tags.items() ^ new.of_tags.items()) | (old.deny ^ new.deny)


class TagColumns:
    """Predictions of a few images sorted by tag, in memory. `start`: the ordinal that they begin at or after."""

    def __init__(self, rows: Sequence[tuple[int, bytes]], start: int) -> None:
        ordinals, columns = joined(rows)
        order = np.argsort(columns["tag"], kind="stable")
        self._tags, self._starts = np.unique(columns["tag"][order], return_index=True)
        self._starts = np.append(self._starts, len(order)).astype(np.uint32)
        self._offsets = (ordinals[order] - np.uint64(start)).astype(np.uint16)
        self._probabilities = columns["probability"][order]
        self._start = start

    @property
    def bytes(self) -> int:
        return sum(one.nbytes for one in (self._tags, self._starts, self._offsets, self._probabilities))

    def raise_to(self, highest: NDArray[np.float64], tag: int) -> None:
        """Raise the numbers of images, by ordinal, to their predictions of one tag; later images are left out."""
        at = int(np.searchsorted(self._tags, tag))
        if at < len(self._tags) and self._tags[at] == tag:
            found = slice(int(self._starts[at]), int(self._starts[at + 1]))
            ordinals = self._offsets[found].astype(np.int64) + self._start
            is_among = ordinals < len(highest)
            np.maximum.at(highest, ordinals[is_among], self._probabilities[found][is_among])


def change(before: Pairs, after: Pairs) -> PairChange:
    return PairChange(
        added=np.setdiff1d(after, before, assume_unique=True), removed=np.setdiff1d(before, after, assume_unique=True)
    )


def by_tag(pairs: Pairs) -> Iterator[tuple[int, BitMap]]:
    """The images of each tag, of sorted pairs."""
    tags = (pairs >> _SHIFT).astype(np.int64)
    ordinals = (pairs & _ORDINAL).astype(np.uint32)
    starts = np.flatnonzero(np.diff(tags, prepend=-1))
    for start, part in zip(starts, np.split(ordinals, starts[1:]), strict=False):  # np.split has a part of nothing
        yield int(tags[start]), BitMap(array("I", part.tobytes()))  # ten times as fast as from a numpy array


def joined(rows: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.uint64], Columns]:
    """The image and the columns of each prediction in these rows."""
    packed = [found for _, found in rows]
    columns = np.frombuffer(b"".join(packed), dtype=PACKED)
    counts = np.array([len(found) // PACKED.itemsize for found in packed], dtype=np.int64)
    return np.repeat(np.array([ordinal for ordinal, _ in rows], dtype=np.uint64), counts), columns


def thresholds(columns: Columns, rules: Rules) -> NDArray[np.float64]:
    """The threshold of each prediction. Ratings are no tags."""
    of_category = np.array([rules.categories.get(category, 1.0) for category in CATEGORIES])
    above: NDArray[np.float64] = of_category[columns["category"]]
    if rules.of_tags or rules.deny:
        of_tag = np.full(max(*rules.of_tags, *rules.deny, columns["tag"].max(initial=0)) + 1, np.nan)
        of_tag[list(rules.of_tags)] = list(rules.of_tags.values())
        of_tag[list(rules.deny)] = NEVER
        found = of_tag[columns["tag"]]
        above = np.where(np.isnan(found), above, found)
    above[columns["category"] == _CODES["rating"]] = NEVER
    return above
