"""Predictions in columns: which (tag, image) pairs pass the rules of a data set, as numpy arithmetic.

A pair is one number, `tag id << 32 | ordinal`, so that sets of pairs are sorted arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.views.batch import PairChange, Pairs
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.tags import Acceptance, Fixed

Columns = NDArray[Any]
"""Predictions as rows of PACKED."""

PACKED = np.dtype([("tag", "<u4"), ("category", "u1"), ("probability", "<f8")])
CATEGORIES: tuple[Category, ...] = ("general", "character", "rating")
NEVER = 2.0
"""A threshold that no probability passes."""
NO_PAIRS: Pairs = np.empty(0, dtype=np.uint64)

_CODES = {category: code for code, category in enumerate(CATEGORIES)}
_SHIFT = np.uint64(32)
_ORDINAL = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Rules:
    """The rules of a data set by the ids of tags; `of_tags` and `deny` lack tags that the log has never named."""

    categories: Mapping[Category, float]
    of_tags: Mapping[int, float]
    deny: frozenset[int]


def rules_by_id(acceptance: Acceptance, ids: Mapping[str, int]) -> Rules:
    """Data sets have fixed thresholds only."""
    threshold = acceptance.threshold
    categories, tags = (threshold.above, threshold.tags) if isinstance(threshold, Fixed) else ({}, {})
    of_tags = {ids[tag]: above for tag, above in tags.items() if tag in ids}
    return Rules(categories, of_tags, frozenset(ids[tag] for tag in acceptance.deny if tag in ids))


def pack(predictions: Sequence[Prediction], ids: Mapping[str, int]) -> bytes:
    rows = [(ids[found.tag], _CODES[found.category], found.probability) for found in predictions]
    return np.array(rows, dtype=PACKED).tobytes()


def unpack(packed: bytes) -> list[tuple[int, Category, float]]:
    """Tag id, category and probability of each prediction."""
    rows = np.frombuffer(packed, dtype=PACKED).tolist()
    return [(tag, CATEGORIES[category], probability) for tag, category, probability in rows]


def passing(rows: Sequence[tuple[int, bytes]], rules: Rules) -> Pairs:
    """The pairs that pass, sorted and each once, of packed predictions by ordinal. An image may have several rows."""
    ordinals, columns = _joined(rows)
    if not len(columns):
        return NO_PAIRS
    mask = columns["probability"] > _thresholds(columns, rules)
    found: Pairs = np.unique(columns["tag"][mask].astype(np.uint64) << _SHIFT | ordinals[mask])
    return found


def tags_in(rows: Sequence[tuple[int, bytes]]) -> set[int]:
    """The tags that are predicted, whatever their probability."""
    return set(np.unique(_joined(rows)[1]["tag"]).tolist())


def ranked(rows: Sequence[tuple[int, bytes]], rules: Rules, names: Mapping[int, str]) -> dict[int, list[int]]:
    """What passes of each image, in the order of `contracts.tags.accept`; given the newest run of an image first.

    Of a tag that several runs predict, the highest probability counts, and the category that comes with it.
    """
    ordinals, columns = _joined(rows)
    if not len(columns):
        return {}
    mask = columns["probability"] > _thresholds(columns, rules)
    run = np.repeat(np.arange(len(rows)), [len(found) // PACKED.itemsize for _, found in rows])
    found = _Passing(
        image=ordinals[mask].astype(np.int64),
        run=run[mask],
        tag=columns["tag"][mask].astype(np.int64),
        rank=np.where(columns["category"][mask] == _CODES["character"], 0, 1),
        falling=-columns["probability"][mask],
    )
    if len(np.unique(found.image << 32 | found.tag)) < len(found.tag):
        # A name in two categories counts once for each run: as that which comes first in a caption.
        found = found.first_of_each(found.run, np.lexsort((found.falling, found.rank, found.tag, found.run)))
        found = found.first_of_each(found.image, np.lexsort((found.run, found.falling, found.tag, found.image)))
    by_name = _places_by_name(names, found.tag)
    order = np.lexsort((by_name, found.falling, found.image << 1 | found.rank))
    return _by_image(found.image[order], found.tag[order])


@dataclass(frozen=True)
class _Passing:
    """Predictions that pass, in columns. `run`: the number of the row they are from. `rank`: of their category."""

    image: NDArray[np.int64]
    run: NDArray[np.int64]
    tag: NDArray[np.int64]
    rank: NDArray[np.int64]
    falling: NDArray[np.float64]
    """The probability, negative."""

    def first_of_each(self, groups: NDArray[np.int64], order: NDArray[np.int64]) -> "_Passing":
        """In this order, the first of each tag of each group."""
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (np.diff(groups[order]) != 0) | (np.diff(self.tag[order]) != 0)
        kept = order[is_new]
        columns = (self.image[kept], self.run[kept], self.tag[kept], self.rank[kept])
        return _Passing(*columns, falling=self.falling[kept])


def _places_by_name(names: Mapping[int, str], tags: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each of these tags its place in the order of their names."""
    ids, which = np.unique(tags, return_inverse=True)
    in_order = sorted(range(len(ids)), key=[names[tag] for tag in ids.tolist()].__getitem__)
    places = np.empty(len(ids), dtype=np.int64)
    places[in_order] = np.arange(len(ids))
    found: NDArray[np.int64] = places[which]
    return found


def _by_image(ordinals: NDArray[np.int64], tags: NDArray[Any]) -> dict[int, list[int]]:
    starts = np.flatnonzero(np.diff(ordinals, prepend=-1))
    parts = np.split(tags, starts[1:])
    return {int(ordinals[start]): part.tolist() for start, part in zip(starts, parts, strict=False)}


def raise_to(highest: NDArray[np.float64], rows: Sequence[tuple[int, bytes]], tag: int) -> None:
    """Raise the numbers of images, by ordinal, to the predictions of one tag; later images than it has are left out."""
    ordinals, columns = _joined([row for row in rows if row[0] < len(highest)])
    mask = columns["tag"] == tag
    np.maximum.at(highest, ordinals[mask].astype(np.int64), columns["probability"][mask])


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
        yield int(tags[start]), BitMap(part)


def _joined(rows: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.uint64], Columns]:
    """The image and the columns of each prediction in these rows."""
    packed = [found for _, found in rows]
    columns = np.frombuffer(b"".join(packed), dtype=PACKED)
    counts = np.array([len(found) // PACKED.itemsize for found in packed], dtype=np.int64)
    return np.repeat(np.array([ordinal for ordinal, _ in rows], dtype=np.uint64), counts), columns


def _thresholds(columns: Columns, rules: Rules) -> NDArray[np.float64]:
    """The threshold of each prediction. Ratings are no tags."""
    of_category = np.array([rules.categories.get(category, 1.0) for category in CATEGORIES])
    above: NDArray[np.float64] = of_category[columns["category"]]
    for tag, threshold in rules.of_tags.items():
        above[columns["tag"] == tag] = threshold
    if rules.deny:
        above[np.isin(columns["tag"], np.fromiter(rules.deny, dtype=np.uint32))] = NEVER
    above[columns["category"] == _CODES["rating"]] = NEVER
    return above
