"""Commits on their way into the rows, in the order of the log, with their facts at hand by type.

A view takes in a whole batch at once, so that a million commits are a few statements each. The rows must not depend on
where batches end: a view looks only at what holds when the batch has ended, or never changes. What cannot be done so,
because it looks at all images of a data set as they are at that moment, is a batch of its own (`ALONE`).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar, overload

from catalog.views.sets import unpacked
from contracts.events import DatasetErased, DatasetRemoved, Fact, ImageErased, Stored, ThresholdsSet

F = TypeVar("F", bound=Fact)

ALONE = frozenset({ThresholdsSet, DatasetRemoved, ImageErased, DatasetErased})


class Batch:
    """`commits` in the order of the log, none of them missing."""

    def __init__(self, commits: Sequence[Stored]) -> None:
        self.commits = commits
        self._told: defaultdict[type[Fact], list[tuple[int, int, Stored, Any]]] = defaultdict(list)
        self._found: dict[tuple[type[Fact], ...], list[tuple[Stored, Any]]] = {}
        self._ordinals: dict[bytes, list[int]] = {}
        for stored in commits:
            for index, fact in enumerate(stored.commit.facts):
                self._told[type(fact)].append((stored.sequence, index, stored, fact))

    @overload
    def facts(self, kind: type[F], /) -> list[tuple[Stored, F]]: ...
    @overload
    def facts(self, *types: type[Fact]) -> list[tuple[Stored, Any]]: ...
    def facts(self, *types: type[Fact]) -> list[tuple[Stored, Any]]:
        """The facts of these types with their commits, in the order they happened."""
        if types not in self._found:
            self._found[types] = [(stored, fact) for _, stored, fact in self.numbered(*types)]
        return self._found[types]

    @overload
    def numbered(self, kind: type[F], /) -> list[tuple[int, Stored, F]]: ...
    @overload
    def numbered(self, *types: type[Fact]) -> list[tuple[int, Stored, Any]]: ...
    def numbered(self, *types: type[Fact]) -> list[tuple[int, Stored, Any]]:
        """The same, with the place of each fact in its commit."""
        told = [self._told[kind] for kind in types if kind in self._told]
        merged = told[0] if len(told) == 1 else sorted(chain.from_iterable(told), key=itemgetter(0, 1))
        return [(index, stored, fact) for _, index, stored, fact in merged]

    def ordinals(self, images: bytes) -> list[int]:
        """The ordinals of a set in a fact, rising; several views ask for the same."""
        found = self._ordinals.get(images)
        if found is None:
            found = self._ordinals[images] = unpacked(images)
        return found


def parts(commits: Sequence[Stored]) -> Iterator[Batch]:
    """The batches that commits fall into: those that must be alone are."""
    start = 0
    for number, stored in enumerate(commits):
        if not ALONE.isdisjoint(map(type, stored.commit.facts)):
            if number > start:
                yield Batch(commits[start:number])
            yield Batch([stored])
            start = number + 1
    if start < len(commits):
        yield Batch(commits[start:])
