"""Undos, and the commits and tagging runs that do not count because of them."""

from collections.abc import Iterable

import msgspec
from pyroaring import BitMap

from catalog.database import Connection, Row
from catalog.domain.edits import voided_commits
from catalog.domain.image_sets import bitmap_of
from catalog.rows import fetch_value
from catalog.views.batch import CommitBatch, Toggle
from contracts.commits import RecordedCommit
from contracts.events.datasets import CommitsUndone, DatasetErased

TABLES = """
CREATE TABLE IF NOT EXISTS undo (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    commits BLOB NOT NULL,
    runs BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS voided (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    undo INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS voided_run (
    run_id TEXT PRIMARY KEY,
    undo INTEGER NOT NULL
) WITHOUT ROWID;
"""

ADD = "INSERT OR IGNORE INTO undo VALUES (?, ?, ?, ?)"
OF_DATASET = "SELECT sequence, commits, runs FROM undo WHERE dataset_id = ?"
ADD_VOIDED = "INSERT INTO voided VALUES (?, ?, ?)"
DELETE_VOIDED = "DELETE FROM voided WHERE dataset_id = ?"
VOIDED = "SELECT sequence, undo FROM voided WHERE dataset_id = ?"
ADD_VOIDED_RUN = "INSERT INTO voided_run VALUES (?, ?)"
DELETE_VOIDED_RUN = "DELETE FROM voided_run WHERE run_id = ?"
UNDO_OF_RUN = "SELECT undo FROM voided_run WHERE run_id = ?"

_encode = msgspec.json.Encoder().encode
_commits = msgspec.json.Decoder(tuple[int, ...]).decode
_runs = msgspec.json.Decoder(tuple[str, ...]).decode


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, undone in batch.events(CommitsUndone):
        dataset_id = recorded.commit.aggregate_id
        connection.execute(ADD, (dataset_id, recorded.sequence, _encode(undone.commits), _encode(undone.runs)))
        batch.toggles.append(_toggle(connection, recorded, bitmap_of(undone.images)))
    for recorded, _ in batch.events(DatasetErased):
        for table in ("undo", "voided"):
            connection.execute(f"DELETE FROM {table} WHERE dataset_id = ?", (recorded.commit.aggregate_id,))  # noqa: S608 - our tables


def _toggle(connection: Connection, recorded: RecordedCommit, images: BitMap) -> Toggle:
    """Brings the voided commits and runs up to date, and says which changed."""
    dataset_id = recorded.commit.aggregate_id
    before = voided(connection, dataset_id)
    after, runs = _voided_by_undo(connection, dataset_id)
    connection.execute(DELETE_VOIDED, (dataset_id,))
    connection.executemany(ADD_VOIDED, [(dataset_id, sequence, undo) for sequence, undo in after.items()])
    return Toggle(
        dataset_id=dataset_id,
        sequence=recorded.sequence,
        commits=frozenset(before.keys() ^ after.keys()),
        runs=frozenset(_toggle_runs(connection, runs)),
        images=images,
    )


def _voided_by_undo(connection: Connection, dataset_id: str) -> tuple[dict[int, int], dict[str, int]]:
    """The voided commits, and every run that was ever undone: by the undo that counts, 0 where none does."""
    undos = {row["sequence"]: (_commits(row["commits"]), _runs(row["runs"])) for row in _rows(connection, dataset_id)}
    void = voided_commits({sequence: commits for sequence, (commits, _) in undos.items()})
    commits: dict[int, int] = {}
    runs: dict[str, int] = {run: 0 for _, named in undos.values() for run in named}
    for sequence, (undone, named) in sorted(undos.items()):
        if sequence not in void:
            commits |= dict.fromkeys(undone, sequence)
            runs |= dict.fromkeys(named, sequence)
    return commits, runs


def _toggle_runs(connection: Connection, runs: dict[str, int]) -> Iterable[str]:
    for run, undo in runs.items():
        was = undo_of_run(connection, run) or 0
        if (was == 0) != (undo == 0):
            connection.execute(DELETE_VOIDED_RUN, (run,))
            if undo:
                connection.execute(ADD_VOIDED_RUN, (run, undo))
            yield run


def _rows(connection: Connection, dataset_id: str) -> list[Row]:
    return connection.execute(OF_DATASET, (dataset_id,)).fetchall()


def voided(connection: Connection, dataset_id: str, until: int | None = None) -> dict[int, int]:
    """The commits of a data set that do not count, with the undo of each; `until`: as of a sequence (undo unnamed)."""
    if until is None:
        return dict(connection.execute(VOIDED, (dataset_id,)).fetchall())
    return dict.fromkeys(voided_commits(undone_commits(connection, dataset_id), until), 0)


def undone_commits(connection: Connection, dataset_id: str) -> dict[int, tuple[int, ...]]:
    """The commits that each undo of a data set names, by the sequence of the undo."""
    return {row["sequence"]: _commits(row["commits"]) for row in _rows(connection, dataset_id)}


def undone_runs(connection: Connection, dataset_id: str, until: int) -> set[str]:
    """The tagging runs that did not count as of a sequence."""
    rows = [row for row in _rows(connection, dataset_id) if row["sequence"] <= until]
    void = voided_commits({row["sequence"]: _commits(row["commits"]) for row in rows}, until)
    return {run for row in rows if row["sequence"] not in void for run in _runs(row["runs"])}


def undo_of_run(connection: Connection, run_id: str) -> int | None:
    """The undo because of which the predictions of a tagging run do not count; None: they count."""
    found: int | None = fetch_value(connection, UNDO_OF_RUN, (run_id,))
    return found
