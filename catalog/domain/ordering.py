"""Pages of sorted images: keyset pagination by a number or a name, and then by ordinal. Pure."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pyroaring import BitMap

from catalog.domain.selection import Numbers, to_array

_DIGITS = re.compile(r"[0-9]+")
NO_RANK = -1
"""Of an image without a name: these come first."""


class Position(NamedTuple):
    """Of one image in a sorted list."""

    number: float
    ordinal: int


def page(
    images: BitMap, numbers: Numbers, after: Position | None, *, limit: int, descending: bool = False
) -> list[Position]:
    """The next images after a position, by their numbers (by ascending ordinal), ties by ordinal.

    Descending is exactly the reverse order.
    """
    ordinals, sorted_by = to_array(images).astype(np.int64), numbers.astype(np.float64)
    if descending:
        ordinals, sorted_by = -ordinals[::-1], -sorted_by[::-1]
        after = None if after is None else Position(-after.number, -after.ordinal)
    if after is not None:
        following = (sorted_by > after.number) | ((sorted_by == after.number) & (ordinals > after.ordinal))
        ordinals, sorted_by = ordinals[following], sorted_by[following]
    if len(ordinals) > limit:
        # Only what can be on the page is sorted; the order of ordinals is kept by the stable sort.
        possible = sorted_by <= np.partition(sorted_by, limit - 1)[limit - 1]
        ordinals, sorted_by = ordinals[possible], sorted_by[possible]
    chosen = np.argsort(sorted_by, kind="stable")[:limit]
    sign = -1 if descending else 1
    return [Position(sign * float(sorted_by[at]), sign * int(ordinals[at])) for at in chosen.tolist()]


class NameKeys:
    """Names as numbers in the same order; `by_ordinal` are the natural keys of all images, empty without a name.

    A cursor says where a list continues without any name: by an ordinal, and by the rank that its image had among
    those with a name. If the image has no name any more, it was erased, and its neighbour of that rank is continued
    from.
    """

    def __init__(self, by_ordinal: Sequence[str]) -> None:
        self.by_ordinal = by_ordinal
        self._distinct = sorted(set(by_ordinal))
        number = {key: 2.0 * at for at, key in enumerate(self._distinct)}
        self._numbers = np.fromiter((number[key] for key in by_ordinal), dtype=np.float64)
        named = np.flatnonzero(np.fromiter((key != "" for key in by_ordinal), dtype=np.bool_))
        self._in_order = named[np.argsort(self._numbers[named], kind="stable")]
        self._ranks = np.full(len(by_ordinal), NO_RANK)
        self._ranks[self._in_order] = np.arange(len(named))

    def numbers(self, images: BitMap) -> Numbers:
        ordinals = to_array(images)
        found = np.full(len(ordinals), -1.0)  # of an image that was added since
        found[ordinals < len(self._numbers)] = self._numbers[ordinals[ordinals < len(self._numbers)]]
        return found

    def key(self, ordinal: int) -> str:
        return self.by_ordinal[ordinal] if 0 <= ordinal < len(self.by_ordinal) else ""

    def rank(self, ordinal: int) -> int:
        """How many images with a name come before it; NO_RANK: it has none."""
        return int(self._ranks[ordinal]) if 0 <= ordinal < len(self._ranks) else NO_RANK

    def continue_from(self, ordinal: int, rank: int, *, descending: bool) -> int | None:
        """The ordinal of the last image of a page, or of the one that comes before where it was; None: none does."""
        if rank == NO_RANK or self.key(ordinal):
            return ordinal
        neighbour = rank if descending else min(rank, len(self._in_order)) - 1
        return int(self._in_order[neighbour]) if 0 <= neighbour < len(self._in_order) else None

    def number(self, key: str) -> float:
        """The number of a key; one that no image has is between two others."""
        at = bisect_left(self._distinct, key)
        return 2.0 * at if at < len(self._distinct) and self._distinct[at] == key else 2.0 * at - 1


def natural_key(name: str) -> str:
    """Sorts like the name, but 2 before 10: numbers become their number of digits (four of them) and the digits."""
    return _DIGITS.sub(lambda found: _counted(found[0].lstrip("0") or "0"), name)


def _counted(digits: str) -> str:
    return f"{len(digits):04}{digits}"
