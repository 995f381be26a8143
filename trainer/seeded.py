"""Stateless randomness: every draw is a hash of its name, so a resumed run repeats the same draws.

No generator state is carried from step to step or saved in checkpoints.
"""

import hashlib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def seed_for(*name: int | str) -> int:
    """63 bits of SHA-256 over the parts of the name: the seed of everything drawn under it."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def uniform(*name: int | str) -> float:
    """A number in [0, 1), uniformly distributed over names."""
    return (seed_for(*name) >> 10) / 2**53


def shuffled(items: Iterable[T], *name: int | str) -> list[T]:
    """The items in random order. Sorted by hash, so the result is the same in every version of Python."""
    source = list(items)
    return [source[index] for index in sorted(range(len(source)), key=lambda index: seed_for(*name, index))]
