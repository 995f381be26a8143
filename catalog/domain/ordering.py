"""Pages of sorted images: keyset pagination by a number or a name, and then by ordinal. Pure."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.domain.selection import Numbers, to_array

_DIGITS = re.compile(r"[0-9]+")
MAX_CURSOR_CHARACTERS = 64
"""Maximum length of a name in a cursor, which is part of an address."""


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


@dataclass(frozen=True)
class NameKeys:
    """Names as numbers in the same order; `by_ordinal` are the natural keys of all images, empty without a name."""

    by_ordinal: Sequence[str]
    _distinct: list[str] = field(init=False)
    _ranks: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_distinct", sorted(set(self.by_ordinal)))
        rank = {key: 2.0 * at for at, key in enumerate(self._distinct)}
        object.__setattr__(self, "_ranks", np.fromiter((rank[key] for key in self.by_ordinal), dtype=np.float64))

    def numbers(self, images: BitMap) -> Numbers:
        ordinals = to_array(images)
        found = np.full(len(ordinals), -1.0)  # of an image that was added since
        found[ordinals < len(self._ranks)] = self._ranks[ordinals[ordinals < len(self._ranks)]]
        return found

    def key(self, ordinal: int) -> str:
        """The natural key; a cursor has its first MAX_CURSOR_CHARACTERS."""
        return self.by_ordinal[ordinal] if 0 <= ordinal < len(self.by_ordinal) else ""

    def number(self, key: str, ordinal: int) -> float:
        """The number of a key in a cursor; one that no image has any more is between two others."""
        current = self.key(ordinal)
        if len(key) == MAX_CURSOR_CHARACTERS and current.startswith(key):
            key = current  # the cursor has only its beginning
        at = bisect_left(self._distinct, key)
        return 2.0 * at if at < len(self._distinct) and self._distinct[at] == key else 2.0 * at - 1


def natural_key(name: str) -> str:
    """Sorts like the name, but 2 before 10: numbers become their number of digits (four of them) and the digits."""
    return _DIGITS.sub(lambda found: _counted(found[0].lstrip("0") or "0"), name)


def _counted(digits: str) -> str:
    return f"{len(digits):04}{digits}"
