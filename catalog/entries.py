"""What the archive's entries say: facts by who, what and when; the commits of some things; where a moment lies.

Questions over a connection of the archive, as the views have theirs over the read model's. Sequences in the log are
dense, and the times it recorded rise with them.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args

import msgspec

from catalog.database import Connection
from catalog.domain.told import events_of
from contracts.events import Stored
from contracts.queries import EventView, ListEvents, Page
from contracts.subjects import Kind
from contracts.wire.log import decode

ENTRY = "SELECT sequence, recorded, body FROM entry "
BETWEEN = ENTRY + "WHERE sequence > :after AND sequence <= :last AND (:kind IS NULL OR kind = :kind)"
OF_THING = ENTRY + "WHERE kind = :kind AND thing = :thing AND sequence > :after AND sequence <= :last"
IN_ORDER = " ORDER BY sequence"
AT = ENTRY + "WHERE sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence"  # noqa: S608 - constants
SEQUENCES = """
SELECT sequence FROM entry WHERE kind = ? AND thing = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?
"""
KIND = "SELECT kind FROM entry WHERE kind = ? AND thing = ? LIMIT 1"
NTH = "SELECT sequence FROM entry WHERE kind = ? AND thing = ? AND sequence > ? ORDER BY sequence LIMIT 1 OFFSET ?"
LAST = "SELECT IFNULL(MAX(sequence), 0) FROM entry"
RECORDED = "SELECT recorded FROM entry WHERE sequence = ?"

SCAN = 10_000
"""So many commits one question about events looks through; the answer says where to go on."""
PAGE_BYTES = 700_000
"""A page of events ends before it gets larger than this, so that it fits in one message."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT_ONCE = 500
KINDS: tuple[Kind, ...] = get_args(Kind)
TICK = timedelta(microseconds=1)
"""What the archive tells two times apart by."""

Thing = tuple[Kind, str]
"""Kind and id."""


def page(connection: Connection, asked: ListEvents) -> Page[EventView]:
    """Facts after a sequence, as stored. Pages hold whole commits, so a page may have a few more than `limit`.

    With a filter a page may have fewer, even none, and yet a `next` to go on from: SCAN bounds the search.
    """
    head = last_sequence(connection)
    at = asked.after if asked.since is None else max(asked.after, sequence_at(connection, asked.since - TICK))
    last = head if asked.until is None else sequence_at(connection, asked.until - TICK)
    kind = _kind(connection, asked)
    stop = _stop(connection, kind, asked.thing, at, last)
    items: list[EventView] = []
    size = 0
    for sequence, recorded, body in _rows(connection, kind, asked.thing, at, stop):
        found = [view for view in events_of(sequence, moment_of(recorded), body) if _wanted(asked, view)]
        cost = len(msgspec.json.encode(found)) if found else 0
        if items and (size + cost > PAGE_BYTES or len(items) >= asked.limit):
            stop = at
            break
        items.extend(found)
        size, at = size + cost, sequence
    return Page(items=tuple(items), total=head, next=str(stop) if stop < last else None)


def sequences_of(connection: Connection, things: Sequence[Thing], *, after: int, last: int, limit: int) -> list[int]:
    """Where the commits of these things stand after one sequence and up to another: the first `limit` of them."""
    found: list[int] = []
    for thing in things:
        found += [sequence for (sequence,) in connection.execute(SEQUENCES, (*thing, after, last, limit))]
    return sorted(found)[:limit]


def commits_at(connection: Connection, sequences: Sequence[int]) -> Iterator[Stored]:
    """The commits at rising sequences, read a few at a time."""
    for start in range(0, len(sequences), AT_ONCE):
        some = msgspec.json.encode(list(sequences[start : start + AT_ONCE])).decode()
        for sequence, recorded, body in connection.execute(AT, (some,)):
            yield decode(sequence, moment_of(recorded), body)


def last_sequence(connection: Connection) -> int:
    """Where the archive ends."""
    return int(connection.execute(LAST).fetchone()[0])


def sequence_at(connection: Connection, moment: datetime) -> int:
    """The last commit that the log had recorded at a moment; 0 = none."""
    wanted = (moment - EPOCH) // TICK
    before, after = 0, last_sequence(connection) + 1
    while after - before > 1:
        middle = (before + after) // 2
        if connection.execute(RECORDED, (middle,)).fetchone()[0] <= wanted:
            before = middle
        else:
            after = middle
    return before


def moment_of(recorded: int) -> datetime:
    """When the log recorded a commit, from microseconds since 1970."""
    return EPOCH + timedelta(microseconds=recorded)


def _kind(connection: Connection, asked: ListEvents) -> str | None:
    """The kind of what is asked for, where that can be known: a type names it in front, and an id has only one."""
    of_type = (asked.type or "").partition(".")[0]
    if asked.kind or of_type in KINDS:
        return asked.kind or of_type
    if asked.thing is None:
        return None
    found = (connection.execute(KIND, (kind, asked.thing)).fetchone() for kind in KINDS)
    return next((row[0] for row in found if row is not None), "")


def _stop(connection: Connection, kind: str | None, thing: str | None, after: int, last: int) -> int:
    """How far one question looks. A thing's commits are found by an index, so only they count."""
    if thing is None:
        return min(last, after + SCAN)
    row = connection.execute(NTH, (kind, thing, after, SCAN - 1)).fetchone()
    return last if row is None else min(last, row[0])


def _rows(
    connection: Connection, kind: str | None, thing: str | None, after: int, last: int
) -> Iterator[tuple[int, int, bytes]]:
    wanted = {"kind": kind, "thing": thing, "after": after, "last": last}
    yield from connection.execute((BETWEEN if thing is None else OF_THING) + IN_ORDER, wanted)


def _wanted(asked: ListEvents, view: EventView) -> bool:
    return _fits(asked.type, view.type) and _fits(asked.actor, view.actor)


def _fits(pattern: str | None, text: str) -> bool:
    """`job.*` fits all that begins with `job.`."""
    if pattern is None:
        return True
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
