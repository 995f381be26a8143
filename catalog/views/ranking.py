"""The tags that predictions give many images at a time, in the order of captions: numpy arithmetic. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.domain.rules import Rules
from catalog.views import pairs


def tags_in(rows: Sequence[tuple[int, bytes]]) -> set[int]:
    """The tags that are predicted, whatever their probability."""
    return set(np.unique(pairs.joined(rows)[1]["tag"]).tolist())


def ranked(rows: Sequence[tuple[int, bytes]], rules: Rules, names: Mapping[int, str]) -> dict[int, list[int]]:
    """What passes of each image, in the order of `contracts.tags.accept`; given the newest run of an image first.

    Of a tag that several runs predict, the highest probability counts, and the category that comes with it.
    """
    ordinals, columns = pairs.joined(rows)
    if not len(columns):
        return {}
    mask = columns["probability"] > pairs.thresholds(columns, rules)
    run = np.repeat(np.arange(len(rows)), [len(found) // pairs.PACKED.itemsize for _, found in rows])
    found = _Passing(
        image=ordinals[mask].astype(np.int64),
        run=run[mask],
        tag=columns["tag"][mask].astype(np.int64),
        rank=np.where(columns["category"][mask] == pairs.CHARACTER, 0, 1),
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
