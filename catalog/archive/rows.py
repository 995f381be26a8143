"""The rows of the archive: what is read from them, and how the next messages of the log become rows.

These functions run inside a transaction or snapshot of `catalog.archive.file`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from catalog.archive.chain import ChainVerification, Tail, advance, chain_hash, check_link, verify_chains
from catalog.database import MAX_SEQUENCE, Connection
from catalog.migrations import Schema
from catalog.rows import EPOCH, MICROSECOND, from_microseconds, tuple_cursor
from contracts import subjects
from contracts.audit import Damage
from contracts.commits import ForeignMessage, LogEntry, RecordedCommit, StreamRevision, decode, revision_of
from contracts.errors import LogDamaged
from contracts.log_message import LogMessage
from contracts.signatures import is_valid, key_id_of
from contracts.verification import IsSigned, Trust, evolve, verify

ARCHIVE = "archive.db"
ARCHIVE_SCHEMA = Schema(
    ARCHIVE,
    (
        (  # 1; a file from before there were numbers has these tables already
            "CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1), log_id TEXT NOT NULL)",
            """
            CREATE TABLE IF NOT EXISTS entry (
                sequence INTEGER PRIMARY KEY,
                aggregate_kind TEXT NOT NULL,
                aggregate_id TEXT NOT NULL,
                id TEXT NOT NULL,
                recorded INTEGER NOT NULL,
                body BLOB NOT NULL,
                chain BLOB NOT NULL
            )
            """,
            "CREATE INDEX IF NOT EXISTS entry_of_aggregate ON entry (aggregate_kind, aggregate_id, sequence)",
        ),
        (  # 2; `foreign_reason` is empty where the commit was accepted
            "ALTER TABLE entry ADD COLUMN signature TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE entry ADD COLUMN foreign_reason TEXT NOT NULL DEFAULT ''",
            "CREATE INDEX entry_foreign ON entry (sequence) WHERE foreign_reason != ''",
        ),
    ),
    oldest=2,  # before, nothing was signed, and the chain was another
)

ADD = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
TAIL = "SELECT sequence, chain FROM entry ORDER BY sequence DESC LIMIT 1"
ALL_ROWS = """
SELECT sequence, aggregate_kind, aggregate_id, id, CAST(body AS BLOB), CAST(chain AS BLOB), signature, foreign_reason
FROM entry ORDER BY sequence
"""
SELECT_ENTRY = """
SELECT sequence, recorded, body, signature, foreign_reason,
    CASE WHEN foreign_reason != '' THEN aggregate_kind || '.' || aggregate_id END
FROM entry
"""
ENTRIES_AFTER = SELECT_ENTRY + "WHERE sequence > ? ORDER BY sequence LIMIT ?"
ROWS_BETWEEN = """
SELECT sequence, aggregate_kind, aggregate_id, recorded, body, chain, signature FROM entry
WHERE sequence > ? AND sequence <= ?
"""
TRUSTED = SELECT_ENTRY + "WHERE aggregate_kind IN ('log', 'service-key') AND foreign_reason = '' ORDER BY sequence"
LATEST_OF_AGGREGATE = """
SELECT sequence, body FROM entry WHERE aggregate_kind = ? AND aggregate_id = ? AND foreign_reason = ''
ORDER BY sequence DESC LIMIT 1
"""
INTEGRITY_CHECK = "PRAGMA integrity_check(1)"

AggregateKey = tuple[str, str]
MAX_CACHED_CHAIN_HEADS = 20_000
BATCH_COMMITS, BATCH_BYTES = 20_000, 32 << 20
"""Of commits that are applied together: decoded ones take several times as much memory."""


class StoredRow(NamedTuple):
    """One archived message as stored. `recorded`: microseconds since 1970, by the server's clock."""

    sequence: int
    aggregate_kind: str
    aggregate_id: str
    recorded: int
    body: bytes
    chain: bytes
    signature: str


@dataclass
class Writing:
    """What the next messages are verified and chained on top of.

    `roots`: the public key of `keys.db`, after those lost before, oldest first, of which each replaced the one before.
    `chain_heads` caches the last commit of the aggregates that were written most recently.
    """

    trust: Trust = field(default_factory=Trust)
    roots: tuple[bytes, ...] = ()
    is_signed: IsSigned = is_valid
    chain_heads: dict[AggregateKey, StreamRevision] = field(default_factory=dict)

    @property
    def root(self) -> bytes:
        """The one that may establish itself next; empty: none."""
        ids = [key_id_of(root) for root in self.roots]
        following = ids.index(self.trust.root) + 1 if self.trust.root in ids else 0
        return self.roots[min(following, len(ids) - 1)] if ids else b""

    def head(self, connection: Connection, kind: str, aggregate_id: str) -> StreamRevision:
        """The last archived commit of an aggregate."""
        cached = self.chain_heads.get((kind, aggregate_id))
        if cached is not None:
            return cached
        row = connection.execute(LATEST_OF_AGGREGATE, (kind, aggregate_id)).fetchone()
        return StreamRevision() if row is None else advance(row["sequence"], row["body"])

    def forget(self) -> None:
        """Some cached heads may belong to commits that were rolled back."""
        self.chain_heads.clear()


def receive(connection: Connection, messages: Sequence[LogMessage], writing: Writing) -> tuple[list[LogEntry], Tail]:
    """Verify and archive the next messages of the log; those archived before are skipped. Returns the new entries."""
    last = tail(connection).sequence
    entries: list[LogEntry] = []
    for message in messages:
        if message.sequence <= last:
            continue
        entry = verify(message, writing.trust, writing.root, partial(writing.head, connection), writing.is_signed)
        if isinstance(entry, RecordedCommit):
            commit = entry.commit
            writing.trust = evolve(writing.trust, entry.sequence, commit)
            writing.chain_heads[commit.aggregate_kind, commit.aggregate_id] = revision_of(entry)
        entries.append(entry)
    return entries, _insert(connection, entries)


def append(connection: Connection, entries: Sequence[LogEntry], writing: Writing) -> Tail:
    """Archive entries that were verified before. LogDamaged: one does not continue the history of its aggregate."""
    last = tail(connection).sequence
    new = [entry for entry in entries if entry.sequence > last]
    for entry in new:
        if isinstance(entry, ForeignMessage):
            continue
        commit = entry.commit
        head = writing.head(connection, commit.aggregate_kind, commit.aggregate_id)
        if (why := check_link(commit, head)) and writing.trust.voided <= head.sequence:
            raise LogDamaged(
                f"commit {entry.sequence} does not continue what was archived: {why}", first_bad=entry.sequence
            )
        writing.trust = evolve(writing.trust, entry.sequence, commit)
        writing.chain_heads[commit.aggregate_kind, commit.aggregate_id] = revision_of(entry)
    return _insert(connection, new)


def _insert(connection: Connection, entries: Sequence[LogEntry]) -> Tail:
    last = tail(connection)
    sequence, chain = last.sequence, last.chain
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        sequence += 1
        if entry.sequence != sequence:
            raise LogDamaged(f"commit {sequence} is missing before {entry.sequence}", first_bad=sequence)
        chain = chain_hash(chain, sequence, entry.subject, entry.signature, entry.body)
        microseconds = (entry.recorded_at - EPOCH) // MICROSECOND
        rows.append((sequence, *_columns(entry), microseconds, entry.body, chain, entry.signature, _reason(entry)))
    connection.executemany(ADD, rows)
    return Tail(sequence, chain)


def _columns(entry: LogEntry) -> tuple[str, str, str]:
    """Aggregate kind and id, and the commit's id."""
    if isinstance(entry, ForeignMessage):
        return *entry.aggregate, ""
    return entry.commit.aggregate_kind, entry.commit.aggregate_id, entry.commit.id


def _reason(entry: LogEntry) -> str:
    return entry.reason if isinstance(entry, ForeignMessage) else ""


def tail(connection: Connection) -> Tail:
    row = connection.execute(TAIL).fetchone()
    return Tail() if row is None else Tail(*row)


def trust(connection: Connection) -> Trust:
    """What the archived commits say about the log and the keys of its writers."""
    found = Trust()
    for entry in read_entries(connection, TRUSTED):
        assert isinstance(entry, RecordedCommit)  # noqa: S101 - the statement leaves out foreign ones
        found = evolve(found, entry.sequence, entry.commit)
    return found


def read_entries(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> Iterator[LogEntry]:
    """The entries that a statement with the columns of SELECT_ENTRY finds."""
    rows = tuple_cursor(connection).execute(statement, parameters)
    for sequence, recorded, body, signature, reason, foreign in rows:
        at = from_microseconds(recorded)
        if not reason:
            yield decode(sequence, at, body, signature)
            continue
        kind, _, name = foreign.partition(".")
        subject = subjects.aggregate(kind, name)
        yield ForeignMessage(
            sequence=sequence, recorded_at=at, subject=subject, body=body, signature=signature, reason=reason
        )


def read_batch(connection: Connection, after: int, until: int = MAX_SEQUENCE) -> list[LogEntry]:
    """The next entries up to a sequence, as many as are applied together: one or more, if there are any."""
    batch: list[LogEntry] = []
    size = 0
    for entry in read_entries(connection, ENTRIES_AFTER, (after, min(until - after, BATCH_COMMITS))):
        batch.append(entry)
        size += len(entry.body)
        if size >= BATCH_BYTES:
            break
    return batch


def rows_between(connection: Connection, after: int, to: int) -> dict[int, StoredRow]:
    return {row[0]: StoredRow._make(row) for row in tuple_cursor(connection).execute(ROWS_BETWEEN, (after, to))}


def verify_all_chains(connection: Connection) -> ChainVerification:
    """Recompute the chains and run SQLite's integrity check: a wrong index gives wrong results from correct entries."""
    verification, rows = ChainVerification(), tuple_cursor(connection)
    try:
        verify_chains(rows.execute(ALL_ROWS), verification)
        if verification.damage is None and (wrong := rows.execute(INTEGRITY_CHECK).fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(wrong.strip().replace("\n", ", "))
    except sqlite3.DatabaseError as error:
        detail = f"the archive's file is damaged after commit {verification.sequence}: {error}"
        first_bad = verification.sequence + 1
        verification.damage = Damage(where="archive", kind="unreadable", first_bad=first_bad, detail=detail)
    return verification
