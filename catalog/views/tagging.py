"""Tagging runs as requested, and the model their worker loaded. Their state and progress are in `work`."""

from collections import Counter

import msgspec

from catalog.database import Connection
from catalog.rows import fetch, fetch_number, fetch_one
from catalog.views.batch import CommitBatch
from contracts.errors import LogDamaged
from contracts.events.tagging import TaggingModelLoaded, TaggingPredicted, TaggingRequested
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
ALL, OF_DATASET = "FROM tagging WHERE TRUE", "FROM tagging WHERE dataset_id = :dataset"
PAGE = "SELECT * {} AND created_sequence < :before ORDER BY created_sequence DESC LIMIT :limit"
IDS_OF_DATASET = "SELECT id FROM tagging WHERE dataset_id = ? AND created_sequence <= ? ORDER BY created_sequence"
COUNT = "SELECT COUNT(*) {}"

_encode = msgspec.json.Encoder().encode


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
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


def find(connection: Connection, run_id: str) -> RunRow | None:
    return fetch_one(connection, RunRow, FIND, (run_id,))


def run_ids_of_dataset(connection: Connection, dataset_id: str, last: int) -> list[RunId]:
    """The runs on a data set that were requested up to a sequence."""
    return [row["id"] for row in connection.execute(IDS_OF_DATASET, (dataset_id, last))]


def runs_by_id(connection: Connection, batch: CommitBatch) -> dict[str, RunRow]:
    """The runs whose predictions are in this batch. LogDamaged: one of them was never requested."""
    runs: dict[str, RunRow] = {}
    for run_id in dict.fromkeys(recorded.commit.aggregate_id for recorded, _ in batch.events(TaggingPredicted)):
        run = find(connection, run_id)
        if run is None:
            raise LogDamaged(f"predictions of the tagging run {run_id}, which was never requested")
        runs[run_id] = run
    return runs


def page(connection: Connection, dataset_id: str | None, before: int, limit: int) -> list[RunRow]:
    """Newest first, those created before a sequence."""
    query = PAGE.format(ALL if dataset_id is None else OF_DATASET)
    return fetch(connection, RunRow, query, {"dataset": dataset_id, "before": before, "limit": limit})


def count(connection: Connection, dataset_id: str | None) -> int:
    query = COUNT.format(ALL if dataset_id is None else OF_DATASET)
    return fetch_number(connection, query, {"dataset": dataset_id})
