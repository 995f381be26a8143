"""Batches of commits on their way into the read model, with their events grouped by type.

A view applies a whole batch at once, so that a million commits are a few statements each. The rows must not depend on
where batches end: a view may use only what is true when the batch has ended, or never changes. Events that cannot be
applied so, because they look at all images of a data set at that moment, get a batch of their own
(`SINGLE_COMMIT_EVENTS`).
"""

import sqlite3
from abc import ABCMeta, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar, overload

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from contracts.commits import RecordedCommit
from contracts.events.base import Event
from contracts.events.datasets import (
    CommitsUndone,
    DatasetErased,
    DatasetRemoved,
    ImageErased,
    ImagesRemoved,
    RulesSet,
    TagsEdited,
    ThresholdsSet,
)
from contracts.events.image_sets import ImageSet
from contracts.tags import Acceptance

E = TypeVar("E", bound=Event)
T = TypeVar("T")

SINGLE_COMMIT_EVENTS = frozenset(
    {ThresholdsSet, RulesSet, CommitsUndone, ImagesRemoved, DatasetRemoved, ImageErased, DatasetErased}
)


Pairs = NDArray[np.uint64]
"""Of tags and images: each is one number, `tag id << 32 | ordinal`, so that a set of pairs is a sorted array."""
BULK = 64
"""An edit of more images is kept once, with its set of images, and not with each image."""


@dataclass(frozen=True)
class PairChange:
    """The pairs that pass since a change, and those that passed before it."""

    added: Pairs
    removed: Pairs

    def tags(self) -> set[int]:
        return {int(tag) for pairs in (self.added, self.removed) for tag in np.unique(pairs >> np.uint64(32))}


@dataclass(frozen=True)
class Toggle:
    """What an undo changed: commits and tagging runs that counted and no longer do, or the other way round.

    `images`: those that the commits are about; `sequence` of the undo.
    """

    dataset_id: str
    sequence: int
    commits: frozenset[int]
    runs: frozenset[str]
    images: BitMap


ROWS_AT_ONCE = 250
"""Rows that are changed before asking whether to go on."""
DIRECT = 1_000
"""What concerns at most so many images is done together with the other changes of its commit."""
LAST_NUMBER = 2**63 - 1
GoOn = Callable[[], bool]
"""Whether there is time for more; asked after every few rows."""


class _AbstractStruct(msgspec.StructMeta, ABCMeta):
    """Structs with abstract methods."""


class Step(msgspec.Struct, metaclass=_AbstractStruct, frozen=True, kw_only=True, tag=True):
    """A part of applying a commit to the rows of one data set."""

    dataset_id: str

    def plan(self, _: sqlite3.Connection, /) -> object:
        """What `run` needs of the rows before any of them is changed; takes long, so perhaps on another connection."""
        return None

    @abstractmethod
    def run(self, connection: sqlite3.Connection, plan: object, go_on: GoOn, /) -> "Step | None":
        """Does a part of it, as large as there is time for; returns what is left. `plan`: the result of `plan`."""

    def finish(self, connection: sqlite3.Connection) -> None:
        """Does all of it."""
        left: Step | None = self
        while left is not None:
            left = left.run(connection, left.plan(connection), lambda: True)


def takes_long(images: int) -> bool:
    return images > DIRECT


class ImagesStep(Step, frozen=True, kw_only=True):
    """Changes the rows of images, some at a time."""

    images: bytes

    def run(self, connection: sqlite3.Connection, _: object, go_on: GoOn, /) -> "Step | None":
        left = BitMap.deserialize(self.images)
        while left:
            some = self.first(left)
            self.change(connection, some)
            left -= some
            if not go_on():
                break
        return msgspec.structs.replace(self, images=bytes(left.serialize())) if left else None

    def first(self, images: BitMap, /) -> BitMap:
        """Those of these images that are changed together."""
        return images[:ROWS_AT_ONCE]

    @abstractmethod
    def change(self, connection: sqlite3.Connection, images: BitMap, /) -> None:
        """Changes the rows of some images."""


class DeleteRows(Step, frozen=True, kw_only=True):
    """Deletes the rows of a data set from tables, some at a time, by ascending numbers in a column."""

    tables: tuple[str, ...]
    column: str = "ordinal"
    at_once: int | None = None
    """Rows, if they are not of the usual size."""

    def run(self, connection: sqlite3.Connection, _: object, go_on: GoOn, /) -> "Step | None":
        tables = list(self.tables)
        while tables:
            if not self.delete_some(connection, tables[0]):
                tables.pop(0)
            if not go_on():
                break
        return msgspec.structs.replace(self, tables=tuple(tables)) if tables else None

    def delete_some(self, connection: sqlite3.Connection, table: str) -> bool:
        """Whether there is more."""
        rows = f"SELECT {self.column} FROM {table} WHERE dataset_id = ?"  # noqa: S608 - our tables
        # At least all rows with the lowest number, of which there may be many.
        next_row = f"{rows} AND {self.column} > ({rows} ORDER BY 1 LIMIT 1) ORDER BY 1 LIMIT 1 OFFSET ?"
        offset = (self.at_once or ROWS_AT_ONCE) - 1
        found = connection.execute(next_row, (self.dataset_id, self.dataset_id, offset)).fetchone()
        end = None if found is None else found[0]
        self.delete(connection, table, LAST_NUMBER if end is None else end)
        return end is not None

    def delete(self, connection: sqlite3.Connection, table: str, end: int) -> None:
        """Those with numbers below `end`."""
        delete = f"DELETE FROM {table} WHERE dataset_id = ? AND {self.column} < ?"  # noqa: S608 - our tables
        connection.execute(delete, (self.dataset_id, end))


class CommitBatch:
    """`commits` in the order of the log, without gaps."""

    def __init__(self, commits: Sequence[RecordedCommit]) -> None:
        self.commits = commits
        self._by_type: defaultdict[type[Event], list[tuple[int, int, RecordedCommit, Any]]] = defaultdict(list)
        self._events: dict[tuple[type[Event], ...], list[tuple[RecordedCommit, Any]]] = {}
        self._ordinals: dict[bytes, BitMap] = {}
        self._computed: dict[Callable[[CommitBatch], Any], Any] = {}
        self.tag_ids: dict[str, int] = {}
        """The ids of the tags that the batch names."""
        self.toggles: list[Toggle] = []
        self.predicted: dict[str, PairChange] = {}
        """What the predictions of the batch change, by data set."""
        self.repredicted: set[str] = set()
        """The data sets of which too many predictions change to say so in `predicted`."""
        self.acceptance_of: Callable[[sqlite3.Connection, str], Acceptance]
        """The rules of a data set, as the view of data sets knows them."""
        self.moved: dict[str, BitMap] = {}
        """The images that came or went with a removal or an undo, by data set."""
        self.tags_of_erased: set[int] = set()
        """Ids of the tags that the erased image had."""
        self.steps: list[Step] = []
        """What is left to do, in this order, when all views have been applied."""
        for recorded in commits:
            for index, event in enumerate(recorded.commit.events):
                self._by_type[type(event)].append((recorded.sequence, index, recorded, event))

    @overload
    def events(self, event_type: type[E], /) -> list[tuple[RecordedCommit, E]]: ...
    @overload
    def events(self, *types: type[Event]) -> list[tuple[RecordedCommit, Any]]: ...
    def events(self, *types: type[Event]) -> list[tuple[RecordedCommit, Any]]:
        """The events of these types with their commits, in log order."""
        if types not in self._events:
            found = [self._by_type[event_type] for event_type in types if event_type in self._by_type]
            merged = found[0] if len(found) == 1 else sorted(chain.from_iterable(found), key=itemgetter(0, 1))
            self._events[types] = [(recorded, event) for _, _, recorded, event in merged]
        return self._events[types]

    def indexed_events(self, event_type: type[E]) -> list[tuple[int, RecordedCommit, E]]:
        """The events of one type, with the index of each in its commit."""
        return [(index, recorded, event) for _, index, recorded, event in self._by_type.get(event_type, ())]

    def once(self, compute: Callable[["CommitBatch"], T]) -> T:
        """What a function computes from this batch, once for all views that need it."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        found: T = self._computed[compute]
        return found

    def ordinals(self, images: ImageSet) -> BitMap:
        """The ordinals of a set of images, not to be changed; cached, as several views need the same.

        ValueError: the set lies in a blob and was not read.
        """
        found = self._ordinals.get(images.bitmap)
        if found is None:
            found = self._ordinals[images.bitmap] = BitMap.deserialize(images.bitmap)
        return found


def split_batches(commits: Sequence[RecordedCommit]) -> Iterator[CommitBatch]:
    """Splits commits into batches; commits with SINGLE_COMMIT_EVENTS are each one of their own."""
    start = 0
    for number, recorded in enumerate(commits):
        if any(map(needs_batch_of_its_own, recorded.commit.events)):
            if number > start:
                yield CommitBatch(commits[start:number])
            yield CommitBatch([recorded])
            start = number + 1
    if start < len(commits):
        yield CommitBatch(commits[start:])


def needs_batch_of_its_own(event: Event) -> bool:
    """Whether it looks at all images of a data set at that moment."""
    return type(event) in SINGLE_COMMIT_EVENTS or (isinstance(event, TagsEdited) and event.images.count > BULK)


def delete_erased(connection: sqlite3.Connection, batch: CommitBatch, *tables: str) -> None:
    """Delete the rows of erased images and data sets from tables that have their `dataset_id` and `ordinal`."""
    for recorded, image in batch.events(ImageErased):
        for table in tables:
            delete = f"DELETE FROM {table} WHERE dataset_id = ? AND ordinal = ?"  # noqa: S608 - our tables
            connection.execute(delete, (recorded.commit.aggregate_id, image.ordinal))
    for recorded, _ in batch.events(DatasetErased):
        batch.steps.append(DeleteRows(dataset_id=recorded.commit.aggregate_id, tables=tables))
