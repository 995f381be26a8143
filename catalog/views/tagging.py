"""Tagging runs as requested, and the model their worker loaded. Their state and progress are in `work`."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec

from catalog.database import Connection
from catalog.views import work
from catalog.views.batch import CommitBatch
from catalog.views.work import WorkRow
from contracts.errors import LogDamaged
from contracts.events import TaggingModelLoaded, TaggingPredicted, TaggingRequested
from contracts.ids import RunId

TABLES = """
CREATE TABLE IF NOT EXISTS tagging (
    id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    request BLOB NOT NULL,
    loaded_model BLOB,
    unreadable INTEGER NOT NULL DEFAULT 0,
    created_sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tagging_by_age ON tagging (created_sequence);
CREATE INDEX IF NOT EXISTS tagging_by_dataset ON tagging (dataset_id, created_sequence);
"""

CREATE = "INSERT OR IGNORE INTO tagging (id, dataset_id, request, created_sequence) VALUES (?, ?, ?, ?)"
SET_LOADED_MODEL = "UPDATE tagging SET loaded_model = ? WHERE id = ?"
ADD_UNREADABLE = "UPDATE tagging SET unreadable = unreadable + ? WHERE id = ?"

FIND = "SELECT * FROM tagging WHERE id = ?"
PAGE = "SELECT * FROM tagging WHERE created_sequence < ? ORDER BY created_sequence DESC LIMIT ?"
PAGE_OF_DATASET = """
SELECT * FROM tagging WHERE dataset_id = ? AND created_sequence < ? ORDER BY created_sequence DESC LIMIT ?
"""
IDS_OF_DATASET = "SELECT id FROM tagging WHERE dataset_id = ? AND created_sequence <= ? ORDER BY created_sequence"
COUNT = "SELECT COUNT(*) FROM tagging"
COUNT_OF_DATASET = "SELECT COUNT(*) FROM tagging WHERE dataset_id = ?"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """`unreadable` counts images that could not be read; `created_sequence` is that of the run's first commit."""

    id: RunId
    request: TaggingRequested
    loaded_model: TaggingModelLoaded | None
    unreadable: int
    created_sequence: int


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, request in batch.events(TaggingRequested):
        row = (recorded.commit.aggregate_id, request.dataset_id, _encode(request), recorded.sequence)
        connection.execute(CREATE, row)
    for recorded, loaded in batch.events(TaggingModelLoaded):
        connection.execute(SET_LOADED_MODEL, (_encode(loaded), recorded.commit.aggregate_id))
    unreadable = Counter(
        recorded.commit.aggregate_id
        for recorded, event in batch.events(TaggingPredicted)
        for image in event.images
        if image.unreadable is not None
    )
    connection.executemany(ADD_UNREADABLE, [(number, run_id) for run_id, number in unreadable.items()])


def find(connection: Connection, run_id: str) -> tuple[RunRow, WorkRow] | None:
    row = connection.execute(FIND, (run_id,)).fetchone()
    work_row = work.find(connection, "tag", run_id)
    return None if row is None or work_row is None else (_row(dict(row)), work_row)


def get_run(connection: Connection, run_id: str) -> RunRow:
    """The run that predictions belong to; LogDamaged if it was never requested."""
    row = connection.execute(FIND, (run_id,)).fetchone()
    if row is None:
        raise LogDamaged(f"predictions of the tagging run {run_id}, which was never requested")
    return _row(dict(row))


def run_ids_of_dataset(connection: Connection, dataset_id: str, last: int) -> list[RunId]:
    """The runs on a data set that were requested up to a sequence."""
    return [row["id"] for row in connection.execute(IDS_OF_DATASET, (dataset_id, last))]


def runs_by_id(connection: Connection, batch: CommitBatch) -> dict[str, RunRow]:
    """The runs whose predictions are in this batch."""
    ids = dict.fromkeys(recorded.commit.aggregate_id for recorded, _ in batch.events(TaggingPredicted))
    return {run_id: get_run(connection, run_id) for run_id in ids}


def page(connection: Connection, dataset_id: str | None, before: int, limit: int) -> list[RunRow]:
    """Newest first, those created before a sequence."""
    if dataset_id is None:
        rows = connection.execute(PAGE, (before, limit))
    else:
        rows = connection.execute(PAGE_OF_DATASET, (dataset_id, before, limit))
    return [_row(dict(row)) for row in rows]


def count(connection: Connection, dataset_id: str | None) -> int:
    found = connection.execute(COUNT) if dataset_id is None else connection.execute(COUNT_OF_DATASET, (dataset_id,))
    return int(found.fetchone()[0])


def _row(row: dict[str, Any]) -> RunRow:
    loaded = row["loaded_model"]
    return RunRow(
        id=row["id"],
        request=msgspec.json.decode(row["request"], type=TaggingRequested),
        loaded_model=None if loaded is None else msgspec.json.decode(loaded, type=TaggingModelLoaded),
        unreadable=row["unreadable"],
        created_sequence=row["created_sequence"],
    )
