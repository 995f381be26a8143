"""Chance as a function: every draw is named by where it stands, so nothing needs to be remembered to draw it again.

No generator is carried from step to step. A resumed run asks for the same names and gets the same draws.
"""

import hashlib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def key(*name: int | str) -> int:
    """63 bits that belong to this name and no other: the seed of whatever is drawn under it."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def share(*name: int | str) -> float:
    """A number in [0, 1), uniform over names."""
    return (key(*name) >> 10) / 2**53


def order(things: Iterable[T], *name: int | str) -> list[T]:
    """The things shuffled. Sorted by hash, so it is the same in every version of Python."""
    there = list(things)
    return [there[place] for place in sorted(range(len(there)), key=lambda place: key(*name, place))]
