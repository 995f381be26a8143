"""Queries over the archive's entries: events by filter, the commits of some aggregates, the sequence at a time.

They run on a connection of the archive, as those of the views run on one of the read model. Sequences of the log are
dense, and the times at which commits were recorded never decrease.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.domain.event_view import event_views
from catalog.rows import EPOCH, MICROSECOND, fetch_number, from_microseconds
from contracts.aggregates import REGISTRY
from contracts.commits import RecordedCommit, decode
from contracts.errors import LogDamaged
from contracts.events.log import LogCreated, LogRestored, LossAccepted
from contracts.ids import Digest
from contracts.queries.base import Page
from contracts.queries.log import EventView, ListEvents

ENTRY = "SELECT sequence, recorded, body, signature FROM entry "
BETWEEN = """
WHERE sequence > :after AND sequence <= :last AND (:kind IS NULL OR aggregate_kind = :kind) AND foreign_reason = ''
ORDER BY sequence
"""
OF_AGGREGATE = """
WHERE aggregate_kind = :kind AND aggregate_id = :id AND sequence > :after AND sequence <= :last AND foreign_reason = ''
ORDER BY sequence
"""
AT = ENTRY + "WHERE sequence IN (SELECT value FROM json_each(?)) AND foreign_reason = '' ORDER BY sequence"  # noqa: S608 - constants
SEQUENCES = """
SELECT sequence FROM entry
WHERE aggregate_kind = ? AND aggregate_id = ? AND sequence > ? AND sequence <= ? AND foreign_reason = ''
ORDER BY sequence LIMIT ?
"""
EXISTS = "SELECT aggregate_kind FROM entry WHERE aggregate_kind = ? AND aggregate_id = ? LIMIT 1"
NTH = """
SELECT sequence FROM entry WHERE aggregate_kind = ? AND aggregate_id = ? AND sequence > ?
ORDER BY sequence LIMIT 1 OFFSET ?
"""
LAST_OF_AGGREGATE = """
SELECT IFNULL(MAX(sequence), 0) FROM entry
WHERE aggregate_kind = ? AND aggregate_id = ? AND sequence <= ? AND foreign_reason = ''
"""
LAST = "SELECT IFNULL(MAX(sequence), 0) FROM entry"
RECORDED = "SELECT recorded FROM entry WHERE sequence = ?"
LOG = "SELECT log_id FROM log"
ACCEPTED_LOSSES = """
SELECT sequence, recorded, body, signature FROM entry WHERE aggregate_kind = 'log'
    AND instr(body, '"log.loss_accepted"') AND foreign_reason = '' ORDER BY sequence
"""
LOG_HISTORY = """
SELECT sequence, recorded, body FROM entry WHERE aggregate_kind = 'log'
    AND (instr(body, '"log.created"') OR instr(body, '"log.restored"')) ORDER BY sequence
"""

MAX_SCANNED_COMMITS = 10_000
"""Maximum number of commits one query scans; the result says where to continue."""
MAX_PAGE_BYTES = 700_000
"""Maximum size of a page of events, so that it fits in one message."""
READ_CHUNK = 500
"""Commits read by one statement."""

AggregateKey = tuple[str, str]
"""Aggregate kind and id."""


def list_events(connection: Connection, query: ListEvents) -> Page[EventView]:
    """Events after a sequence, as stored. Pages hold whole commits, so one may have a few more items than `limit`.

    With a filter a page may have fewer, or none, and still a `next`, because MAX_SCANNED_COMMITS bounds the search.
    """
    end = last_sequence(connection)
    at = query.after if query.since is None else max(query.after, sequence_at(connection, query.since - MICROSECOND))
    last = end if query.until is None else sequence_at(connection, query.until - MICROSECOND)
    kind = _aggregate_kind(connection, query)
    stop = _scan_end(connection, kind, query.aggregate_id, at, last)
    items: list[EventView] = []
    size = 0
    entries = ENTRY + (BETWEEN if query.aggregate_id is None else OF_AGGREGATE)
    parameters = {"kind": kind, "id": query.aggregate_id, "after": at, "last": stop}
    for sequence, recorded, body, _ in connection.execute(entries, parameters):
        found = [view for view in event_views(sequence, from_microseconds(recorded), body) if _matches(query, view)]
        cost = len(msgspec.json.encode(found)) if found else 0
        if items and (size + cost > MAX_PAGE_BYTES or len(items) >= query.limit):
            stop = at
            break
        items.extend(found)
        size, at = size + cost, sequence
    return Page(items=tuple(items), total=end, next=str(stop) if stop < last else None)


def sequences_of(
    connection: Connection, aggregates: Sequence[AggregateKey], *, after: int, last: int, limit: int
) -> list[int]:
    """The sequences of these aggregates' commits, after one sequence and up to another: the first `limit` of them."""
    found: list[int] = []
    for aggregate in aggregates:
        found += [sequence for (sequence,) in connection.execute(SEQUENCES, (*aggregate, after, last, limit))]
    return sorted(found)[:limit]


def last_of(connection: Connection, aggregates: Sequence[AggregateKey], last: int) -> RecordedCommit | None:
    """The last commit of these aggregates up to a sequence."""
    found = (fetch_number(connection, LAST_OF_AGGREGATE, (*aggregate, last)) for aggregate in aggregates)
    return next(commits_at(connection, [max(found, default=0)]), None)


def commits_at(connection: Connection, sequences: Sequence[int]) -> Iterator[RecordedCommit]:
    """The commits at ascending sequences, without foreign messages, read in chunks."""
    for start in range(0, len(sequences), READ_CHUNK):
        chunk = msgspec.json.encode(list(sequences[start : start + READ_CHUNK])).decode()
        for sequence, recorded, body, signature in connection.execute(AT, (chunk,)):
            yield decode(sequence, from_microseconds(recorded), body, signature)


def last_sequence(connection: Connection) -> int:
    """The sequence of the last archived commit."""
    return fetch_number(connection, LAST)


def lineage(connection: Connection) -> frozenset[str]:
    """The ids of this log and of all logs that it was restored from."""
    found = {row[0] for row in connection.execute(LOG)}
    for sequence, recorded, body in connection.execute(LOG_HISTORY):
        try:
            commit = decode(sequence, from_microseconds(recorded), body).commit
        except LogDamaged:
            continue  # whoever verifies the archive finds it
        for event in commit.events:
            match event:
                case LogCreated(log_id=log_id):
                    found.add(log_id)
                case LogRestored(log_id=log_id, before=before):
                    found |= {log_id, before}
    return frozenset(found)


def accepted_losses(connection: Connection) -> dict[Digest, int]:
    """The blobs that were given up, each with the sequence at which it was given up last."""
    entries = connection.execute(ACCEPTED_LOSSES)
    commits = (decode(sequence, from_microseconds(recorded), *rest) for sequence, recorded, *rest in entries)
    return {
        digest: recorded.sequence
        for recorded in commits
        for event in recorded.commit.events
        if isinstance(event, LossAccepted)
        for digest in event.blobs
    }


def sequence_at(connection: Connection, time: datetime) -> int:
    """The last commit recorded by the log up to this time; 0 = none."""
    limit = (time - EPOCH) // MICROSECOND
    before, after = 0, last_sequence(connection) + 1
    while after - before > 1:
        middle = (before + after) // 2
        if fetch_number(connection, RECORDED, (middle,)) <= limit:
            before = middle
        else:
            after = middle
    return before


def _aggregate_kind(connection: Connection, query: ListEvents) -> str | None:
    """The queried aggregate kind: given, the prefix of the type, or looked up by the id, which has only one kind."""
    of_type = (query.type or "").partition(".")[0]
    if query.aggregate_kind or of_type in REGISTRY.by_name:
        return query.aggregate_kind or of_type
    if query.aggregate_id is None:
        return None
    found = (connection.execute(EXISTS, (kind, query.aggregate_id)).fetchone() for kind in REGISTRY.by_name)
    return next((row[0] for row in found if row is not None), "")


def _scan_end(connection: Connection, kind: str | None, aggregate_id: str | None, after: int, last: int) -> int:
    """Where the scan ends. The commits of one aggregate come from an index, so only they count."""
    if aggregate_id is None:
        return min(last, after + MAX_SCANNED_COMMITS)
    row = connection.execute(NTH, (kind, aggregate_id, after, MAX_SCANNED_COMMITS - 1)).fetchone()
    return last if row is None else min(last, row[0])


def _matches(query: ListEvents, view: EventView) -> bool:
    return _matches_pattern(query.type, view.type) and _matches_pattern(query.actor, view.actor)


def _matches_pattern(pattern: str | None, text: str) -> bool:
    """`job.*` matches everything that begins with `job.`."""
    if pattern is None:
        return True
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
