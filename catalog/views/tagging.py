"""Tagging runs as asked for, and what their worker said it ran on. How far they are stands in `work`."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec

from catalog.database import Connection
from catalog.views import work
from catalog.views.batch import Batch
from catalog.views.work import WorkRow
from contracts.errors import LogDamaged
from contracts.events import TaggingModelLoaded, TaggingPredicted, TaggingRequested
from contracts.ids import RunId

TABLES = """
CREATE TABLE IF NOT EXISTS tagging (
    id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    asked BLOB NOT NULL,
    loaded BLOB,
    unreadable INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tagging_by_age ON tagging (created);
CREATE INDEX IF NOT EXISTS tagging_by_dataset ON tagging (dataset_id, created);
"""

ASK = "INSERT OR IGNORE INTO tagging (id, dataset_id, asked, created) VALUES (?, ?, ?, ?)"
LOAD = "UPDATE tagging SET loaded = ? WHERE id = ?"
UNREADABLE = "UPDATE tagging SET unreadable = unreadable + ? WHERE id = ?"

FIND = "SELECT * FROM tagging WHERE id = ?"
PAGE = "SELECT * FROM tagging WHERE created < ? ORDER BY created DESC LIMIT ?"
PAGE_OF = "SELECT * FROM tagging WHERE dataset_id = ? AND created < ? ORDER BY created DESC LIMIT ?"
RUNS_OF = "SELECT id FROM tagging WHERE dataset_id = ? AND created <= ? ORDER BY created"
COUNT = "SELECT COUNT(*) FROM tagging"
COUNT_OF = "SELECT COUNT(*) FROM tagging WHERE dataset_id = ?"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """`created` is the sequence of its first commit."""

    id: RunId
    asked: TaggingRequested
    loaded: TaggingModelLoaded | None
    unreadable: int
    created: int


def apply(connection: Connection, batch: Batch) -> None:
    for stored, asked in batch.facts(TaggingRequested):
        connection.execute(ASK, (stored.commit.thing, asked.dataset_id, _encode(asked), stored.sequence))
    for stored, loaded in batch.facts(TaggingModelLoaded):
        connection.execute(LOAD, (_encode(loaded), stored.commit.thing))
    blind = Counter(
        stored.commit.thing
        for stored, fact in batch.facts(TaggingPredicted)
        for image in fact.images
        if image.unreadable is not None
    )
    connection.executemany(UNREADABLE, [(number, thing) for thing, number in blind.items()])


def find(connection: Connection, run_id: str) -> tuple[RunRow, WorkRow] | None:
    row = connection.execute(FIND, (run_id,)).fetchone()
    held = work.find(connection, "tag", run_id)
    return None if row is None or held is None else (_row(dict(row)), held)


def run_of(connection: Connection, run_id: str) -> RunRow:
    """The run that predictions belong to; LogDamaged if nobody asked for it."""
    row = connection.execute(FIND, (run_id,)).fetchone()
    if row is None:
        raise LogDamaged(f"predictions of the tagging run {run_id}, which nobody asked for")
    return _row(dict(row))


def runs_of(connection: Connection, dataset_id: str, last: int) -> list[RunId]:
    """The runs over a data set that had been asked for at a sequence."""
    return [row["id"] for row in connection.execute(RUNS_OF, (dataset_id, last))]


def runs_in(connection: Connection, batch: Batch) -> dict[str, RunRow]:
    """The runs that say in this batch what they saw, by id."""
    runs = dict.fromkeys(stored.commit.thing for stored, _ in batch.facts(TaggingPredicted))
    return {run: run_of(connection, run) for run in runs}


def page(connection: Connection, dataset_id: str | None, before: int, limit: int) -> list[RunRow]:
    """The newest first, those created before a sequence."""
    if dataset_id is None:
        rows = connection.execute(PAGE, (before, limit))
    else:
        rows = connection.execute(PAGE_OF, (dataset_id, before, limit))
    return [_row(dict(row)) for row in rows]


def count(connection: Connection, dataset_id: str | None) -> int:
    found = connection.execute(COUNT) if dataset_id is None else connection.execute(COUNT_OF, (dataset_id,))
    return int(found.fetchone()[0])


def _row(row: dict[str, Any]) -> RunRow:
    loaded = row["loaded"]
    return RunRow(
        id=row["id"],
        asked=msgspec.json.decode(row["asked"], type=TaggingRequested),
        loaded=None if loaded is None else msgspec.json.decode(loaded, type=TaggingModelLoaded),
        unreadable=row["unreadable"],
        created=row["created"],
    )
