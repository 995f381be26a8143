"""What the read model has taken in and not applied completely: long applications, and commits that wait for them."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.commits import Aggregate


class Planned(Protocol):
    """A part of a long application. `plan`: what it needs of the rows, read before any of them is changed."""

    def plan(self, connection: sqlite3.Connection, /) -> object: ...


@dataclass(frozen=True)
class Slice:
    """What is to be done next: `step` of the commit at a sequence. `later`: the number of steps after it."""

    sequence: int
    step: Planned
    later: int

    def is_of_same_step(self, other: "Slice") -> bool:
        return (self.sequence, self.later) == (other.sequence, other.later)


@dataclass(frozen=True)
class Waiting:
    """Commits of one data set that had to wait and are next, by sequence."""

    sequences: Sequence[int]


@dataclass(frozen=True)
class Pending:
    """`first`: the first commit of each aggregate that is not applied completely. `commits`: how many there are."""

    first: dict[Aggregate, int]
    commits: int
