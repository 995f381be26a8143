"""Sets of pairs of tags and images, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.uint64]
"""Of tags and images: each is one number, `tag id << 32 | ordinal`, so that a set of pairs is a sorted array."""


@dataclass(frozen=True)
class PairChange:
    """The pairs that pass since a change, and those that passed before it."""

    added: Pairs
    removed: Pairs

    def tags(self) -> set[int]:
        return {int(tag) for pairs in (self.added, self.removed) for tag in np.unique(pairs >> np.uint64(32))}
