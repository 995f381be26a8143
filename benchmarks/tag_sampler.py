"""Tags and predictions of generated images, with Zipf's frequencies over 10,000 tags: for `benchmarks.big_dataset`."""

from collections.abc import Iterator, Sequence
from itertools import islice, product

import numpy as np

from contracts.events.tagging import Prediction

TAGS_PER_IMAGE = 30
PREDICTIONS_PER_IMAGE = 30
SHARED_TAGS = 13
"""Tags of an image that the model predicts as well."""
RATINGS = ("general", "sensitive", "questionable", "explicit")
ADJECTIVES = (
    *("long", "short", "red", "blue", "green", "open", "closed", "white", "black", "wet"),
    *("old", "small", "large", "dark", "bright", "folded", "striped", "torn", "round", "thin"),
)
NOUNS = (
    *("hair", "eyes", "sky", "shirt", "grass", "house", "tree", "hat", "dress", "hand", "water", "road", "cat"),
    *("leaf", "stone", "window", "lamp", "glove", "boot", "ribbon", "cloud", "table", "chair", "flower", "bird"),
)
VARIANTS = 20
"""Of each pair of words: together 10,000 tags."""
DRAWN_AT_ONCE = 10_000


class TagSampler:
    """Draws tags of images, with Zipf's frequencies. Seeded."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        pairs = [f"{one}_{other}_{n}" for one, other, n in product(ADJECTIVES, NOUNS, range(VARIANTS))]
        self.vocabulary = [pairs[number] for number in np.random.default_rng(0).permutation(len(pairs))]
        """Most frequent first; the same for all seeds."""
        weights = 1 / np.arange(1, len(pairs) + 1)
        self._cumulative = np.cumsum(weights / weights.sum())[:-1]
        self._numbers = self._endless_numbers()

    def draw(self, count: int) -> list[str]:
        """This many different tags."""
        return list(islice(self._distinct(), count))

    def _distinct(self) -> Iterator[str]:
        known: set[int] = set()
        for number in self._numbers:
            if number not in known:
                known.add(number)
                yield self.vocabulary[number]

    def _endless_numbers(self) -> Iterator[int]:
        while True:
            yield from np.searchsorted(self._cumulative, self.rng.random(DRAWN_AT_ONCE)).tolist()

    def predictions(self, tags: Sequence[str]) -> tuple[Prediction, ...]:
        """Of an image with these tags: some of them, others, and its ratings. A third are above the usual threshold."""
        own = dict.fromkeys(tags[:SHARED_TAGS])
        others = (tag for tag in self._distinct() if tag not in own)
        predicted = [*own, *islice(others, PREDICTIONS_PER_IMAGE - SHARED_TAGS - len(RATINGS))]
        values = np.round(0.05 + 0.94 * self.rng.random(PREDICTIONS_PER_IMAGE) ** 2, 4).tolist()
        return tuple(
            Prediction(tag=tag, probability=value, category="rating" if tag in RATINGS else "general")
            for tag, value in zip((*predicted, *RATINGS), values, strict=True)
        )
