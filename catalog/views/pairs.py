"""Predictions in columns: which (tag, image) pairs pass the rules of a data set, as numpy arithmetic.

A pair is one number, `tag id << 32 | ordinal`, so that sets of pairs are sorted arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.domain.rules import Rules
from catalog.views.batch import PairChange, Pairs
from catalog.views.bitmaps import from_array, to_array
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.tags import Acceptance, Fixed

Packed = bytes
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

_U1, _U2, _U4, _F8 = np.dtype("u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<f8")
_LENGTHS = Struct("<II")
"""Of packed columns: tags, and predictions."""
_CODES = {category: code for code, category in enumerate(CATEGORIES)}
CHARACTER = _CODES["character"]
_NONE = BitMap()
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
    ordinals, columns = joined(rows)
    chosen = np.flatnonzero(columns["probability"] > thresholds(columns, rules))
    return unique(columns["tag"][chosen].astype(np.uint64) << _SHIFT | ordinals[chosen])


def of_columns(tags: NDArray[np.uint32], ordinals: NDArray[np.uint32]) -> Pairs:
    return tags.astype(np.uint64) << _SHIFT | ordinals


def last_values(pairs: Pairs, values: NDArray[np.uint32]) -> tuple[Pairs, NDArray[np.uint32]]:
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
class TagColumns:
    """Predictions of one part of the images, sorted by tag, then by image. `start`: the first ordinal of the part.

    `ends`: where the predictions of each tag end.
    """

    start: int
    tags: NDArray[np.uint32]
    ends: NDArray[np.uint32]
    probabilities: NDArray[np.float64]
    offsets: NDArray[np.uint16]
    categories: NDArray[np.uint8]

    @classmethod
    def unpack(cls, start: int, packed: Packed) -> "TagColumns":
        tags, predictions = _LENGTHS.unpack_from(packed) if packed else (0, 0)
        columns, at = list[Any](), _LENGTHS.size
        for dtype, length in ((_F8, predictions), (_U4, tags), (_U4, tags), (_U2, predictions), (_U1, predictions)):
            columns.append(np.frombuffer(packed, dtype, length, at) if length else np.empty(0, dtype))
            at += length * dtype.itemsize
        probabilities, of_tags, ends, offsets, categories = columns
        return cls(start, of_tags, ends, probabilities, offsets, categories)

    def pack(self) -> Packed:
        """The widest numbers first: each begins at a multiple of its size."""
        columns = (self.probabilities, self.tags, self.ends, self.offsets, self.categories)
        lengths = _LENGTHS.pack(len(self.tags), len(self.probabilities))
        return b"".join([lengths, *(column.tobytes() for column in columns)])

    def replaced(self, images: BitMap, rows: Sequence[tuple[int, bytes]]) -> "TagColumns":
        """With these predictions of these images instead of what it has of them."""
        is_kept = np.ones(IMAGES_PER_PART, dtype=np.bool_)
        is_kept[to_array(images) - np.uint32(self.start)] = False
        kept = np.flatnonzero(is_kept[self.offsets])
        ordinals, columns = joined(rows)
        tags = np.concatenate([self._tag_of_each()[kept], columns["tag"]])
        offsets = np.concatenate([self.offsets[kept], (ordinals - np.uint64(self.start)).astype(_U2)])
        probabilities = np.concatenate([self.probabilities[kept], columns["probability"]])
        categories = np.concatenate([self.categories[kept], columns["category"]])
        keys = tags.astype(np.uint64) << _SHIFT | offsets.astype(np.uint64) << np.uint64(8) | categories
        order = np.argsort(keys)
        if (np.diff(keys[order]) == 0).any():  # several models predict a tag of an image
            order = np.lexsort((probabilities, keys))
        tags = tags[order]
        ends = np.flatnonzero(np.append(tags[1:] != tags[:-1], True)[: len(tags)]) + 1
        return TagColumns(
            self.start, tags[ends - 1], ends.astype(_U4), probabilities[order], offsets[order], categories[order]
        )

    def raise_to(self, highest: NDArray[np.float64], tag: int) -> None:
        """Raise the numbers of images, by ordinal, to their predictions of one tag; later images are left out."""
        at = int(np.searchsorted(self.tags, tag))
        if at < len(self.tags) and self.tags[at] == tag:
            found = slice(int(self.ends[at - 1]) if at else 0, int(self.ends[at]))
            ordinals = self.offsets[found].astype(np.int64) + self.start
            is_among = ordinals < len(highest)
            np.maximum.at(highest, ordinals[is_among], self.probabilities[found][is_among])

    def passing(self, rules: Rules) -> Pairs:
        """The pairs of which a prediction passes, sorted."""
        found, (passes,) = self._passes(rules)
        return found[passes]

    def change(self, before: Rules, after: Rules) -> PairChange:
        """The pairs that pass by other rules, and those that no longer do."""
        found, (passed, passes) = self._passes(before, after)
        changed = np.flatnonzero(passed != passes)
        found, is_added = found[changed], passes[changed]
        return PairChange(added=found[is_added], removed=found[~is_added])

    def _passes(self, *rules: Rules) -> tuple[Pairs, list[NDArray[np.bool_]]]:
        """All pairs, sorted, and which of them pass by each of these rules."""
        tags = self._tag_of_each()
        found: Pairs = tags.astype(np.uint64) << _SHIFT | (self.offsets.astype(np.uint64) + np.uint64(self.start))
        passes = [self.probabilities > _thresholds(tags, self.categories, some) for some in rules]
        is_new = np.append(True, found[1:] != found[:-1])[: len(found)]
        if is_new.all():
            return found, passes
        starts = np.flatnonzero(is_new)  # a pair passes where any of its predictions does
        return found[starts], [np.logical_or.reduceat(some, starts) for some in passes]

    @property
    def bytes(self) -> int:
        return sum(one.nbytes for one in (self.tags, self.ends, self.probabilities, self.offsets, self.categories))

    def _tag_of_each(self) -> NDArray[np.uint32]:
        return np.repeat(self.tags, np.diff(self.ends, prepend=np.uint32(0)))


def tags_of(*some: Pairs) -> set[int]:
    """The tags of pairs that are sorted."""
    return {tag for pairs in some for tag in unique(pairs >> _SHIFT).tolist()}


def images_by_tag(pairs: Pairs, tags: Sequence[int]) -> Iterator[BitMap]:
    """The images of each of these tags, of sorted pairs."""
    of_tags = np.array(tags, dtype=np.uint64)
    starts, ends = (np.searchsorted(pairs, (of_tags + np.uint64(more)) << _SHIFT).tolist() for more in (0, 1))
    ordinals = (pairs & _ORDINAL).astype(np.uint32)
    return (from_array(ordinals[start:end]) if start < end else _NONE for start, end in zip(starts, ends, strict=True))


def change(before: Pairs, after: Pairs) -> PairChange:
    return PairChange(
        added=np.setdiff1d(after, before, assume_unique=True), removed=np.setdiff1d(before, after, assume_unique=True)
    )


def by_tag(pairs: Pairs) -> Iterator[tuple[int, BitMap]]:
    """The images of each tag, of sorted pairs."""
    if not len(pairs):
        return
    tags, ordinals = pairs >> _SHIFT, (pairs & _ORDINAL).astype(np.uint32)
    starts = [0, *(np.flatnonzero(tags[1:] != tags[:-1]) + 1).tolist()]
    for tag, start, end in zip(tags[starts].tolist(), starts, [*starts[1:], len(pairs)], strict=True):
        yield tag, from_array(ordinals[start:end])


def joined(rows: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.uint64], Columns]:
    """The image and the columns of each prediction in these rows."""
    packed = [found for _, found in rows]
    columns = np.frombuffer(b"".join(packed), dtype=PACKED)
    counts = np.array([len(found) // PACKED.itemsize for found in packed], dtype=np.int64)
    return np.repeat(np.array([ordinal for ordinal, _ in rows], dtype=np.uint64), counts), columns


def thresholds(columns: Columns, rules: Rules) -> NDArray[np.float64]:
    """The threshold of each prediction. Ratings are no tags."""
    return _thresholds(columns["tag"], columns["category"], rules)


def _thresholds(tags: NDArray[np.uint32], categories: NDArray[np.uint8], rules: Rules) -> NDArray[np.float64]:
    of_category = np.array([rules.categories.get(category, 1.0) for category in CATEGORIES])
    of_category[_CODES["rating"]] = NEVER
    above: NDArray[np.float64] = of_category[categories]
    if rules.of_tags or rules.deny:
        of_tag = np.full(max(*rules.of_tags, *rules.deny, tags.max(initial=0)) + 1, np.nan)
        of_tag[list(rules.of_tags)] = list(rules.of_tags.values())
        of_tag[list(rules.deny)] = NEVER
        found = of_tag[tags]
        above = np.where(np.isnan(found), above, found)
        above[categories == _CODES["rating"]] = NEVER
    return above
