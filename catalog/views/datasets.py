"""Data sets: what they are called, where their history ends, their thresholds then and now."""

import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalog.database import Connection
from catalog.domain.standing import DEFAULTS
from catalog.views import tagging
from catalog.views.batch import Batch
from contracts.events import (
    Category,
    DatasetCreated,
    DatasetErased,
    DatasetRemoved,
    DatasetRenamed,
    Fact,
    ImageAdded,
    ImageRefused,
    Stored,
    TaggingPredicted,
    ThresholdsSet,
)
from contracts.ids import DatasetId
from contracts.wire.log import Head

TABLES = """
CREATE TABLE IF NOT EXISTS dataset (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    description TEXT NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    erased INTEGER NOT NULL DEFAULT 0,
    next_ordinal INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    general REAL NOT NULL,
    character REAL NOT NULL,
    latest_version INTEGER,
    created INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    named INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    head_sequence INTEGER NOT NULL DEFAULT 0,
    head_version INTEGER NOT NULL DEFAULT 0,
    head_digest TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dataset_by_name ON dataset (folded) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS dataset_by_age ON dataset (created) WHERE removed = 0;
CREATE TABLE IF NOT EXISTS threshold (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    general REAL NOT NULL,
    character REAL NOT NULL,
    PRIMARY KEY (dataset_id, sequence)
) WITHOUT ROWID;
"""

CREATE = """
INSERT INTO dataset
    (id, name, folded, description, general, character, created, created_at, changed_at, named, touched)
VALUES (:id, :name, :folded, :description, :general, :character, :sequence, :at, :at, :sequence, :sequence)
ON CONFLICT DO NOTHING
"""
RENAME = "UPDATE dataset SET name = ?, folded = ?, named = ? WHERE id = ?"
REMOVE = "UPDATE dataset SET removed = 1 WHERE id = ?"
ERASE = "UPDATE dataset SET removed = 1, erased = 1, refused = 0 WHERE id = ?"
NUMBER = "UPDATE dataset SET next_ordinal = MAX(next_ordinal, ? + 1) WHERE id = ?"
REFUSED = "UPDATE dataset SET refused = refused + ? WHERE id = ?"
THRESHOLDS = "UPDATE dataset SET general = ?, character = ? WHERE id = ?"
KEEP_THRESHOLDS = "INSERT OR REPLACE INTO threshold VALUES (?, ?, ?, ?)"
MOVE_HEAD = "UPDATE dataset SET head_sequence = ?, head_version = ?, head_digest = ? WHERE id = ?"
TOUCH = "UPDATE dataset SET touched = ?, changed_at = ? WHERE id = ?"

BY_ID = "SELECT * FROM dataset WHERE id = ?"
BY_NAME = "SELECT * FROM dataset WHERE folded = ? AND removed = 0"
PAGE = "SELECT * FROM dataset WHERE removed = 0 AND created > ? ORDER BY created LIMIT ?"
COUNT = "SELECT COUNT(*) FROM dataset WHERE removed = 0"
THRESHOLDS_AT = """
SELECT general, character FROM threshold WHERE dataset_id = ? AND sequence <= ? ORDER BY sequence DESC LIMIT 1
"""


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """`head` is where its history ends; `touched` the last sequence that changed what one sees of it (its ETag).

    `created` and `named` are the sequences of its creation and of its last name.
    """

    id: DatasetId
    name: str
    description: str
    removed: bool
    erased: bool
    head: Head
    next_ordinal: int
    refused: int
    general: float
    character: float
    latest_version: int | None
    created: int
    named: int
    touched: int
    created_at: datetime
    changed_at: datetime

    @property
    def thresholds(self) -> dict[Category, float]:
        return {"general": self.general, "character": self.character}


def apply(connection: Connection, batch: Batch) -> None:
    for stored, fact in batch.facts(DatasetCreated, DatasetRenamed, DatasetRemoved, DatasetErased, ThresholdsSet):
        _change(connection, stored, fact)
    added = ((fact.ordinal, stored.commit.thing) for stored, fact in batch.facts(ImageAdded))
    highest = {thing: ordinal for ordinal, thing in sorted(added)}
    connection.executemany(NUMBER, [(ordinal, thing) for thing, ordinal in highest.items()])
    refused = Counter(stored.commit.thing for stored, _ in batch.facts(ImageRefused))
    connection.executemany(REFUSED, [(number, thing) for thing, number in refused.items()])
    last = {stored.commit.thing: stored for stored in batch.commits if stored.commit.kind == "dataset"}
    connection.executemany(MOVE_HEAD, [(*_head(stored), thing) for thing, stored in last.items()])
    _touch(connection, batch)


def _change(connection: Connection, stored: Stored, fact: Fact) -> None:
    thing, sequence = stored.commit.thing, stored.sequence
    match fact:
        case DatasetCreated(name=name, description=description):
            words = {"id": thing, "name": name, "folded": folded(name), "description": description}
            moment = {"sequence": sequence, "at": stored.commit.at.isoformat()}
            connection.execute(CREATE, words | DEFAULTS | moment)
        case DatasetRenamed(name=name):
            connection.execute(RENAME, (name, folded(name), sequence, thing))
        case DatasetRemoved():
            connection.execute(REMOVE, (thing,))
        case DatasetErased():
            connection.execute(ERASE, (thing,))
        case ThresholdsSet(general=general, character=character):
            connection.execute(THRESHOLDS, (general, character, thing))
            connection.execute(KEEP_THRESHOLDS, (thing, sequence, general, character))
        case _:
            pass


def _head(stored: Stored) -> tuple[int, int, str]:
    return stored.sequence, stored.commit.version, hashlib.sha256(stored.body).hexdigest()


def _touch(connection: Connection, batch: Batch) -> None:
    """What one sees of a data set changes by facts of its own, and of runs over its images."""
    last = {stored.commit.thing: stored for stored in batch.commits if stored.commit.kind == "dataset"}
    runs = tagging.runs_in(connection, batch)
    for stored, _ in batch.facts(TaggingPredicted):
        dataset_id = runs[stored.commit.thing].asked.dataset_id
        last[dataset_id] = max(last.get(dataset_id, stored), stored, key=lambda one: one.sequence)
    connection.executemany(
        TOUCH, [(stored.sequence, stored.commit.at.isoformat(), thing) for thing, stored in last.items()]
    )


def folded(name: str) -> str:
    """Names that differ only in case or in how their signs are composed are the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def find(connection: Connection, ref: str) -> DatasetRow | None:
    """By id (also when removed), else by name (only what is still there)."""
    row = connection.execute(BY_ID, (ref,)).fetchone() or connection.execute(BY_NAME, (folded(ref),)).fetchone()
    return None if row is None else _row(dict(row))


def name_taken(connection: Connection, name: str) -> bool:
    return connection.execute(BY_NAME, (folded(name),)).fetchone() is not None


def page(connection: Connection, after: int, limit: int) -> list[DatasetRow]:
    """In the order they were created, those after the one created at this sequence."""
    return [_row(dict(row)) for row in connection.execute(PAGE, (after, limit))]


def count(connection: Connection) -> int:
    return int(connection.execute(COUNT).fetchone()[0])


def thresholds_at(connection: Connection, dataset_id: str, sequence: int) -> dict[Category, float]:
    """The thresholds as they were at a sequence of the log."""
    row = connection.execute(THRESHOLDS_AT, (dataset_id, sequence)).fetchone()
    return DEFAULTS if row is None else {"general": row["general"], "character": row["character"]}


def _row(row: dict[str, Any]) -> DatasetRow:
    del row["folded"]
    head = Head(row.pop("head_sequence"), row.pop("head_version"), row.pop("head_digest"))
    times = {name: datetime.fromisoformat(row[name]) for name in ("created_at", "changed_at")}
    marks = {name: bool(row[name]) for name in ("removed", "erased")}
    return DatasetRow(**row | times | marks | {"head": head})
