"""Which commits belong to one import, or read texts for one request, and which images each of them added."""

from collections import defaultdict
from collections.abc import Iterable

from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import json_array
from catalog.views.batch import CommitBatch
from contracts.events.datasets import ImageAdded, ImageRefused, TextReceived

TABLES = """
CREATE TABLE IF NOT EXISTS import_commit (
    dataset_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    request TEXT NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (dataset_id, sequence)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS import_by_request ON import_commit (dataset_id, request);
"""

ADD = "INSERT OR IGNORE INTO import_commit VALUES (?, ?, ?, ?)"
SAME_IMPORT = """
SELECT sequence FROM import_commit WHERE dataset_id = :dataset
    AND request = (SELECT request FROM import_commit WHERE dataset_id = :dataset AND sequence = :sequence)
ORDER BY sequence
"""
IMAGES = """
SELECT sequence, images FROM import_commit
WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""


def apply(connection: Connection, batch: CommitBatch) -> None:
    imported: defaultdict[tuple[str, int, str], BitMap] = defaultdict(BitMap)
    for recorded, event in batch.events(ImageAdded, ImageRefused, TextReceived):
        added = imported[recorded.commit.aggregate_id, recorded.sequence, recorded.commit.correlation_id]
        if isinstance(event, ImageAdded):
            added.add(event.ordinal)
    connection.executemany(ADD, [(*commit, bytes(added.serialize())) for commit, added in imported.items()])


def commits_of_import(connection: Connection, dataset_id: str, sequence: int) -> tuple[int, ...]:
    """The commits of the same import or reading as one of them; none: it imported and read nothing."""
    rows = connection.execute(SAME_IMPORT, {"dataset": dataset_id, "sequence": sequence})
    return tuple(row["sequence"] for row in rows)


def added_by_each(connection: Connection, dataset_id: str, commits: Iterable[int]) -> dict[int, BitMap]:
    """Those of these commits that imported something, each with the images that it added."""
    rows = connection.execute(IMAGES, (dataset_id, json_array(commits)))
    return {row["sequence"]: BitMap.deserialize(row["images"]) for row in rows}


def added_by(connection: Connection, dataset_id: str, commits: Iterable[int]) -> BitMap:
    """The images that these commits added."""
    return BitMap.union(BitMap(), *added_by_each(connection, dataset_id, commits).values())
